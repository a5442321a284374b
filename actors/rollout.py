"""The work on a lease, and how long each part of it takes."""

# W attempts at all mazes, N steps of all attempts, P parameters

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from protocol.config import Config
from protocol.learning.trial import lease_trial
from protocol.wire.messages import Attempts
from protocol.world.cells import Floats
from protocol.world.maze import Mazes


def collect(
    theta_P: Floats, seed: Sequence[int], config: Config
) -> tuple[Mazes, tuple[Attempts, ...], dict[str, float]]:
    """Returns the mazes that `seed` stands for, the attempts at them, and the seconds that each kind of work took."""
    watch = Stopwatch()
    mazes, trial = lease_trial(theta_P, seed, config, watch.lap)
    told = zip(trial.walks, trial.log_probs, strict=True)
    stages = tuple(Attempts(one.length_W.astype(np.int32), one.move_N, log_prob_N) for one, log_prob_N in told)
    return mazes, stages, watch.seconds


class Stopwatch:
    """Adds up how long each kind of work takes."""

    def __init__(self) -> None:
        """Starts the first lap."""
        self.seconds: dict[str, float] = {}  # spent on each kind of work
        self._since = time.perf_counter()

    def lap(self, work: str) -> None:
        """Ends a lap: all since the last one was work of this kind."""
        now = time.perf_counter()
        self.seconds[work] = self.seconds.get(work, 0.0) + now - self._since
        self._since = now
