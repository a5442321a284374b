"""What an answer must be before it counts: of the right shape, finite, walked by the rules of its mazes."""

# L answers, M mazes, n side, E attempts, W all attempts, S states, A moves, N steps of all attempts, K inner steps

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from protocol.config import Config
from protocol.wire.messages import Attempts, Rollouts
from protocol.world.maze import MOVES, UNREACHABLE, Mazes
from protocol.world.states import StateTable

A = len(MOVES)


class AdmissionError(Exception):
    """Why rollouts cannot count, in a word."""


def admit(answers: Sequence[Rollouts], config: Config) -> list[StateTable | AdmissionError]:
    """Of each answer the table of its mazes, where it can count, or why it cannot.

    All are checked at once, since that takes little longer than one; where they fail, each half is on its own.
    """
    try:
        return list(_admit(answers, config))
    except AdmissionError as refused:
        if len(answers) == 1:
            return [refused]
        half = len(answers) // 2
        return [*admit(answers[:half], config), *admit(answers[half:], config)]


def _admit(answers: Sequence[Rollouts], config: Config) -> Iterator[StateTable]:
    """The tables of answers all of which can count; AdmissionError where any cannot."""
    each = [config.inner.attempts] * config.inner.steps + [config.outer.attempts]
    if not all(_has_shape(answer, each, config) for answer in answers):
        raise AdmissionError("shape")
    mazes = Mazes.concatenate([answer.mazes for answer in answers])
    if not _is_solvable(mazes):
        raise AdmissionError("maze")
    table = StateTable.of(mazes, config.policy.radius)
    if (table.shortest_M == UNREACHABLE).any():
        raise AdmissionError("maze")
    count = config.run.mazes_per_lease
    states_L = table.count_M.reshape(-1, count).max(axis=1).tolist()
    for answer, states in zip(answers, states_L, strict=True):
        if any(attempts.log_prob.shape != (count, states, A) for attempts in answer.stages):
            raise AdmissionError("shape")
    stages = list(zip(*(answer.stages for answer in answers), strict=True))
    every = [attempts.log_prob.reshape(-1) for stage in stages for attempts in stage]
    if not np.isfinite(np.concatenate(every)).all():
        raise AdmissionError("not_finite")
    if not _is_walked(stages, table, config.run.horizon):
        raise AdmissionError("steps")
    for first in range(0, len(mazes), count):
        yield table[first : first + count]


def join(parts: Sequence[Rollouts]) -> tuple[Attempts, ...]:
    """The stages of one meta-batch, from the leases' answers in their order; padded to the largest maze of all."""
    stages = zip(*(part.stages for part in parts), strict=True)
    return tuple(_join_attempts(stage) for stage in stages)


def _join_attempts(parts: Sequence[Attempts]) -> Attempts:
    states = max(part.log_prob.shape[1] for part in parts)
    pads = [((0, 0), (0, states - part.log_prob.shape[1]), (0, 0)) for part in parts]
    return Attempts(
        np.concatenate([part.length for part in parts]),
        np.concatenate([part.visits for part in parts]),
        np.concatenate([np.pad(part.log_prob, pad) for part, pad in zip(parts, pads, strict=True)]),
    )


def _has_shape(rollouts: Rollouts, each: list[int], config: Config) -> bool:
    """Whether all but the number of states, which the mazes decide, is as the config says."""
    count, side, mazes = config.run.mazes_per_lease, config.maze.side, rollouts.mazes
    return (
        mazes.blocked.shape == (count, side, side)
        and mazes.start.shape == mazes.exit.shape == (count,)
        and [attempts.length.shape for attempts in rollouts.stages] == [(count, some) for some in each]
    )


def _is_solvable(mazes: Mazes) -> bool:
    """Whether start and exit are two free cells; that there is a way between them, the table tells."""
    cells = mazes.side**2
    ends = np.concatenate((mazes.start, mazes.exit))
    if ends.min() < 0 or ends.max() >= cells or (mazes.start == mazes.exit).any():
        return False
    maze_M = np.arange(len(mazes))
    blocked_MC = mazes.blocked.reshape(-1, cells)
    return not (blocked_MC[maze_M, mazes.start] | blocked_MC[maze_M, mazes.exit]).any()


def _is_walked(stages: Sequence[Sequence[Attempts]], table: StateTable, horizon: int) -> bool:
    """Whether every attempt begins at the start, goes where its moves lead, and ends at exit or horizon.

    Args:
      stages: of each stage, the attempts at all mazes of `table`, in parts, in their order.
    """
    parts = [attempts for stage in stages for attempts in stage]
    if any(attempts.length.sum() != len(attempts.visits) for attempts in parts):
        return False
    length_W = np.concatenate([attempts.length.reshape(-1) for attempts in parts]).astype(np.int64)
    visits_N = np.concatenate([attempts.visits for attempts in parts])
    pairs = table.exit_state * A  # (state, move) pairs of each maze
    if length_W.min() == 0 or length_W.max() > horizon or visits_N.max() >= pairs:
        return False
    first_M = np.arange(len(table.count_M)) * pairs
    first_W = np.concatenate([first_M.repeat(stage[0].length.shape[1]) for stage in stages])
    next_N = table.next_MSA.reshape(-1).take(first_W.repeat(length_W) + visits_N)
    last_W = np.cumsum(length_W) - 1
    if not ((next_N[last_W] == table.exit_state) | (length_W == horizon)).all():
        return False
    next_N[last_W] = 0  # the next attempt begins in state 0; so does the first
    state_N = visits_N // A
    return bool(state_N[0] == 0 and (next_N[:-1] == state_N[1:]).all())
