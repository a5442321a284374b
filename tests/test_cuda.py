"""The learner's mathematics on a GPU."""

from __future__ import annotations

import pytest
import torch

from actors.rollout import collect
from learner.learner import find_device
from learner.outer import Batch, Gradient, meta_gradient
from protocol.config import Config
from protocol.learning.inner import initial_theta
from protocol.world.states import StateTable

CONFIG = Config.model_validate(
    {
        "inner": {"attempts": 4, "steps": 2},
        "outer": {"attempts": 4},
        "run": {"mazes": 8, "mazes_per_lease": 8},
    }
)


def gradient_on(device: torch.device) -> Gradient:
    theta_P = initial_theta(CONFIG)
    mazes, stages, _ = collect(theta_P, (0, 0, 0), CONFIG)
    batch = Batch.of(StateTable.of(mazes, CONFIG.policy.radius), stages, CONFIG, device)
    return meta_gradient(torch.from_numpy(theta_P).to(device), batch, CONFIG)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_the_meta_gradient_on_a_gpu_is_that_on_the_cpu_and_repeats_bit_for_bit() -> None:
    assert find_device("auto").type == "cuda"
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        here, first, again = (gradient_on(torch.device(name)) for name in ("cpu", "cuda", "cuda"))
    finally:
        torch.use_deterministic_algorithms(False)
    assert first.vector.is_cuda
    assert torch.equal(first.vector, again.vector)
    torch.testing.assert_close(first.vector.cpu(), here.vector, rtol=1e-3, atol=1e-4)


def test_auto_takes_the_cpu_where_there_is_no_gpu() -> None:
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu").type == "cpu"
