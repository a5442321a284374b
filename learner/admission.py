"""Admission: an answer counts if it has the right shape, is finite, and was walked by the rules of its mazes.

The learner walks every attempt again, with the moves that the actor sent and the same `walk`. What comes of it is all
that the meta-gradient needs; so an actor cannot lie about what its robots saw.
"""

# M mazes, E attempts at each, W = M*E attempts, K inner steps, N steps of all attempts, U distinct observations,
# A moves, C cells of all mazes, B cells seen around one, L looks, F features of an observation

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from protocol.config import MAX_SIDE, Config
from protocol.learning.credit import horizons
from protocol.learning.play import UnwalkableError, replay
from protocol.wire.messages import Attempts, Rollouts
from protocol.world.cells import FREE, TRAP, UNREACHABLE, Floats, Indices, Ints
from protocol.world.maze import Mazes, held_out, shortest_M
from protocol.world.memory import Known
from protocol.world.senses import Bytes, Observations, Sight, open_moves
from protocol.world.walk import Walk, learned


class AdmissionError(Exception):
    """Rollouts cannot count; the text is the reason, in a word."""


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
    """Returns what happened in a lease's rollouts if they can count; raises AdmissionError if they cannot."""
    (replay,) = _replays([rollouts], config)
    return replay


def admit_all(answers: Sequence[Rollouts], config: Config) -> list[Replay | AdmissionError]:
    """Returns, for each lease's rollouts, what happened in them if they can count, or the reason why they cannot.

    All are walked again at once, since that takes little longer than one; where it fails, each half is on its own. What
    a lease's replay holds does not depend on the others.
    """
    try:
        return list(_replays(answers, config)) if answers else []
    except AdmissionError as refused:
        if len(answers) == 1:
            return [refused]
        half = len(answers) // 2
        return [*admit_all(answers[:half], config), *admit_all(answers[half:], config)]


def _replays(answers: Sequence[Rollouts], config: Config) -> Iterator[Replay]:
    """Returns the replays of answers all of which can count; raises AdmissionError if any cannot."""
    each = [config.inner.attempts] * config.inner.steps + [config.outer.attempts]
    for rollouts in answers:
        _check_shape(rollouts, each, config)
    mazes = Mazes.concatenate([rollouts.mazes for rollouts in answers])
    if not _is_usable(mazes, config):
        raise AdmissionError("maze")
    whole = _replay(mazes, [*map(_joined, zip(*(rollouts.stages for rollouts in answers), strict=True))], config)
    return _shares(whole, config.run.mazes_per_lease)


def _check_shape(rollouts: Rollouts, each: Sequence[int], config: Config) -> None:
    """Says whether all arrays have the shapes that the config asks for, and every log-probability is finite."""
    count = config.run.mazes_per_lease
    lengths = [len(stage.length) for stage in rollouts.stages]
    if len(rollouts.mazes) != count or lengths != [count * some for some in each]:
        raise AdmissionError("shape")
    if not _has_size(rollouts.mazes, config):
        raise AdmissionError("maze")
    for stage in rollouts.stages:
        if int(stage.length.sum(dtype=np.int64)) != len(stage.move) or len(stage.move) != len(stage.log_prob):
            raise AdmissionError("shape")
        if not np.isfinite(stage.log_prob).all():
            raise AdmissionError("not_finite")


def _joined(parts: Sequence[Attempts]) -> Attempts:
    """Joins one stage of several leases."""
    arrays = zip(*((part.length, part.move, part.log_prob) for part in parts), strict=True)
    return Attempts(*map(np.concatenate, arrays))


def _replay(mazes: Mazes, stages: Sequence[Attempts], config: Config) -> Replay:
    """Walks the attempts of one lease or several again. No two leases share the number of an observation."""
    horizon_M, sight = horizons(mazes, config), _apart(Sight.of(mazes, config.policy), config.run.mazes_per_lease)
    met = Observations(sight, by_maze=config.inner.adapts == "all")
    walks: list[Walk] = []
    knowns = [Known.nothing(mazes.cells)]
    for stage in stages:
        try:
            walks.append(replay(met, knowns[-1], horizon_M, stage.length, stage.move))
        except UnwalkableError:
            raise AdmissionError("steps") from None
        if len(walks) < len(stages):
            knowns.append(learned(sight, knowns[-1], walks[-1]))
    order_U, rank_U = met.order()
    walks = [replace(again, seen_N=rank_U[again.seen_N]) for again in walks]
    feature_UF = met.features(order_U)
    open_UA = open_moves(feature_UF, config.policy)
    if not all(open_UA[again.seen_N, again.move_N].all() for again in walks):
        raise AdmissionError("steps")
    behaviours = tuple(stage.log_prob for stage in stages)
    return Replay(mazes, feature_UF, met.mazes(order_U), tuple(walks), tuple(knowns), behaviours)


def _apart(sight: Sight, mazes: int) -> Sight:
    """Numbers the observations anew, so that no two leases, of so many mazes each, share one."""
    looks, leases = len(sight.looks_LB), len(sight.mazes) // mazes
    if leases == 1:
        return sight
    return replace(
        sight,
        look_C=sight.look_C + looks * (sight.mazes.maze_C // mazes),
        looks_LB=np.tile(sight.looks_LB, (leases, 1)),
        compass_LA=np.tile(sight.compass_LA, (leases, 1)),
    )


def _shares(whole: Replay, mazes: int) -> Iterator[Replay]:
    """Divides a replay of several leases, of so many mazes each, into one replay for each lease."""
    if len(whole.mazes) == mazes:
        yield whole
        return
    for first in range(0, len(whole.mazes), mazes):
        yield _share(whole, slice(first, first + mazes))


def _share(whole: Replay, rows: slice) -> Replay:
    """Returns the part of a replay that is about some of its mazes, as if the others had not been there."""
    cells = whole.mazes.cells_of(rows)
    assert isinstance(cells, slice)
    steps = [_steps_of(done, rows, len(whole.mazes)) for done in whole.walks]
    met_U = np.zeros(len(whole.feature_UF), np.bool_)
    for done, some in zip(whole.walks, steps, strict=True):
        met_U[done.seen_N[some]] = True
    number_U = (np.cumsum(met_U) - 1).astype(np.int32)
    walks = []
    for done, some in zip(whole.walks, steps, strict=True):
        each = len(done.length_W) // len(whole.mazes)
        attempts = slice(rows.start * each, rows.stop * each)
        end_W, at_N = done.end_W[attempts] - cells.start, done.at_N[some] - cells.start
        dreams = (dream_N[some] for dream_N in (done.known_N, done.hope_N, done.gain_N))
        seen_N = number_U[done.seen_N[some]]
        walks.append(Walk(done.length_W[attempts], end_W, done.move_N[some], at_N, seen_N, *dreams))
    return Replay(
        mazes=whole.mazes[rows],
        feature_UF=whole.feature_UF[met_U],
        maze_U=None if whole.maze_U is None else whole.maze_U[met_U] - rows.start,
        walks=tuple(walks),
        knowns=tuple(Known(known.visited_C[cells], known.way_C[cells]) for known in whole.knowns),
        behaviours=tuple(log_prob_N[some] for log_prob_N, some in zip(whole.behaviours, steps, strict=True)),
    )


def _steps_of(done: Walk, rows: slice, mazes: int) -> slice:
    """Says of every step whether it was made in one of some mazes."""
    ends = np.append(0, done.length_W.reshape(mazes, -1).sum(axis=1).cumsum())
    return slice(int(ends[rows.start]), int(ends[rows.stop]))


def _has_size(mazes: Mazes, config: Config) -> bool:
    """Says whether the mazes are as large as those that a lease draws, and all of their cells are there."""
    shape_M2 = mazes.shape_M2
    if shape_M2.shape != (len(mazes), 2) or shape_M2.min() < 1 or shape_M2.max() > MAX_SIDE:
        return False
    if "file" not in config.maze.families:
        side = int(shape_M2[0, 0])
        if side not in config.maze.sides or (shape_M2 != side).any():
            return False
    return int(mazes.count_M.sum()) == mazes.cells


def _is_usable(mazes: Mazes, config: Config) -> bool:
    """Says whether each maze may be trained on, has a free start and a way to an exit no longer than the horizon."""
    start_M = mazes.start_M
    if mazes.cell_C.max() > TRAP:
        return False
    if start_M.min() < 0 or (start_M >= mazes.count_M).any() or (mazes.cell_C[mazes.first_M] != FREE).any():
        return False
    steps_M: Ints = shortest_M(mazes)
    return not held_out(mazes).any() and bool(((steps_M != UNREACHABLE) & (steps_M <= horizons(mazes, config))).all())
