"""Theta, and the optimiser that moves it up the meta-gradient: Adam, arXiv:1412.6980."""

# P parameters

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from protocol.config import Config

Floats = npt.NDArray[np.float32]


class Ascent:
    """Theta [P] on the learner's device. The step size falls linearly to 0 over the run."""

    def __init__(self, theta_P: Floats, config: Config, device: torch.device) -> None:
        self._config = config
        self._parameter = torch.from_numpy(theta_P.copy()).to(device).requires_grad_()
        self._adam = torch.optim.Adam([self._parameter], maximize=True, foreach=False)

    def restore(self, mean_P: Floats, square_P: Floats, steps: int) -> None:
        """Takes up Adam where a checkpoint left it."""
        if steps:
            self._adam.state[self._parameter] = {
                "step": torch.tensor(float(steps)),
                "exp_avg": torch.from_numpy(mean_P.copy()).to(self._parameter),
                "exp_avg_sq": torch.from_numpy(square_P.copy()).to(self._parameter),
            }

    @property
    def theta(self) -> Tensor:
        """[P]"""
        return self._parameter.detach()

    def moments(self) -> tuple[Floats, Floats, int]:
        """What `restore` takes."""
        state = self._adam.state[self._parameter]
        if not state:
            nothing = np.zeros(len(self._parameter), np.float32)
            return nothing, nothing, 0
        return state["exp_avg"].cpu().numpy(), state["exp_avg_sq"].cpu().numpy(), int(state["step"])

    def step(self, gradient_P: Tensor, update: int) -> bool:
        """Moves theta; or leaves all as it is, and says so, where the gradient is not finite."""
        norm = gradient_P.norm()
        if not torch.isfinite(norm):
            return False
        longest = self._config.outer.max_gradient_norm
        self._parameter.grad = gradient_P * (longest / norm).clamp(max=1.0)
        left = 1 - update / self._config.run.updates
        self._adam.param_groups[0]["lr"] = self._config.outer.learning_rate * left
        self._adam.step()
        return True
