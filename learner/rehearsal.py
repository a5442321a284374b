"""A first update that counts for nothing, before anyone can connect.

It loads machine code and modules. Later that could fail, and end the learner: strangers may hold all descriptors then.
"""

from __future__ import annotations

import numpy as np
import torch

from learner.admission import admit
from learner.lesson import Lesson
from learner.outer import Batch, meta_gradient
from protocol.compiled import compiled
from protocol.compiled.__main__ import use_all
from protocol.config import Config
from protocol.learning.inner import initial_theta
from protocol.learning.trial import lease_trial
from protocol.wire.messages import Attempts, Rollouts

MAZES = 2


def rehearse(config: Config, device: torch.device) -> None:
    """All that the learner computes, its audit included, at a few mazes of each family.

    Where these teach nothing, as an untrained theta may, some of the machine code is used by others alone.
    """
    if compiled("play"):
        use_all()
    theta_P = initial_theta(config)
    run = config.run.model_copy(update={"mazes": MAZES, "mazes_per_lease": MAZES})
    for family in config.maze.families:
        maze = config.maze.model_copy(update={"family": family})
        small = config.model_copy(update={"maze": maze, "run": run})
        mazes, trial = lease_trial(theta_P, (0,), small)
        told = zip(trial.walks, trial.log_probs, strict=True)
        stages = tuple(Attempts(walk.length_W.astype(np.int32), walk.move_N, log_prob_N) for walk, log_prob_N in told)
        lesson = Lesson.of(admit(Rollouts(0, 0, 0, 0, {}, mazes, stages), small), small)
        meta_gradient(torch.from_numpy(theta_P).to(device), Batch.of([lesson], small, device), small)
