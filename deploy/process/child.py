"""What `deploy.process.fleet` starts: a learner or an actor that never outlives its parent.

Its job comes as one line of JSON on standard input. When that pipe closes, the parent is gone, whatever
ended it. The arguments mean nothing; they tell people which process is which.
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
from deploy.process.status import LOOPBACK, serve
from protocol.config import ClewError, Config

ACTOR_NICENESS = 10  # where cores are few, actors give way to the learner, which all wait for


def main() -> None:
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.path += [folder for folder in job.pop("path", ()) if folder not in sys.path]
    keep_freed_memory()
    logs.configure("text", job["role"], logging.WARNING)
    code = ROLES[job.pop("role")](**job)
    # All is saved and told. What Python does at its own end takes seconds after torch, and more on a busy machine.
    os._exit(code)


def end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin: a thread that waits there would hold its lock at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LEARNER_GRACE_S)
    os._exit(1)


def learn(config: dict[str, Any], run_dir: str, bind: str, device: str, resume: bool, metrics_port: int | None) -> int:
    from learner.learner import Learner, find_device, live

    try:
        settings = Config.model_validate(config)
        one = Learner(settings, Path(run_dir), bind, find_device(device), resume, on_update=tell)
        readiness, targets = (lambda: one.is_ready), (lambda: one.targets)
        with serve(metrics_port, one.metrics.registry, readiness, targets):
            live(one)
    except ClewError as error:
        tell({"error": str(error)})
        return 2
    return 0


def tell(record: dict[str, Any]) -> None:
    """One update, or an error that the user can mend, as a line to the parent."""
    with suppress(BrokenPipeError):
        print(json.dumps(record), flush=True)


def act(connect: str, name: str, metrics_port: int | None, modules: list[str]) -> int:
    from actors.actor import Actor, live

    os.nice(ACTOR_NICENESS)
    try:
        one = Actor(connect, name, modules=modules)
        with serve(metrics_port, one.metrics.registry, lambda: one.is_ready) as server:
            one.metrics_at = f"{LOOPBACK}:{server.port}" if server else ""
            live(one)
    except ClewError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


ROLES: dict[str, Callable[..., int]] = {"learner": learn, "actor": act}

if __name__ == "__main__":
    main()
