"""`python -m actors`: the same as `clew actor`."""

from __future__ import annotations

import signal
import sys

import torch

from actors.actor import Actor


def run(connect: str, name: str) -> int:
    """An actor's life, until the run is over, SIGINT or SIGTERM; its exit code."""
    torch.set_num_threads(1)  # one actor, one core; and the last bit of theta depends on it
    actor = Actor(connect, name)

    def stop(number: int, frame: object) -> None:
        actor.should_exit = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    actor.run()
    return 0


if __name__ == "__main__":
    from deploy.cli import main

    sys.argv.insert(1, "actor")
    main()
