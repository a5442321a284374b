"""The memory of walkers during an attempt, cell by cell, and the ways that they dream of.

The memory of a cell is one number: the marks of its four directions (`protocol.world.senses`), and whether the walker
has been in the cell, in this attempt and in an earlier one.
"""

# M mazes, C cells of all mazes, W walkers, Y cells of all walkers (each walker has a copy of its maze), A moves.
# `at_W` and `to_W` are rows among the C, `here_W` and `into_W` are rows among the Y.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.world import ways
from protocol.world.cells import BACK, EXIT, UNREACHABLE, A, Bools, Indices, Ints, Kinds
from protocol.world.senses import (
    ALL_MARKS,
    BUMPED,
    EARLIER,
    MARK_BITS,
    NEVER,
    VISITED_0,
    VISITED_2,
    Bytes,
    Sight,
)

BIT_A1 = (1 << np.arange(A)).astype(np.uint8)[:, None]  # the bit of each move in a set of moves
MARK = (1 << MARK_BITS) - 1  # all bits of one mark
SHIFT_A = np.arange(0, MARK_BITS * A, MARK_BITS, dtype=np.int32)  # the place of the mark of each direction
BACK_A1 = SHIFT_A[np.arange(A) ^ BACK][:, None]  # the place of the mark of the opposite direction
EACH_MARK = int((1 << SHIFT_A).sum())  # the lowest bit of each mark
NOW = 1 << MARK_BITS * A  # stands beside a cell's marks: visited in this attempt
BEFORE = 2 << MARK_BITS * A  # stands beside a cell's marks: visited in an earlier attempt
MOST_GAIN = 31  # steps, beyond which a hopeful way is not told from a still shorter one
NO_WAY = MOST_GAIN + 1  # the gain where no known way leads from the cell to an exit that is known
NO_EXIT = NO_WAY + 1  # the gain while no exit is known, and the hopeful way leads to where the robot has never been


@dataclass(frozen=True)
class Known:
    """The robots' knowledge of their mazes: all of it follows from the cells that they have stood in."""

    visited_C: Kinds  # [C] ways.VISITED where a robot has stood, and, if it is blind, the bit of each move that bumped
    way_C: Ints  # [C] steps to the nearest exit that was reached, through visited cells; UNREACHABLE without a way

    @staticmethod
    def nothing(cells: int) -> Known:
        """Returns what is known before the first attempt. `cells`: C."""
        return Known(np.zeros(cells, np.uint8), np.full(cells, UNREACHABLE, np.int32))


@dataclass(frozen=True)
class Dream:
    """The ways that walkers dream of, as far as they concern the cells where they stand."""

    known_W: Bytes  # [W] the set of moves, one bit each, that follow the known way; 0: there is no such way
    hope_W: Bytes  # [W] the set of moves that follow the hopeful way; 0: it is no shorter, or there is none
    gain_W: Bytes  # [W] steps by which the hopeful way is shorter, MOST_GAIN at most; or NO_WAY, or NO_EXIT


class Memory:
    """The memory of every walker, cell by cell, and the ways that it dreams of."""

    def __init__(self, sight: Sight, known: Known, attempts: int) -> None:
        """Remembers what is known from earlier attempts, once for each of the `attempts` at each maze."""
        mazes = sight.mazes
        self._sight = sight
        self._remembers, self._dreams = sight.policy.memory != "none", sight.policy.dreams
        count_W, maze_W = np.repeat(mazes.count_M, attempts), np.repeat(np.arange(len(mazes)), attempts)
        self._base_W = np.cumsum(count_W) - count_W  # row of each walker's first cell among the Y
        self.shift_W = self._base_W - mazes.offset_M[maze_W]  # from rows among the C to rows among the Y
        if not self._remembers:
            return
        self._ahead_AC = np.ascontiguousarray(mazes.ahead_CA.T)
        self._cell_Y: Indices = np.arange(mazes.cells)[mazes.cells_of(maze_W)]  # row of each among the C
        self._state_Y = marked(sight, known.visited_C)[self._cell_Y]
        if self._dreams:
            self._shape_W2 = mazes.shape_M2[maze_W]
            self._visited_Y, self._way_Y = known.visited_C[self._cell_Y], known.way_C[self._cell_Y]
            self._hope_Y = np.full(len(self._cell_Y), UNREACHABLE, np.int32)
            self._stale_W = np.ones(len(maze_W), np.bool_)  # a new cell or a wall has been met since the last dream
            goal_C = (mazes.cell_C == EXIT) & (((known.visited_C & ways.VISITED) != 0) | sight.policy.compass)
            goal_M = np.bincount(mazes.maze_C[goal_C], minlength=len(mazes)) > 0
            self._goal_W = goal_M[maze_W]  # an exit is known
            # A blind robot does not know which of the cells beside it are walls; a seeing one never looks past a wall.
            self._next_AC = self._ahead_AC if sight.policy.radius else np.ascontiguousarray(sight.beside_CA.T)
            self._plan(np.flatnonzero(self._goal_W))

    def marks(self, here_W: Indices) -> Ints:
        """Returns the marks [W] of the four directions, MARK_BITS each. `here_W`: rows of cells among the Y."""
        if not self._remembers:
            return np.zeros(len(here_W), np.int32)
        return self._state_Y.take(here_W) & ALL_MARKS

    def enter(self, walker_W: Indices, at_W: Indices, here_W: Indices) -> None:
        """Marks the cells where walkers start."""
        if not self._remembers:
            return
        enter(self._state_Y, self._ahead_AC, at_W, here_W)
        if self._dreams:
            self._stale_W[walker_W] = True

    def move(self, walker_W: Indices, at_W: Indices, here_W: Indices, move_W: Bytes, to_W: Indices) -> None:
        """Marks what moves from `at_W` to `to_W` have met."""
        if not self._remembers:
            return
        learned_W = mark(self._state_Y, self._ahead_AC, at_W, here_W, move_W, to_W)
        if self._dreams:
            self._stale_W[walker_W[learned_W]] = True

    def dream(self, walker_W: Indices, at_W: Indices, here_W: Indices, marks_W: Ints) -> Dream | None:
        """Returns what each walker dreams in its cell; None where robots do not dream.

        A cell's dream can only change what is done in that cell, so only the dream at the robot's own cell is ever
        looked at. The hopeful way is dreamt again when what was sensed since has disproved it.
        """
        if not self._dreams:
            return None
        goal_W = self._goal_W.take(walker_W)
        # An explorer dreams only where nothing around it is new; a robot that knows an exit dreams everywhere.
        dreams_W = goal_W | (((marks_W | marks_W >> 1 | marks_W >> 2) & EACH_MARK) == EACH_MARK)
        told = np.zeros((3, len(at_W)), np.uint8)
        told[2] = NO_EXIT
        some = np.flatnonzero(dreams_W)
        if len(some) == len(at_W):
            told[:] = self._dreamt(walker_W, at_W, here_W, marks_W, goal_W)
        elif len(some):
            told[:, some] = self._dreamt(*taken(some, walker_W, at_W, here_W, marks_W, goal_W))
        return Dream(*told)

    def _dreamt(
        self, walker_W: Indices, at_W: Indices, here_W: Indices, marks_W: Ints, goal_W: Bools
    ) -> tuple[Bytes, Bytes, Ints]:
        """Computes the fields of Dream for walkers that dream."""
        there_AW = self._next_AC.take(at_W, axis=1) + (here_W - at_W)
        along_AW = self._along(here_W, there_AW, marks_W)
        again_W = ~along_AW.any(axis=0) & goal_W | self._stale_W.take(walker_W) & ~goal_W
        if again_W.any():
            self._plan(walker_W[again_W])
            along_AW = self._along(here_W, there_AW, marks_W)
        way_W = self._way_Y.take(here_W)
        gain_W = np.minimum(way_W - self._hope_Y.take(here_W), MOST_GAIN)
        gain_W[way_W == UNREACHABLE] = NO_WAY
        gain_W[~goal_W] = NO_EXIT
        return _set(self._way_Y.take(there_AW) == way_W - 1), _set(along_AW & (gain_W > 0)), gain_W

    def _along(self, here_W: Indices, there_AW: Indices, marks_W: Ints) -> Bools:
        """Says which moves follow the hopeful way [A, W], as it was dreamt last."""
        along_AW: Bools = self._hope_Y.take(there_AW) == self._hope_Y.take(here_W) - 1
        if not self._sight.policy.radius:
            along_AW &= (marks_W >> SHIFT_A[:, None] & MARK) != BUMPED
        return along_AW

    def _plan(self, walkers: Indices) -> None:
        """Dreams anew of the ways of some walkers, from all that each knows by now. `walkers`: their numbers."""
        policy, kind_C = self._sight.policy, self._sight.mazes.cell_C
        for group, (rows, columns) in ways.by_shape(self._shape_W2[walkers]):
            cells = self._base_W[walkers[group], None] + np.arange(rows * columns)
            grid = (len(group), rows, columns)
            state = self._state_Y.take(cells)
            known = self._visited_Y.take(cells) | (state // NOW & 1).astype(np.uint8) * np.uint8(ways.VISITED)
            if not policy.radius:
                for move in range(A):
                    known |= ((state >> MARK_BITS * move & MARK) == BUMPED).astype(np.uint8) << move
            kind, known = kind_C.take(self._cell_Y.take(cells)).reshape(grid), known.reshape(grid)
            hope = ways.hopeful_way(kind, known, policy.radius, policy.compass)
            self._hope_Y[cells] = hope.reshape(cells.shape)
        self._stale_W[walkers] = False


def enter(state_Y: Ints, ahead_AC: Indices, at_W: Indices, here_W: Indices) -> None:
    """Marks cells as visited in this attempt, for the first time: their neighbours' marks say so from now on."""
    state_W = state_Y.take(here_W)
    state_Y[here_W] = state_W | NOW
    raised_W = VISITED_0 - (state_W // BEFORE & 1) * EARLIER  # a neighbour's mark was EARLIER, or NEVER, which is 0
    there_AW = ahead_AC.take(at_W, axis=1)
    # A wall leads to the cell itself, to which nothing is added, so no row that counts occurs twice.
    raised_AW = (there_AW != at_W) * raised_W << BACK_A1
    there_AW += here_W - at_W
    state_Y[there_AW] = state_Y.take(there_AW) + raised_AW


def mark(state_Y: Ints, ahead_AC: Indices, at_W: Indices, here_W: Indices, move_W: Bytes, to_W: Indices) -> Bools:
    """Marks what moves from `at_W` to `to_W` have met; says who has met a wall or a cell that is new to it [W]."""
    bumped_W: Bools = to_W == at_W
    if not bumped_W.any():
        return _pass_on(state_Y, ahead_AC, at_W, here_W, move_W, to_W)
    rest, learned_W = np.flatnonzero(~bumped_W), bumped_W
    _bump(state_Y, *taken(np.flatnonzero(bumped_W), here_W, move_W))
    learned_W[rest] = _pass_on(state_Y, ahead_AC, *taken(rest, at_W, here_W, move_W, to_W))
    return learned_W


def taken(rows: Indices, *arrays: npt.NDArray[Any]) -> list[Any]:
    """Takes the same rows of each of the arrays."""
    return [array.take(rows) for array in arrays]


def marked(sight: Sight, visited_C: Kinds) -> Ints:
    """Returns what a walker remembers of each cell [C] as its attempt begins."""
    been_C = (visited_C & ways.VISITED) != 0
    state_C: Ints = been_C * np.int32(BEFORE)
    here_C = np.arange(len(visited_C))
    for move, there_C in enumerate(sight.mazes.ahead_CA.T):
        shut_C = there_C == here_C if sight.policy.radius else visited_C >> move & 1 > 0
        mark_C = np.where(shut_C, BUMPED, np.where(there_C != here_C, been_C[there_C] * EARLIER, NEVER))
        state_C |= mark_C.astype(np.int32) << MARK_BITS * move
    return state_C


def _set(move_AW: Bools) -> Bytes:
    """Packs moves into sets [W], one bit for each move."""
    packed: Bytes = (move_AW * BIT_A1).sum(axis=0, dtype=np.uint8)
    return packed


def _bump(state_Y: Ints, here_W: Indices, move_W: Bytes) -> None:
    """Marks the walls at which moves have ended."""
    bit_W = SHIFT_A.take(move_W)
    state_Y[here_W] = (state_Y.take(here_W) & ~(MARK << bit_W)) | (BUMPED << bit_W)


def _pass_on(state_Y: Ints, ahead_AC: Indices, at_W: Indices, here_W: Indices, move_W: Bytes, to_W: Indices) -> Bools:
    """Marks passages, at both ends, as used once more; says which lead to a cell that was not visited so far [W]."""
    into_W = here_W + (to_W - at_W)
    fresh_W: Bools = state_Y.take(into_W) & NOW == 0
    if fresh_W.any():
        enter(state_Y, ahead_AC, *taken(np.flatnonzero(fresh_W), to_W, into_W))
    bit_W, back_W, state_W = SHIFT_A.take(move_W), SHIFT_A.take(move_W ^ BACK), state_Y.take(here_W)
    more_W = ((state_W >> bit_W & MARK) < VISITED_2).view(np.uint8)  # both ends of a passage bear the same mark
    state_Y[here_W] = state_W + (more_W << bit_W)
    state_Y[into_W] = state_Y.take(into_W) + (more_W << back_W)
    return fresh_W
