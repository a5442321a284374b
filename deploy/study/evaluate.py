"""Tries the policy of a run in mazes, attempt after attempt; scores every attempt, and the yardsticks beside it."""

# M mazes (of a portion: one for each robot, its own copy), Z robots in each, Q = M*Z robots in all, S stages, or the
# explorer's attempts too, E attempts at a stage, P parameters, C cells of all mazes, W attempts of a portion

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.study.curves import Curve, Outcome, Point, Reals, each_curve, mean_curve
from deploy.study.exam import Exam
from deploy.study.explorer import explored
from learner import checkpoint
from protocol.config import ClewError, Config
from protocol.learning.trial import Trial, attempt_and_adapt
from protocol.world.cells import EXIT, Floats, Indices, Ints
from protocol.world.maze import Mazes
from protocol.world.senses import offsets
from protocol.world.walk import Walk

ATTEMPTS = 10  # at each maze, unless the run was trained with more
ROBOTS, ROBOT_CELLS = 100, 200_000  # in all, where mazes are few: at most that many, in copies of so many cells
OUTCOMES = 50_000_000  # of a robot at a stage, all together: they are held in memory
MEMORY_CELLS = 2_000_000  # cells times attempts that are held in memory at a time
NETWORKS = 50  # robots at a time where each has a network of its own


@dataclass(frozen=True)
class Run:
    """A run as it stands in its directory."""

    name: str
    update: int  # updates done
    config: Config
    theta_P: Floats


@dataclass(frozen=True)
class Scores:
    """Scores of the policy in some mazes, and of an explorer there."""

    name: str
    mazes: int
    shortest: float  # mean steps on the shortest way
    curve: Curve
    explorer: Point  # its first attempt
    known: Point  # its second, on the best way that it knows by then


@dataclass(frozen=True)
class Evaluation:
    """The findings of `clew evaluate`."""

    exam: Exam
    robots: int  # Z
    stages: tuple[Outcome, ...]  # S
    labels: tuple[str, ...]  # [S] which attempts each holds: "3"; "11 to 15" where a policy makes five
    total: Scores
    kinds: tuple[Scores, ...]  # of each family and side, where there are several
    mazes: tuple[Scores, ...]  # M


def opened(run_dir: Path) -> Run:
    """Opens a run with its newest theta."""
    newest = checkpoint.load(run_dir)
    if newest is None:
        raise ClewError(f"{run_dir} holds no checkpoint to evaluate; make one: clew train --run-dir {run_dir}")
    checkpoint.require_fit(run_dir, newest)
    return Run(newest.run, newest.update, newest.config, newest.theta)


def adapting(config: Config, attempts: int | None, attempts_per_step: int | None) -> Config:
    """Returns the run's config with the wanted numbers of attempts: at each maze, and before each inner step.

    Without --attempts they are ten, or as many as the run was trained with if these are more. The config's own limit of
    inner steps is for training and plays no part.
    """
    each = attempts_per_step or config.inner.attempts
    total = attempts or max(ATTEMPTS, each * (config.inner.steps + 1))
    steps = -(-total // each) - 1
    inner = config.inner.model_copy(update={"steps": steps, "attempts": each})
    outer = config.outer.model_copy(update={"attempts": total - steps * each})
    return config.model_copy(update={"inner": inner, "outer": outer})


def evaluate(theta_P: Floats, config: Config, exam: Exam, robots: int | None, seed: int) -> Evaluation:
    """Computes the adaptation curves over all mazes of `exam`, over those of each kind, and of each maze."""
    robots = robots or enough_robots(exam.mazes)
    if (config.inner.steps + 1) * len(exam.mazes) * robots > OUTCOMES:
        raise ClewError(
            f"{len(exam.mazes)} mazes times {robots} robots times {config.inner.steps + 1} stages are more than "
            f"{OUTCOMES:,} outcomes; lower --count, --robots or --attempts"
        )
    *stages, first, known = _tried(theta_P, config, exam, robots, seed)
    used = [stage * config.inner.attempts for stage in range(len(stages))]
    rng = np.random.default_rng([seed, 4])
    shortest_M = exam.shortest_M.astype(float)

    def scores(name: str, rows: Indices) -> Scores:
        some_M = shortest_M[rows]
        curve = mean_curve([stage[rows] for stage in stages], some_M, used, rng)
        yardsticks = mean_curve([first[rows], known[rows]], some_M, (0, 1), rng)
        return Scores(name, len(rows), float(some_M.mean()), curve, *yardsticks)

    kinds = list(dict.fromkeys(exam.kinds))
    each = zip(
        exam.names,
        exam.shortest_M.tolist(),
        each_curve(stages, shortest_M, used, rng),
        each_curve([first, known], shortest_M, (0, 1), rng),
        strict=True,
    )
    return Evaluation(
        exam=exam,
        robots=robots,
        stages=tuple(stages),
        labels=labels(config),
        total=scores("all", np.arange(len(shortest_M))),
        kinds=tuple(scores(kind, np.flatnonzero(np.array(exam.kinds) == kind)) for kind in kinds if len(kinds) > 1),
        mazes=tuple(Scores(name, 1, steps, curve, *yardsticks) for name, steps, curve, yardsticks in each),
    )


def labels(config: Config) -> tuple[str, ...]:
    """Returns [S] the attempts of every stage, counted from 1."""
    steps, each, last = config.inner.steps, config.inner.attempts, config.outer.attempts
    counts = [each] * steps + [last]
    return tuple(
        f"{stage * each + 1}" + (f" to {stage * each + count}" if count > 1 else "")
        for stage, count in enumerate(counts)
    )


def enough_robots(mazes: Mazes) -> int:
    """Returns how many robots try each maze: more than one where mazes are few, or chance would rule the figures."""
    return max(1, min(ROBOTS // len(mazes), ROBOT_CELLS // mazes.cells))


def _tried(theta_P: Floats, config: Config, exam: Exam, robots: int, seed: int) -> Iterator[Outcome]:
    """Yields how each stage's attempts ended, and then an explorer's first and second ones."""
    walks, count = config.inner.steps + 3, len(exam.mazes) * robots
    success_SQ, steps_SQ = np.empty((walks, count)), np.empty((walks, count))
    for portion in portions(exam, robots, config, seed):
        for at, walk in enumerate((*portion.tried(theta_P, config).walks, *portion.explored())):
            success_SQ[at, portion.rows], steps_SQ[at, portion.rows] = _ends(walk, portion)
    shape = (walks, len(exam.mazes), robots)
    return map(Outcome, success_SQ.reshape(shape), steps_SQ.reshape(shape))


@dataclass(frozen=True)
class Portion:
    """Robots that are tried together."""

    number: int  # from 0
    seed: int
    rows: Indices  # [M] which of the Q robots they are
    mazes: Mazes  # of each robot, its own
    horizon_M: Ints

    def tried(self, theta_P: Floats, config: Config) -> Trial:
        """Lets the robots try their mazes. However often it is called, they do the same."""
        rng = np.random.default_rng([self.seed, 2, self.number])
        return attempt_and_adapt(theta_P, self.mazes, rng, config, self.horizon_M)

    def explored(self) -> Iterator[Walk]:
        """Lets explorers, the yardstick, make two attempts at the same mazes."""
        return explored(self.mazes, self.horizon_M, np.random.default_rng([self.seed, 3, self.number]))


def portions(exam: Exam, robots: int, config: Config, seed: int) -> Iterator[Portion]:
    """Yields all robots, those in small mazes first: as many at a time as the memory holds, in mazes of like sizes."""
    maze_Q = np.repeat(np.arange(len(exam.mazes)), robots)
    rows = np.argsort(exam.mazes.count_M[maze_Q], kind="stable")
    attempts = max(ATTEMPTS, config.inner.steps * config.inner.attempts + config.outer.attempts)
    # Surroundings of a large radius differ from cell to cell, and the network runs on every one that differs.
    wide = max(1, len(offsets(config.policy.radius)) // len(offsets(1)))
    held_Q = exam.mazes.count_M[maze_Q[rows]] * attempts * wide
    number_Q = (np.cumsum(held_Q) - held_Q) // MEMORY_CELLS
    breaks_Q = np.diff(number_Q, prepend=0) > 0
    if config.inner.adapts == "all":
        breaks_Q[NETWORKS::NETWORKS] = True
    for number, some in enumerate(np.split(rows, np.flatnonzero(breaks_Q))):
        copied = maze_Q[some]
        yield Portion(number, seed, some, exam.mazes[copied], exam.horizon_M[copied])


def _ends(walk: Walk, portion: Portion) -> tuple[Reals, Reals]:
    """Returns [M] the share of each robot's attempts that reached an exit, and their mean steps."""
    found_ME = (portion.mazes.cell_C[walk.end_W] == EXIT).reshape(len(portion.mazes), -1)
    steps_ME = np.where(found_ME, walk.length_W.reshape(found_ME.shape), portion.horizon_M[:, None])
    return found_ME.mean(axis=1), steps_ME.mean(axis=1)
