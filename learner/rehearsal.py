"""A first update that counts for nothing, before anyone can connect.

It loads machine code and modules. Later that could fail, and end the learner: strangers may hold all descriptors then.
"""

# P parameters, N steps of all attempts, W attempts

from __future__ import annotations

import numpy as np
import torch

from learner.admission import admit
from learner.outer import meta_gradient
from learner.stages import Batch
from protocol.config import Config
from protocol.learning.inner import initial_theta
from protocol.learning.trial import lease_trial
from protocol.wire.messages import Attempts, Rollouts

MAZES = 8
SIDE = 15  # the same machine code walks larger ones, and takes long
NOISE = 0.1  # of the theta, so that whatever may be zero at first is not


def rehearse(config: Config, device: torch.device) -> None:
    """Computes everything that a learner computes, its audit included, with a few small mazes of each family."""
    begin_P = initial_theta(config)
    theta_P = begin_P + np.random.default_rng(0).normal(0, NOISE, len(begin_P)).astype(np.float32)
    run = config.run.model_copy(update={"mazes": MAZES, "mazes_per_lease": MAZES, "horizon_per_cell": 1.0})
    inner = config.inner.model_copy(update={"steps": 1})
    for family in config.maze.families:
        side = min(config.maze.sides) if ":" in family else min(*config.maze.sides, SIDE)
        drawn = "perfect" if family == "file" else family
        maze = config.maze.model_copy(update={"family": drawn, "side": side, "min_distance": 1})
        small = config.model_copy(update={"maze": maze, "inner": inner, "run": run})
        mazes, trial = lease_trial(theta_P, (0,), small)
        told = zip(trial.walks, trial.log_probs, strict=True)
        stages = tuple(Attempts(walk.length_W.astype(np.int32), walk.move_N, log_prob_N) for walk, log_prob_N in told)
        replay = admit(Rollouts(0, 0, 0, 0, {}, mazes, stages), small)
        meta_gradient(torch.from_numpy(theta_P).to(device), Batch.of([replay], small, device), small)
