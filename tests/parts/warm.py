"""Imported by processes that others are forked from: all that a learner or an actor imports, and their machine code."""

from contextlib import redirect_stdout
from io import StringIO

import actors.actor
import learner.learner
import tests.learner.test_checkpoint
import tests.learner.test_parallel
import tests.whole.test_processes
from protocol.compiled.__main__ import main

__all__ = ["actors", "learner", "tests"]

with redirect_stdout(StringIO()):
    main()
