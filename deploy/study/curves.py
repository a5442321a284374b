"""Computes adaptation curves: how well mazes are walked at the first attempt and at every later one.

Every figure is a ratio of sums, over mazes, or, of a single maze, over the robots that tried it. Its 95 % confidence
interval is the percentile bootstrap's (Efron, 1979), which resamples these.
"""

# M mazes, Z robots in each, S stages of adaptation, G groups, N members of a group, D resamples

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 0.95
GROUPS_AT_ONCE, DRAWN_AT_ONCE = 10_000, 1_000_000  # groups, and members of all resamples; they bound the memory


@dataclass(frozen=True)
class Outcome:
    """The ends of the attempts of one stage: those that every robot made under one policy."""

    success_MZ: Reals  # [M, Z] share of the robot's attempts that reached an exit
    steps_MZ: Reals  # [M, Z] mean steps of them, where a failure counts as the horizon

    def __getitem__(self, mazes: npt.NDArray[np.intp]) -> Outcome:
        """The outcome in some of the mazes."""
        return Outcome(self.success_MZ[mazes], self.steps_MZ[mazes])


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % confidence interval."""

    value: float
    interval: tuple[float, float] | None  # None for a single maze that a single robot tried


@dataclass(frozen=True)
class Point:
    """The worth of attempts after a number of earlier ones."""

    attempts: int  # at the same maze before these
    success: Estimate  # share that reached an exit
    steps: Estimate  # mean steps of an attempt; the horizon where it failed
    ratio: Estimate  # steps ÷ shortest; over several mazes, sum over sum


Curve = tuple[Point, ...]


def mean_curve(outcomes: Sequence[Outcome], shortest_M: Reals, used: Sequence[int], rng: np.random.Generator) -> Curve:
    """Returns a point for each outcome, over all mazes; each maze counts once, with the mean over its robots.

    Args:
      used: attempts before each of `outcomes`.
    """
    top_GMZ, bottom_GMZ = _sums(outcomes, shortest_M)
    several = len(shortest_M) > 1
    top_GN, bottom_GN = (sums.mean(axis=2) if several else sums[:, 0] for sums in (top_GMZ, bottom_GMZ))
    return _curve(ratios_of_sums(top_GN, bottom_GN, rng), used)


def each_curve(
    outcomes: Sequence[Outcome], shortest_M: Reals, used: Sequence[int], rng: np.random.Generator
) -> list[Curve]:
    """Returns the curve of every maze alone, over its robots."""
    top_GMZ, bottom_GMZ = _sums(outcomes, shortest_M)
    groups, mazes, robots = top_GMZ.shape
    top_GN, bottom_GN = (sums.swapaxes(0, 1).reshape(mazes * groups, robots) for sums in (top_GMZ, bottom_GMZ))
    estimates = ratios_of_sums(top_GN, bottom_GN, rng)
    return [_curve(estimates[first : first + groups], used) for first in range(0, len(estimates), groups)]


def _sums(outcomes: Sequence[Outcome], shortest_M: Reals) -> tuple[Reals, Reals]:
    """Returns [3S, M, Z] the terms of numerator and denominator, for success, steps and ratio of each stage."""
    one_MZ = np.ones_like(outcomes[0].steps_MZ)
    top = [figure for stage in outcomes for figure in (stage.success_MZ, stage.steps_MZ, stage.steps_MZ)]
    bottom = [one_MZ, one_MZ, one_MZ * shortest_M[:, None]] * len(outcomes)
    return np.stack(top), np.stack(bottom)


def _curve(estimates: Sequence[Estimate], used: Sequence[int]) -> Curve:
    """Makes a point of every three estimates."""
    triples = zip(estimates[::3], estimates[1::3], estimates[2::3], strict=True)
    return tuple(Point(attempts, *triple) for attempts, triple in zip(used, triples, strict=True))


def ratios_of_sums(top_GN: Reals, bottom_GN: Reals, rng: np.random.Generator) -> list[Estimate]:
    """Returns [G] sum(top) / sum(bottom) of each group, and its middle 95 % over resamples of the N members."""
    value_G, members = top_GN.sum(axis=1) / bottom_GN.sum(axis=1), top_GN.shape[1]
    if members == 1:
        return [Estimate(float(value), None) for value in value_G]
    low_G, high_G = np.empty_like(value_G), np.empty_like(value_G)
    for first in range(0, len(value_G), GROUPS_AT_ONCE):
        some = slice(first, first + GROUPS_AT_ONCE)
        tails = (50 * (1 - LEVEL), 50 * (1 + LEVEL))
        low_G[some], high_G[some] = np.percentile(_resampled(top_GN[some], bottom_GN[some], rng), tails, axis=1)
    rows = zip(value_G.tolist(), low_G.tolist(), high_G.tolist(), strict=True)
    return [Estimate(value, (low, high)) for value, low, high in rows]


def _resampled(top_GN: Reals, bottom_GN: Reals, rng: np.random.Generator) -> Reals:
    """Returns [G, D] sum(top) / sum(bottom) over each of D draws of N members, with replacement."""
    members, parts = top_GN.shape[1], []
    size = max(1, DRAWN_AT_ONCE // members)
    for first in range(0, RESAMPLES, size):
        drawn_DN = rng.multinomial(members, np.full(members, 1 / members), size=min(size, RESAMPLES - first))
        drawn_ND = drawn_DN.T.astype(float)
        parts.append((top_GN @ drawn_ND) / (bottom_GN @ drawn_ND))
    return np.concatenate(parts, axis=1)
