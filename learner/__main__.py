"""`python -m learner`: the same as `clew learner`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from learner.journal import Record
from learner.learner import Learner
from protocol.config import ClewError, Config


def run(
    config: Config,
    run_dir: Path,
    bind: str,
    device: str,
    resume: bool,
    on_update: Callable[[Record], None] | None = None,
) -> int:
    """A learner's life, until its updates are done, SIGINT or SIGTERM; its exit code."""
    torch.set_num_threads(1)  # the order of additions, and so the last bit of theta, depends on it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what follows needs it on a GPU
    torch.use_deterministic_algorithms(True, warn_only=True)
    learner = Learner(config, run_dir, bind, find_device(device), resume, on_update)

    def stop(number: int, frame: object) -> None:
        learner.should_exit = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    learner.run()
    return 0


def find_device(name: str) -> torch.device:
    """The device that `name` (auto, cpu, cuda) stands for on this machine."""
    if name not in ("auto", "cpu", "cuda"):
        raise ClewError(f"there is no device {name!r}; use auto, cpu or cuda")
    here = torch.cuda.is_available()
    if name == "cuda" and not here:
        raise ClewError("torch finds no CUDA device here; use --device cpu, or auto")
    return torch.device("cuda" if here and name != "cpu" else "cpu")


if __name__ == "__main__":
    from deploy.cli import main

    sys.argv.insert(1, "learner")
    main()
