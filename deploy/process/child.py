"""A process that `deploy.process.fleet` starts: a learner or an actor that never outlives its parent.

Its job comes as one line of JSON on standard input. When that pipe closes, the parent is gone, whatever ended it. The
arguments mean nothing to the process; they tell people which process is which.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy.process import logs
from deploy.process.fleet import LEARNER_GRACE_S
from deploy.process.heap import keep_freed_memory
from deploy.process.roles import run_actor, run_learner
from deploy.process.status import LOOPBACK
from deploy.process.theirs import fault_of
from learner.record import Record
from protocol.config import ClewError, Config

ACTOR_NICENESS = 10  # where cores are few, actors give way to the learner, which all wait for


def main() -> None:
    """Reads the job, does it, and ends the process."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.path += [folder for folder in job.pop("path", ()) if folder not in sys.path]
    keep_freed_memory()
    logs.configure("text", job["role"], logging.WARNING)
    code = ROLES[job.pop("role")](**job)
    # Everything is saved and told. Python's own end takes seconds after torch, and more on a busy machine.
    os._exit(code)


def end_with_parent() -> None:
    """Waits until the parent is gone; then asks this process to stop, and ends it where that takes too long."""
    while os.read(0, 1):  # not sys.stdin: a thread that waits there would hold its lock at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LEARNER_GRACE_S)
    os._exit(1)


def learn(config: dict[str, Any], run_dir: str, bind: str, device: str, resume: bool, metrics_port: int | None) -> int:
    """Runs the learner and returns the exit code."""
    from learner.device import find_device

    try:
        settings = Config.model_validate(config)
        where = find_device(device)
        run_learner(settings, Path(run_dir), bind, where, resume, on_update=tell, metrics_port=metrics_port)
    except ClewError as error:
        tell(error)
        return 2
    except Exception as error:
        if not (fault := fault_of(error)):
            raise
        tell(ClewError(fault))
        return 2
    return 0


def tell(news: Record | ClewError) -> None:
    """Sends the parent a line of JSON: the record of an update, or an error that the user can mend."""
    line = news.line if isinstance(news, Record) else json.dumps({"error": str(news)}).encode() + b"\n"
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def act(connect: str, name: str, metrics_port: int | None, modules: list[str]) -> int:
    """Runs an actor and returns the exit code."""
    os.nice(ACTOR_NICENESS)
    try:
        run_actor(connect, name, modules=modules, metrics_port=metrics_port, known_host=LOOPBACK)
    except ClewError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


ROLES: dict[str, Callable[..., int]] = {"learner": learn, "actor": act}

if __name__ == "__main__":
    main()
