"""A run directory belongs to one learner at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from protocol.config import ClewError
from protocol.wire import descriptors


class Lock:
    """Holds a run directory for this process, until it is closed or the process ends.

    It is two locks in one: the lock of the directory itself, which nobody can remove or replace, and the lock of the
    file `lock` in it, which also holds between machines that share the directory over a network.
    """

    def __init__(self, run_dir: Path) -> None:
        """Makes the directory if it is not there; raises ClewError if another learner works in it."""
        try:
            with ExitStack() as undo:
                run_dir.mkdir(parents=True, exist_ok=True)
                for path, mode in ((run_dir, os.O_RDONLY), (run_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)):
                    descriptor = descriptors.opened(partial(os.open, path, mode, 0o644))
                    undo.callback(os.close, descriptor)
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._held = undo.pop_all()
        except BlockingIOError:
            raise ClewError(f"another learner works in {run_dir}; end it, or choose another --run-dir") from None
        except OSError as error:
            raise ClewError(f"cannot write to {run_dir}: {error.strerror}; choose another --run-dir") from None

    def close(self) -> None:
        """Lets the next learner have the directory."""
        self._held.close()
