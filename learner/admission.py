"""What an answer must be before it counts: of the right shape, finite, walked by the rules of its mazes."""

# M mazes, n side, E attempts, S states, A moves, N steps of all attempts, K inner steps

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protocol.config import Config
from protocol.maze import MOVES, UNREACHABLE, Mazes
from protocol.messages import Attempts, Rollouts
from protocol.states import StateTable

A = len(MOVES)


class AdmissionError(Exception):
    """Why rollouts cannot count, in a word."""


def admit(rollouts: Rollouts, config: Config) -> StateTable:
    """The table of the mazes of `rollouts`, which can count; AdmissionError where they cannot."""
    each = [config.inner.attempts] * config.inner.steps + [config.outer.attempts]
    if not _has_shape(rollouts, each, config):
        raise AdmissionError("shape")
    if not _is_solvable(rollouts.mazes):
        raise AdmissionError("maze")
    table = StateTable.of(rollouts.mazes, config.policy.radius)
    if (table.shortest_M == UNREACHABLE).any():
        raise AdmissionError("maze")
    for attempts in rollouts.stages:
        if attempts.log_prob.shape != table.next_MSA.shape:
            raise AdmissionError("shape")
        if not np.isfinite(attempts.log_prob).all():
            raise AdmissionError("not_finite")
    if not _is_walked(rollouts.stages, table, config.run.horizon):
        raise AdmissionError("steps")
    return table


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


def _is_walked(stages: Sequence[Attempts], table: StateTable, horizon: int) -> bool:
    """Whether every attempt begins at the start, goes where its moves lead, and ends at exit or horizon."""
    if any(attempts.length.sum() != len(attempts.visits) for attempts in stages):
        return False
    length_W = np.concatenate([attempts.length.reshape(-1) for attempts in stages]).astype(np.int64)
    visits_N = np.concatenate([attempts.visits for attempts in stages])
    pairs = table.exit_state * A  # (state, move) pairs of each maze
    if length_W.min() == 0 or length_W.max() > horizon or visits_N.max() >= pairs:
        return False
    first_M = np.arange(len(table.count_M)) * pairs
    first_W = np.concatenate([first_M.repeat(attempts.length.shape[1]) for attempts in stages])
    next_N = table.next_MSA.reshape(-1).take(first_W.repeat(length_W) + visits_N)
    last_W = np.cumsum(length_W) - 1
    if not ((next_N[last_W] == table.exit_state) | (length_W == horizon)).all():
        return False
    next_N[last_W] = 0  # the next attempt begins in state 0; so does the first
    state_N = visits_N // A
    return bool(state_N[0] == 0 and (next_N[:-1] == state_N[1:]).all())
