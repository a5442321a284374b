"""The learner's mathematics on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from actors.actor import work_on
from learner.admission import admit
from learner.device import find_device
from learner.outer import Gradient, meta_gradient
from learner.stages import Batch
from protocol.config import Config
from protocol.learning.inner import initial_theta
from protocol.wire.messages import Lease

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "cells": {"inner": {"attempts": 4, "steps": 2}, "outer": {"attempts": 4}},
    "all": {"inner": {"attempts": 4, "steps": 2, "adapts": "all"}, "outer": {"attempts": 4}},
    "recurrent": {"inner": {"steps": 2}, "policy": {"kind": "recurrent", "dreams": False}},
}


def gradient_on(device: torch.device, settings: str) -> Gradient:
    maze, run = {"family": ["perfect", "blocks"], "side": [7, 9]}, {"mazes": 8, "mazes_per_lease": 8}
    config = Config.model_validate({"maze": maze, "run": run} | SETTINGS[settings])
    theta_P = initial_theta(config)
    rollouts = work_on(Lease(0, 0, 0, 0, (0, 0, 0), 1.0), theta_P, config)
    batch = Batch.of([admit(rollouts, config)], config, device)
    return meta_gradient(torch.from_numpy(theta_P).to(device), batch, config)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_meta_gradient_on_a_gpu_is_that_on_the_cpu_and_repeats_bit_for_bit(settings: str) -> None:
    assert find_device("auto").type == "cuda"
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        here, first, again = (gradient_on(torch.device(name), settings) for name in ("cpu", "cuda", "cuda"))
    finally:
        torch.use_deterministic_algorithms(False)
    assert first.vector.is_cuda
    assert torch.equal(first.vector, again.vector)
    torch.testing.assert_close(first.vector.cpu(), here.vector, rtol=1e-3, atol=1e-4)


def test_auto_takes_the_cpu_where_there_is_no_gpu() -> None:
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu").type == "cpu"
