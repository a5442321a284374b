"""The table of a maze: what the robot can be in, where its moves lead, and what it senses there.

What the robot senses depends only on its state s = (cell, last move that got it somewhere). A bump leaves it in the
same state; the exit ends the attempt and is no state. So under fixed parameters a policy is a table of S rows.
"""

# M mazes, S states (padded to the largest maze), A moves, C = n*n cells (row-major), B cells seen around one

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from protocol.world.maze import MOVES, NO_MOVE, UNREACHABLE, Bools, Ints, Mazes, distance

A = len(MOVES)
Scalar = TypeVar("Scalar", bound=np.generic)
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
    blocked: Bools  # [M, n, n]
    radius: int  # how far the robot sees

    @cached_property
    def seen_MCB(self) -> Floats:
        """[M, C, B] which of the B = (2r+1)^2 - 1 cells around each cell are blocked; outside counts as blocked."""
        reach = range(-self.radius, self.radius + 1)
        square = [(down, right) for down, right in product(reach, reach) if down or right]
        seen = np.stack(list(_beside(self.blocked, square, outside=True)), axis=-1)
        return seen.reshape(len(self.blocked), self.side**2, len(square)).astype(np.float32)

    @property
    def exit_state(self) -> int:
        """What `next_MSA` holds for a move onto the exit: S, one past the last state."""
        return int(self.cell_MS.shape[1])

    @property
    def shortest_M(self) -> Ints:
        """[M] steps on the shortest path from start to exit."""
        return self.distance_MS[:, 0]

    def __getitem__(self, rows: slice) -> StateTable:
        """Some of the mazes, with as many states of padding as all."""
        return StateTable(
            side=self.side,
            count_M=self.count_M[rows],
            cell_MS=self.cell_MS[rows],
            previous_MS=self.previous_MS[rows],
            next_MSA=self.next_MSA[rows],
            distance_MS=self.distance_MS[rows],
            blocked=self.blocked[rows],
            radius=self.radius,
        )

    @staticmethod
    def of(mazes: Mazes, radius: int) -> StateTable:
        """The table of solvable `mazes`; `radius` as in PolicyConfig. Unreachable states are left out."""
        count, side, cells = len(mazes), mazes.side, mazes.side**2
        maze_M = np.arange(count)
        to_exit_MC, reached_MC = _ways(mazes)

        # A state (cell, move) exists where the cell and the one behind it, against the move, are reached. It gets
        # its number in `state_MCA`, where 0 stands for none: no move leads to the state before any move.
        reached = reached_MC.reshape(mazes.blocked.shape)
        behind = _beside(reached, [(-down, -right) for down, right in MOVES], outside=False)
        exists_MCA = np.stack([reached & there for there in behind], axis=-1).reshape(count, cells, A)
        state_MCA = np.cumsum(exists_MCA.reshape(count, -1), axis=1, dtype=np.int32).reshape(exists_MCA.shape)
        count_M = state_MCA[:, -1, -1] + np.int32(1)
        states = int(count_M.max())
        state_S = np.arange(states, dtype=np.int32)
        state_MCA *= exists_MCA
        state_MCA[maze_M, mazes.exit] = states

        cell_MS = np.repeat(mazes.start[:, None], states, axis=1)  # padding rows are copies of the start
        previous_MS = np.full((count, states), NO_MOVE, np.int32)
        entered_MS = (state_S < count_M[:, None]) & (state_S > 0)
        pair_N = np.flatnonzero(exists_MCA)
        cell_MS[entered_MS], previous_MS[entered_MS] = pair_N // A % cells, pair_N % A

        ahead = _beside(state_MCA.reshape(*mazes.blocked.shape, A), MOVES, outside=0)
        next_MCA = np.stack([there[..., move] for move, there in enumerate(ahead)], axis=-1)
        row_MS = cell_MS + maze_M[:, None] * cells
        next_MSA = next_MCA.reshape(-1, A).take(row_MS, axis=0)  # 0 where a wall is ahead: the robot stays
        return StateTable(
            side=side,
            count_M=count_M,
            cell_MS=cell_MS,
            previous_MS=previous_MS,
            next_MSA=np.where(next_MSA, next_MSA, state_S.repeat(A).reshape(states, A)),
            distance_MS=to_exit_MC.reshape(-1).take(row_MS),
            blocked=mazes.blocked,
            radius=radius,
        )

    @staticmethod
    def concatenate(parts: Sequence[StateTable]) -> StateTable:
        """All mazes of `parts` (of one side and radius), in order; padding beyond the largest is cut off."""
        states = max(int(part.count_M.max()) for part in parts)

        def padded(arrays: Sequence[Ints]) -> Ints:
            cut = [array[:, :states] for array in arrays]
            frames = [((0, 0), (0, states - array.shape[1])) + ((0, 0),) * (array.ndim - 2) for array in cut]
            return np.concatenate([np.pad(*pair, mode="edge") for pair in zip(cut, frames, strict=True)])

        return StateTable(
            side=parts[0].side,
            count_M=np.concatenate([part.count_M for part in parts]),
            cell_MS=padded([part.cell_MS for part in parts]),
            previous_MS=padded([part.previous_MS for part in parts]),
            next_MSA=padded(
                [np.where(part.next_MSA == part.exit_state, states, part.next_MSA) for part in parts]
            ),
            distance_MS=padded([part.distance_MS for part in parts]),
            blocked=np.concatenate([part.blocked for part in parts]),
            radius=parts[0].radius,
        )


def _ways(mazes: Mazes) -> tuple[Ints, Bools]:
    """[M, C] steps to the exit, and [M, C] where the robot can stand: what it reaches without the exit."""
    count, shape = len(mazes), mazes.blocked.shape
    closed_MC = mazes.blocked.reshape(count, -1).copy()
    closed_MC[np.arange(count), mazes.exit] = True
    both = np.concatenate((mazes.blocked, closed_MC.reshape(shape)))  # two searches in one are faster
    steps = distance(both, np.concatenate((mazes.exit, mazes.start)))
    return steps[:count], steps[count:] != UNREACHABLE


def _beside(
    grid: npt.NDArray[Scalar], offsets: Sequence[tuple[int, int]], *, outside: int
) -> Iterator[npt.NDArray[Scalar]]:
    """For each of the offsets (down, right), what `grid` [M, n, n, ...] holds so far from each cell."""
    count, side, _, *rest = grid.shape
    radius = max(map(max, offsets))
    width = side + 2 * radius
    framed = np.full((count, width, width, *rest), outside, grid.dtype)
    framed[:, radius : radius + side, radius : radius + side] = grid
    for down, right in offsets:
        top, left = radius + down, radius + right
        yield framed[:, top : top + side, left : left + side]
