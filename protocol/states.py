"""The table of a maze: what the robot can be in, where its moves lead, and what it senses there.

What the robot senses depends only on its state s = (cell, last move that got it somewhere). A bump leaves it in the
same state; the exit ends the attempt and is no state. So under fixed parameters a policy is a table of S rows.
"""

# M mazes, S states (padded to the largest maze), A moves, C = n*n cells (row-major), B cells seen around one

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.maze import MOVES, NO_MOVE, OPPOSITE, UNREACHABLE, Ints, Mazes, distance

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StateTable:
    """The states of M mazes. State 0 is the start, before any move; the others follow by cell, then by move."""

    side: int  # n
    count_M: Ints  # [M] states of each maze; rows past them are padding
    cell_MS: Ints  # [M, S] where the robot stands
    previous_MS: Ints  # [M, S] the last move that got it somewhere; NO_MOVE at the start
    next_MSA: Ints  # [M, S, A] the state that a move leads to; `exit_state` where it reaches the exit
    distance_MS: Ints  # [M, S] steps to the exit on the shortest path
    seen_MCB: Floats  # [M, C, B] 1 where a cell around C is blocked or outside the maze

    @property
    def exit_state(self) -> int:
        """What `next_MSA` holds for a move onto the exit: S, one past the last state."""
        return int(self.cell_MS.shape[1])

    @property
    def shortest_M(self) -> Ints:
        """[M] steps on the shortest path from start to exit."""
        return self.distance_MS[:, 0]

    @staticmethod
    def of(mazes: Mazes, radius: int) -> StateTable:
        """The table of solvable `mazes`; `radius` as in PolicyConfig. Unreachable states are left out."""
        count, side, cells = len(mazes), mazes.side, mazes.side**2
        maze_M = np.arange(count)
        to_exit_MC = distance(mazes.blocked, mazes.exit)
        reached_MC = distance(mazes.blocked, mazes.start, stop=mazes.exit) != UNREACHABLE
        reached_MC[maze_M, mazes.exit] = False
        target_MCA = _targets(mazes)

        # A state (cell, move) exists where the cell behind it, against the move, is reached and opens onto it.
        behind_MCA = target_MCA[:, :, OPPOSITE]
        moved_MCA = behind_MCA != np.arange(cells, dtype=np.int32)[:, None]
        exists_MCA = moved_MCA & reached_MC[:, :, None] & reached_MC[maze_M[:, None, None], behind_MCA]
        maze_N, cell_N, move_N = np.nonzero(exists_MCA)
        count_M = np.bincount(maze_N, minlength=count).astype(np.int32) + 1
        first_M = np.cumsum(count_M - 1) - (count_M - 1)
        state_N = np.arange(len(maze_N)) - first_M[maze_N] + 1

        states = int(count_M.max())
        cell_MS = np.repeat(mazes.start[:, None], states, axis=1)  # padding rows are copies of the start
        previous_MS = np.full((count, states), NO_MOVE, np.int32)
        cell_MS[maze_N, state_N] = cell_N
        previous_MS[maze_N, state_N] = move_N

        state_MCA = np.zeros((count, cells, len(MOVES)), np.int32)
        state_MCA[maze_N, cell_N, move_N] = state_N
        state_MCA[maze_M, mazes.exit] = states
        target_MSA = target_MCA[maze_M[:, None], cell_MS]
        next_MSA = state_MCA[maze_M[:, None, None], target_MSA, np.arange(len(MOVES))]
        stays_MSA = target_MSA == cell_MS[:, :, None]
        next_MSA = np.where(stays_MSA, np.arange(states, dtype=np.int32)[:, None], next_MSA)
        return StateTable(
            side=side,
            count_M=count_M,
            cell_MS=cell_MS,
            previous_MS=previous_MS,
            next_MSA=next_MSA,
            distance_MS=to_exit_MC[maze_M[:, None], cell_MS],
            seen_MCB=_seen(mazes, radius),
        )

    @staticmethod
    def concatenate(parts: Sequence[StateTable]) -> StateTable:
        """All mazes of `parts` (of one side and radius), in order, padded to the largest."""
        states = max(part.exit_state for part in parts)

        def padded(arrays: Sequence[Ints]) -> Ints:
            frames = [
                ((0, 0), (0, states - array.shape[1])) + ((0, 0),) * (array.ndim - 2) for array in arrays
            ]
            return np.concatenate([np.pad(*pair, mode="edge") for pair in zip(arrays, frames, strict=True)])

        return StateTable(
            side=parts[0].side,
            count_M=np.concatenate([part.count_M for part in parts]),
            cell_MS=padded([part.cell_MS for part in parts]),
            previous_MS=padded([part.previous_MS for part in parts]),
            next_MSA=padded(
                [np.where(part.next_MSA == part.exit_state, states, part.next_MSA) for part in parts]
            ),
            distance_MS=padded([part.distance_MS for part in parts]),
            seen_MCB=np.concatenate([part.seen_MCB for part in parts]),
        )


def _targets(mazes: Mazes) -> Ints:
    """[M, C, A] the cell that each move leads to: the neighbour, or the same cell where a wall is in the way."""
    count, side = len(mazes), mazes.side
    walled = np.pad(mazes.blocked, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    cell_nn = np.arange(side**2, dtype=np.int32).reshape(side, side)
    target = np.empty((count, side, side, len(MOVES)), np.int32)
    for move, (down, right) in enumerate(MOVES):
        wall = walled[:, 1 + down : 1 + down + side, 1 + right : 1 + right + side]
        target[..., move] = np.where(wall, cell_nn, cell_nn + np.int32(down * side + right))
    return target.reshape(count, side**2, len(MOVES))


def _seen(mazes: Mazes, radius: int) -> Floats:
    """[M, C, B] which of the (2r+1)^2 - 1 cells around each cell are blocked; outside counts as blocked."""
    side = mazes.side
    walled = np.pad(mazes.blocked, ((0, 0), (radius, radius), (radius, radius)), constant_values=True)
    window = np.lib.stride_tricks.sliding_window_view(walled, (side, side), axis=(1, 2))
    around = window.reshape(len(mazes), (2 * radius + 1) ** 2, side**2)
    centre = around.shape[1] // 2
    return np.delete(around, centre, axis=1).transpose(0, 2, 1).astype(np.float32)
