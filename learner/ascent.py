"""Theta, and what moves it up the meta-gradient: Adam, arXiv:1412.6980.

Written out, because torch.optim imports a compiler: seconds at the start of every learner, and 70 MB.
"""

# P parameters

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from protocol.config import Config

Floats = npt.NDArray[np.float32]

MEAN_DECAY, SQUARE_DECAY = 0.9, 0.999  # beta_1 and beta_2 in the paper
EPSILON = 1e-8


class Ascent:
    """Theta [P] and Adam's moments on the learner's device."""

    def __init__(
        self, theta: Floats, mean: Floats, square: Floats, steps: int, config: Config, device: torch.device
    ) -> None:
        self.theta, self.mean, self.square = (
            torch.from_numpy(vector_P.copy()).to(device) for vector_P in (theta, mean, square)
        )
        self.steps = steps  # t in the paper
        self._outer, self._updates = config.outer, config.run.updates

    def step(self, gradient_P: Tensor, update: int) -> bool:
        """Moves theta and says True; leaves everything as it is and says False if the gradient is not finite.

        A gradient that is too long is scaled down. The step size falls linearly to 0 over the run.
        """
        norm = gradient_P.norm()
        if not torch.isfinite(norm):
            return False
        gradient_P = gradient_P * (self._outer.max_gradient_norm / norm).clamp(max=1.0)
        self.steps += 1
        self.mean = MEAN_DECAY * self.mean + (1 - MEAN_DECAY) * gradient_P
        self.square = SQUARE_DECAY * self.square + (1 - SQUARE_DECAY) * gradient_P**2
        step_size = self._outer.learning_rate * (1 - update / self._updates) / (1 - MEAN_DECAY**self.steps)
        spread = self.square.sqrt() / math.sqrt(1 - SQUARE_DECAY**self.steps) + EPSILON
        self.theta = self.theta + step_size * self.mean / spread
        return True
