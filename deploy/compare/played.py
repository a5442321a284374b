"""The attempts of a rival, and the figures that are made of them."""

# M mazes, E attempts at each maze, D resamples, G groups of mazes, C cells of all mazes, W attempts

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from deploy.study.curves import LEVEL, RESAMPLES, Estimate, Outcome, Reals, mean_curve, ratios_of_sums
from deploy.study.exam import Exam
from protocol.world.cells import EXIT, Bools, Ints
from protocol.world.maze import Mazes
from protocol.world.walk import Walk

TARGET = 1.05  # steps ÷ shortest way, at which a maze counts as learned
SHOWN = 10  # attempts that every rival makes
MARKS_PER_DECADE = 24  # points of a curve over thousands of attempts


@dataclass(frozen=True)
class Played:
    """The ends of all attempts of one robot in each maze."""

    found_EM: Bools  # [E, M] whether the attempt reached an exit
    steps_EM: Ints  # [E, M] its steps; the horizon where it failed

    @staticmethod
    def of(walks: Iterable[Walk], mazes: Mazes, horizon_M: Ints) -> Played:
        """Collects attempts: each walk holds one or more at each maze, one walk after another."""
        found, steps = [], []
        for walk in walks:
            found_EM = (mazes.cell_C[walk.end_W] == EXIT).reshape(len(mazes), -1).T
            found.append(found_EM)
            steps.append(np.where(found_EM, walk.length_W.reshape(len(mazes), -1).T, horizon_M))
        return Played(np.concatenate(found), np.concatenate(steps).astype(np.int32))


@dataclass(frozen=True)
class Point:
    """The worth of one attempt, over some mazes."""

    attempt: int  # from 1
    success: Estimate  # share that reached an exit
    ratio: Estimate  # steps ÷ shortest way, sum over sum


@dataclass(frozen=True)
class Group:
    """The figures of a rival in some mazes: all, or those of one family and side."""

    name: str
    mazes: int
    points: tuple[Point, ...]  # at the first ten attempts, and at some of those that follow
    attempts: int  # made at each maze
    exits: Estimate  # attempts, of the first ten, that reached an exit; the mean over mazes
    reached: Estimate | None  # the first attempt with a ratio of TARGET or less; None: not in these attempts

    def at(self, attempt: int) -> Point | None:
        """Returns the point of an attempt, where there is one."""
        return next((point for point in self.points if point.attempt == attempt), None)

    @classmethod
    def read(cls, tree: Mapping[str, Any]) -> Self:
        """Makes a group of the JSON that `dataclasses.asdict` has made of one."""
        points = tuple(
            Point(point["attempt"], _read(point["success"]), _read(point["ratio"])) for point in tree["points"]
        )
        reached = _read(tree["reached"]) if tree["reached"] else None
        return cls(tree["name"], tree["mazes"], points, tree["attempts"], _read(tree["exits"]), reached)


def _read(tree: Mapping[str, Any]) -> Estimate:
    interval = tree["interval"]
    return Estimate(tree["value"], tuple(interval) if interval else None)


def groups(played: Played, exam: Exam, seed: int) -> tuple[Group, ...]:
    """Computes the figures over all mazes, then over those of each kind where there are several."""
    kinds = list(dict.fromkeys(exam.kinds))
    kind_M = np.array(exam.kinds)
    rows = {"all": np.ones(len(kind_M), np.bool_)} | {kind: kind_M == kind for kind in kinds if len(kinds) > 1}
    return tuple(_group(name, played, exam, row_M, seed) for name, row_M in rows.items())


def _group(name: str, played: Played, exam: Exam, row_M: Bools, seed: int) -> Group:
    """Computes the figures over the mazes `row_M` [M]."""
    found_EM, steps_EM, shortest_M = played.found_EM[:, row_M], played.steps_EM[:, row_M], exam.shortest_M[row_M]
    shown = marked(len(steps_EM))
    stages = [Outcome(found_EM[at - 1, :, None].astype(float), steps_EM[at - 1, :, None].astype(float)) for at in shown]
    curve = mean_curve(stages, shortest_M.astype(float), shown, np.random.default_rng([seed, 5]))
    points = tuple(Point(point.attempts, point.success, point.ratio) for point in curve)
    reached = first_reaching(steps_EM, shortest_M.astype(float), np.random.default_rng([seed, 6]))
    exits_GM = found_EM[:SHOWN].sum(axis=0, dtype=float)[None]
    (exits,) = ratios_of_sums(exits_GM, np.ones_like(exits_GM), np.random.default_rng([seed, 8]))
    return Group(name, int(row_M.sum()), points, len(steps_EM), exits, reached)


def marked(attempts: int) -> Sequence[int]:
    """Chooses the attempts that a curve shows: the first ten, then some of every decade, and the last."""
    decades = np.log10(max(attempts, 1) / SHOWN)
    later = SHOWN * 10 ** (np.arange(0, max(decades, 0), 1 / MARKS_PER_DECADE))
    shown = {*range(1, min(SHOWN, attempts) + 1), *np.round(later).astype(int).tolist(), attempts}
    return sorted(at for at in shown if at <= attempts)


def first_reaching(steps_EM: Ints, shortest_M: Reals, rng: np.random.Generator) -> Estimate | None:
    """Finds the first attempt with a ratio of TARGET or less, and its interval over resamples of the mazes.

    A resample that never comes so far counts as one attempt more than were made.
    """
    mazes, never = len(shortest_M), len(steps_EM) + 1
    wanted = TARGET * shortest_M
    value = _first(steps_EM.sum(axis=1) <= wanted.sum())
    if value is None:
        return None
    if mazes == 1:
        return Estimate(float(value), None)
    drawn_DM = rng.multinomial(mazes, np.full(mazes, 1 / mazes), size=RESAMPLES).astype(np.float32)
    below_ED = steps_EM.astype(np.float32) @ drawn_DM.T <= drawn_DM.astype(float) @ wanted
    first_D = [_first(below_E) or never for below_E in below_ED.T]
    low, high = np.percentile(first_D, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return Estimate(float(value), (float(low), float(high)))


def _first(is_below: Bools) -> int | None:
    """Returns the place, from 1, of the first True."""
    return int(is_below.argmax()) + 1 if is_below.any() else None
