"""The baseline of the meta-objective: the return to go that is expected at a step, and the advantage over it.

The linear baseline of MAML and ProMP (arXiv:1604.06778), which here may know the way: it serves the training alone.
Advantages: GAE, arXiv:1506.02438. All is numpy: nothing depends on theta.
"""

# N steps of all attempts of a stage of a lease, W attempts of it, C cells of all mazes of it, F features of the
# baseline, Q features of the baseline and the return

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.compiled import compiled
from protocol.config import Config
from protocol.learning.credit import Steps
from protocol.world.cells import UNREACHABLE, Floats, Ints

FEATURES = 10  # F
FITTED = 4_096  # steps of a lease's stage that are enough for the fit of so few weights
RIDGE = 1e-3


@dataclass(frozen=True)
class Outcome:
    """The course of the attempts of one stage of a lease."""

    feature_FN: Floats  # [F, N] what the baseline knows of each step
    togo_N: Floats  # [N] discounted return to go
    left_N: Ints  # [N] L - t: steps to the end of the attempt, this one included

    @staticmethod
    def of(steps: Steps, distance_C: Ints, way_C: Ints, config: Config) -> Outcome:
        """Collects what the baseline needs of `steps`.

        Args:
          distance_C: [C] steps to the nearest exit.
          way_C: [C] steps to the nearest exit by the way that the robot knows.
        """
        known_FN, togo_N = features(steps, distance_C, way_C, config), steps.returns_to_go(config.run.discount)
        return Outcome(known_FN, togo_N, steps.left_N)

    def in_double(self) -> Outcome:
        """Returns the same in float64, and so is all that is computed of it."""
        return replace(self, feature_FN=self.feature_FN.astype(np.float64), togo_N=self.togo_N.astype(np.float64))


def features(steps: Steps, distance_C: Ints, way_C: Ints, config: Config) -> Floats:
    """Returns [F, N]: time, the true way to the exit, and the way that the robot knows."""
    gamma = config.run.discount
    far_C, near_C = (np.power(each, distance_C, dtype=np.float32) for each in (gamma, gamma**10))
    way_C = np.where(way_C == UNREACHABLE, 0, np.power(gamma, np.minimum(way_C, 10_000), dtype=np.float32))
    at_N = steps.walk.at_N
    if machine := compiled("credit"):
        known_FN = np.empty((FEATURES, len(at_N)), np.float32)
        times = steps.time_N, steps.horizon_W, steps.attempt_N
        machine.fill_features(known_FN, at_N, *times, distance_C, far_C, near_C, way_C)
        return known_FN
    far_N, near_N, way_N = far_C[at_N], near_C[at_N], way_C[at_N]
    horizon_N = steps.horizon_W[steps.attempt_N]
    time_N = steps.time_N / horizon_N
    in_reach_N = distance_C[at_N] < horizon_N - steps.time_N
    rows = (np.ones_like(time_N), time_N, time_N * time_N, far_N, near_N, far_N * time_N, in_reach_N)
    known = (way_N, way_N > 0, way_N * far_N)
    return np.stack([row.astype(np.float32) for row in (*rows, *known)])


def normal_equations(outcome: Outcome) -> npt.NDArray[Any]:
    """Returns [F, Q] float64: what `weights` solves, its right-hand side last. Those of several leases add up.

    Of a long lease every second, third … step counts: the fit is not worth more.
    """
    some = slice(None, None, -(-len(outcome.togo_N) // FITTED))
    known_FN = outcome.feature_FN[:, some].astype(np.float64)  # in single precision, they would not add up
    togo_N = outcome.togo_N[some].astype(np.float64)
    return np.column_stack((known_FN @ known_FN.T, known_FN @ togo_N))


def weights(fit_FQ: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns [F] float64: the weights of the ridge regression of returns to go."""
    solution: npt.NDArray[Any] = np.linalg.solve(fit_FQ[:, :-1] + RIDGE * np.eye(FEATURES), fit_FQ[:, -1])
    return solution


def values(outcome: Outcome, weight_F: npt.NDArray[Any]) -> Floats:
    """Returns [N]: the return to go that is expected at each step."""
    expected_N: Floats = weight_F.astype(outcome.feature_FN.dtype) @ outcome.feature_FN
    return expected_N


def advantages(outcome: Outcome, value_N: Floats, config: Config) -> Floats:
    """Returns [N]: every step's generalised advantage over its expected return, sum_l (gamma lambda)^l delta_{t+l}.

    delta_t = r_t + gamma V(s_{t+1}, t+1) - V(s_t, t). The factor gamma^t of the exact gradient is left out, as usual.
    """
    left_N, real = outcome.left_N, value_N.dtype.type
    ends_N = left_N == 1
    delta_N = real(config.run.discount) * np.roll(value_N, -1)
    delta_N[ends_N] = outcome.togo_N[ends_N]  # at an attempt's last step that is its reward
    delta_N -= value_N
    decay = real(config.run.discount * config.outer.gae_lambda)
    if machine := compiled("credit"):
        machine.add_later(delta_N, ends_N, decay)
        return delta_N
    order_N = np.argsort(left_N, kind="stable")
    for rows in np.split(order_N, np.cumsum(np.bincount(left_N)[1:-1]))[1:]:  # all that are as far from their end
        delta_N[rows] += decay * delta_N[rows + 1]
    return delta_N
