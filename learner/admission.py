"""What an answer must be before it counts: of the right shape, finite, and walked by the rules of its mazes.

The learner walks every attempt again, with the moves that the actor sent and the same `walk`. What comes of it is all
that the meta-gradient needs; so an actor cannot lie about what its robots saw.
"""

# M mazes, E attempts, W = M*E of them, K inner steps, N steps of all attempts, U distinct observations, A moves

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocol.config import MAX_SIDE, Config
from protocol.learning.credit import horizons
from protocol.wire.messages import Attempts, Rollouts
from protocol.world.maze import FREE, MOVES, TRAP, UNREACHABLE, Floats, Indices, Ints, Mazes, shortest_M
from protocol.world.senses import Bytes, Observations, Sight, open_moves
from protocol.world.walk import Here, Known, Walk, learned, walk


class AdmissionError(Exception):
    """Why rollouts cannot count, in a word."""


@dataclass(frozen=True)
class Replay:
    """The attempts of one lease, walked again."""

    mazes: Mazes
    feature_UF: Bytes  # [U, F] the distinct observations
    maze_U: Indices | None  # [U] the maze of each, where each maze has a network of its own
    walks: tuple[Walk, ...]  # K + 1: before each inner step, and after the last
    knowns: tuple[Known, ...]  # K + 1: what the robots knew before each
    behaviours: tuple[Floats, ...]  # K + 1: [N] the log-probability that each move was drawn with, as the actor says


def admit(rollouts: Rollouts, config: Config) -> Replay:
    """What happened in an answer, where it can count; AdmissionError where it cannot."""
    each = [config.inner.attempts] * config.inner.steps + [config.outer.attempts]
    mazes, count = rollouts.mazes, config.run.mazes_per_lease
    if len(mazes) != count or [len(stage.length) for stage in rollouts.stages] != [count * some for some in each]:
        raise AdmissionError("shape")
    if not (_has_size(mazes, config) and _is_usable(mazes, config)):
        raise AdmissionError("maze")
    for stage in rollouts.stages:
        if int(stage.length.sum(dtype=np.int64)) != len(stage.move) or len(stage.move) != len(stage.log_prob):
            raise AdmissionError("shape")
        if not np.isfinite(stage.log_prob).all():
            raise AdmissionError("not_finite")
    return _replay(rollouts, each, config)


def _replay(rollouts: Rollouts, each: list[int], config: Config) -> Replay:
    """Every stage of an answer, walked again."""
    mazes, horizon_M = rollouts.mazes, horizons(rollouts.mazes, config)
    sight = Sight.of(mazes, config.policy)
    met = Observations(sight, by_maze=config.inner.adapts == "all")
    walks: list[Walk] = []
    knowns = [Known.nothing(mazes.cells)]
    for attempts, stage in zip(each, rollouts.stages, strict=True):
        again = walk(sight, met, knowns[-1], attempts, horizon_M, _Record(stage).choose)
        if (again.length_W != stage.length).any():
            raise AdmissionError("steps")
        walks.append(again)
        if len(walks) < len(each):
            knowns.append(learned(sight, knowns[-1], again))
    feature_UF = met.features()
    open_UA = open_moves(feature_UF, config.policy)
    if not all(open_UA[again.row_N, again.move_N].all() for again in walks):
        raise AdmissionError("steps")
    behaviours = tuple(stage.log_prob for stage in rollouts.stages)
    return Replay(mazes, feature_UF, met.mazes(), tuple(walks), tuple(knowns), behaviours)


class _Record:
    """The moves that an actor sent, for `walk` to make again."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts, self._length_W = attempts, attempts.length.astype(np.int64)
        self._first_W = np.cumsum(self._length_W) - self._length_W

    def choose(self, here: Here) -> Bytes:
        """[W] the move of each."""
        if (self._length_W[here.walker_W] <= here.time).any():
            raise AdmissionError("steps")
        row_W = self._first_W[here.walker_W] + here.time
        move_W: Bytes = self._attempts.move[row_W]
        if move_W.max() >= len(MOVES):
            raise AdmissionError("steps")
        return move_W


def _has_size(mazes: Mazes, config: Config) -> bool:
    """Whether the mazes are as large as those that a lease draws, and all of their cells are there."""
    shape_M2 = mazes.shape_M2
    if shape_M2.shape != (len(mazes), 2) or shape_M2.min() < 1 or shape_M2.max() > MAX_SIDE:
        return False
    if "file" not in config.maze.families:
        side = int(shape_M2[0, 0])
        if side not in config.maze.sides or (shape_M2 != side).any():
            return False
    return int(mazes.count_M.sum()) == mazes.cells


def _is_usable(mazes: Mazes, config: Config) -> bool:
    """Whether each maze has a free start and a way to an exit that is no longer than the horizon."""
    start_M = mazes.start_M
    if mazes.cell_C.max() > TRAP:
        return False
    if start_M.min() < 0 or (start_M >= mazes.count_M).any() or (mazes.cell_C[mazes.first_M] != FREE).any():
        return False
    steps_M: Ints = shortest_M(mazes)
    return bool(((steps_M != UNREACHABLE) & (steps_M <= horizons(mazes, config))).all())
