"""The learner's device, and how torch computes on it."""

from __future__ import annotations

import os

import torch
from torch.utils import deterministic

from protocol.config import ClewError


def repeat_exactly() -> None:
    """Makes torch give the same result for the same computation in this process, bit for bit, from here on."""
    torch.set_num_threads(1)  # the order of additions, and so the last bit of theta, depends on it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what follows needs it on a GPU
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms says the same, and imports a compiler
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it


def find_device(name: str) -> torch.device:
    """Returns the device that `name` (auto, cpu, cuda) stands for on this machine."""
    if name not in ("auto", "cpu", "cuda"):
        raise ClewError(f"there is no device {name!r}; use auto, cpu or cuda")
    here = torch.cuda.is_available()
    if name == "cuda" and not here:
        raise ClewError("torch finds no CUDA device here; use --device cpu, or auto")
    return torch.device("cuda" if here and name != "cpu" else "cpu")
