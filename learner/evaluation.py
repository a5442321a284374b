"""Adaptation curves: how well mazes are walked before adaptation and after every inner step.

Every figure is a ratio of sums, over the attempts at one maze or over all mazes. Its 95 % confidence interval
is the percentile bootstrap's (Efron, 1979): it resamples the attempts of one maze, and the mazes of all.
"""

# M mazes, E attempts, G groups, N members of a group, R resamples

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.wire.messages import Attempts
from protocol.world.maze import MOVES
from protocol.world.states import StateTable

Reals = npt.NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """What a policy is worth after some inner steps."""

    step: int  # inner steps taken, from 0
    attempts: int  # attempts at the maze used for them in all
    success: Estimate  # share of attempts that found the exit
    steps: Estimate  # mean steps of an attempt; the horizon where it failed
    ratio: Estimate  # steps over the shortest path; of all mazes, sum over sum

    def figures(self) -> dict[str, float]:
        """The point without its intervals."""
        return {
            "step": self.step,
            "attempts": self.attempts,
            "success": self.success.value,
            "steps": self.steps.value,
            "ratio": self.ratio.value,
        }


Curve = tuple[Point, ...]  # one point per stage


@dataclass(frozen=True)
class Evaluation:
    """The adaptation curves of M mazes."""

    names: tuple[str, ...]  # of each maze
    shortest: tuple[int, ...]  # steps on its shortest path
    curves: tuple[Curve, ...]  # of each maze
    mean: Curve  # over all of them

    def figures(self) -> dict[str, Any]:
        """What `clew evaluate --json` prints."""
        mazes = [
            {"name": name, "shortest": shortest, "curve": [point.figures() for point in curve]}
            for name, shortest, curve in zip(self.names, self.shortest, self.curves, strict=True)
        ]
        return {"mazes": mazes, "mean": [point.figures() for point in self.mean]}


@dataclass(frozen=True)
class Outcome:
    """How the attempts of one stage ended."""

    success_ME: Reals  # [M, E] 1 where the exit was reached, else 0
    steps_ME: Reals  # [M, E] steps taken; the horizon where it was not reached
    shortest_M: Reals  # [M] steps on the shortest path

    @staticmethod
    def of(attempts: Attempts, table: StateTable) -> Outcome:
        """Read off the last move of every attempt: did it lead to the exit?"""
        mazes, each = attempts.length.shape
        last_ME = attempts.visits[np.cumsum(attempts.length, dtype=np.int64) - 1].reshape(mazes, each)
        state_ME, move_ME = np.divmod(last_ME.astype(np.int64), len(MOVES))
        success_ME = table.next_MSA[np.arange(mazes)[:, None], state_ME, move_ME] == table.exit_state
        steps_ME, shortest_M = attempts.length.astype(float), table.shortest_M.astype(float)
        return Outcome(success_ME.astype(float), steps_ME, shortest_M)

    @staticmethod
    def concatenate(parts: Sequence[Outcome]) -> Outcome:
        """One stage of all mazes of `parts`, in order."""
        return Outcome(
            np.concatenate([part.success_ME for part in parts]),
            np.concatenate([part.steps_ME for part in parts]),
            np.concatenate([part.shortest_M for part in parts]),
        )


def evaluation(
    names: Sequence[str], stages: Sequence[Outcome], attempts_per_step: int, rng: np.random.Generator
) -> Evaluation:
    """The curves of mazes whose attempts after 0, 1, … inner steps ended as `stages` say."""
    used = [(step, step * attempts_per_step) for step in range(len(stages))]
    points = [_each(outcome, *at, rng) for outcome, at in zip(stages, used, strict=True)]
    return Evaluation(
        names=tuple(names),
        shortest=tuple(int(shortest) for shortest in stages[0].shortest_M),
        curves=tuple(zip(*points, strict=True)),
        mean=tuple(_all(outcome, *at, rng) for outcome, at in zip(stages, used, strict=True)),
    )


def _each(outcome: Outcome, step: int, attempts: int, rng: np.random.Generator) -> list[Point]:
    """A point for every maze, over its attempts."""
    one_ME = np.ones_like(outcome.steps_ME)
    columns = (
        ratio_of_sums(outcome.success_ME, one_ME, rng),
        ratio_of_sums(outcome.steps_ME, one_ME, rng),
        ratio_of_sums(outcome.steps_ME, one_ME * outcome.shortest_M[:, None], rng),
    )
    return [Point(step, attempts, *row) for row in zip(*columns, strict=True)]


def _all(outcome: Outcome, step: int, attempts: int, rng: np.random.Generator) -> Point:
    """The point over all mazes: each counts once, with the mean over its attempts."""
    success_1M, steps_1M = outcome.success_ME.mean(1)[None], outcome.steps_ME.mean(1)[None]
    one_1M = np.ones_like(steps_1M)
    (success,) = ratio_of_sums(success_1M, one_1M, rng)
    (steps,) = ratio_of_sums(steps_1M, one_1M, rng)
    (ratio,) = ratio_of_sums(steps_1M, outcome.shortest_M[None], rng)
    return Point(step, attempts, success, steps, ratio)


def ratio_of_sums(top_GN: Reals, bottom_GN: Reals, rng: np.random.Generator) -> list[Estimate]:
    """[G] sum(top) / sum(bottom) of each group, and the middle 95 % of it over resamples of its members."""
    members = top_GN.shape[1]
    drawn_NR = rng.multinomial(members, np.full(members, 1 / members), size=RESAMPLES).T.astype(float)
    value_G = top_GN.sum(1) / bottom_GN.sum(1)
    tail = 100 * (1 - LEVEL) / 2
    low_G, high_G = np.percentile((top_GN @ drawn_NR) / (bottom_GN @ drawn_NR), (tail, 100 - tail), axis=1)
    rows = zip(value_G, low_G, high_G, strict=True)
    return [Estimate(float(value), float(low), float(high)) for value, low, high in rows]
