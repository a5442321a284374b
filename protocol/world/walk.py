"""Attempts: where moves lead, what the robot senses and remembers on the way, and which ways it dreams of.

Actors walk with a policy that draws the moves; the learner walks again with the moves that an actor sent. Both get the
same cells, observations and dreams, for nothing else decides them.
"""

# M mazes, C cells of all mazes, E attempts at each, W = M*E walkers, K cells of all walkers (each has a copy of its
# maze), N steps of all attempts one after another, A moves

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.world import ways
from protocol.world.maze import EXIT, MOVES, NO_MOVE, TRAP, UNREACHABLE, Bools, Indices, Ints, Kinds
from protocol.world.senses import (
    ALL_MARKS,
    BUMPED,
    EARLIER,
    MARK_BITS,
    NEVER,
    VISITED_0,
    VISITED_2,
    Bytes,
    Observations,
    Sight,
)

A = len(MOVES)
BIT_A1 = (1 << np.arange(A)).astype(np.uint8)[:, None]  # of each move in a set of moves
MARK = (1 << MARK_BITS) - 1
SHIFT_A1 = np.arange(0, MARK_BITS * A, MARK_BITS, dtype=np.int32)[:, None]  # where the mark of each direction stands
BACK_A1 = np.roll(SHIFT_A1, 2)  # where that of the opposite direction stands
SHIFTS = SHIFT_A1[:, 0]
EACH_MARK = int((1 << SHIFT_A1).sum())  # the lowest bit of each
NOW = 1 << MARK_BITS * A  # of a cell, beside its marks: visited in this attempt
BEFORE = 2 << MARK_BITS * A  # the same: visited in an earlier attempt
MOST_GAIN = 31  # steps, beyond which a hopeful way is not told from a still shorter one
NO_WAY = MOST_GAIN + 1  # the gain where no known way leads from the cell to an exit that is known
NO_EXIT = NO_WAY + 1  # the gain while no exit is known, and the hopeful way leads to where the robot has never been


@dataclass(frozen=True)
class Known:
    """What the robots know of their mazes: all of it follows from the cells that they have stood in."""

    visited_C: Kinds  # [C] ways.VISITED where one has stood, and a bit for each move that was a bump, if it is blind
    way_C: Ints  # [C] steps to the nearest exit that was reached, through visited cells; UNREACHABLE without

    @staticmethod
    def nothing(cells: int) -> Known:
        """Before the first attempt."""
        return Known(np.zeros(cells, np.uint8), np.full(cells, UNREACHABLE, np.int32))


@dataclass(frozen=True)
class Dream:
    """The ways that walkers dream of, as far as they concern the cells where they stand."""

    known_W: Bytes  # the set of moves, one bit each, that follow the known way; 0: there is none
    hope_W: Bytes  # the same of the hopeful way; 0: it is no shorter, or there is none
    gain_W: Bytes  # steps by which the hopeful way is shorter, MOST_GAIN at most; or NO_WAY, or NO_EXIT


@dataclass(frozen=True)
class Here:
    """What the walkers that are still on their way have before them at one step."""

    time: int  # t, from 0
    walker_W: Indices  # which of all walkers they are
    at_W: Indices  # row of the cell among the C
    row_W: Ints  # number of the observation
    dream: Dream | None  # None where robots do not dream


Choose = Callable[[Here], Bytes]  # [W] a move for each


@dataclass(frozen=True)
class Walk:
    """What happened in E attempts at each of M mazes, one after another: by maze, attempt, time."""

    length_W: Ints  # [W] steps: until an exit or a trap, or the horizon
    end_W: Indices  # [W] row of the cell, among the C, where the attempt ended
    move_N: Bytes  # [N] the moves
    at_N: Indices  # [N] row of the cell, among the C, before the move
    row_N: Ints  # [N] number of the observation
    known_N: Bytes  # [N] these three as in `Dream`; 0 where robots do not dream
    hope_N: Bytes
    gain_N: Bytes


def walk(
    sight: Sight,
    met: Observations,
    known: Known,
    attempts: int,
    horizon_M: Ints,
    choose: Choose,
) -> Walk:
    """E attempts at each maze, all at once.

    Args:
      met: numbers the observations; what is new is added to it.
      known: what is known from earlier attempts.
      horizon_M: [M] steps after which an attempt at each maze ends.
      choose: the policy, or a record of moves.
    """
    mazes, memory = sight.mazes, _Memory(sight, known, attempts)
    ahead = mazes.ahead_CA.reshape(-1)
    ends_C = (mazes.cell_C == EXIT) | (mazes.cell_C == TRAP)
    walker_W = np.arange(len(mazes) * attempts)
    at_W, shift_W = np.repeat(mazes.first_M, attempts), memory.shift_W
    horizon_W = np.repeat(horizon_M, attempts)
    length_W, end_W = horizon_W.copy(), at_W.copy()
    last_W: npt.NDArray[Any] = np.full(len(at_W), NO_MOVE, np.uint8)
    memory.enter(walker_W, at_W, at_W + shift_W)
    told: list[tuple[Any, ...]] = []
    horizon = int(horizon_W.min())
    for time in range(int(horizon_W.max())):
        here_W = at_W + shift_W
        marks_W = memory.marks(here_W)
        row_W = met.rows(at_W, last_W, marks_W)
        here = Here(time, walker_W, at_W, row_W, memory.dream(walker_W, at_W, here_W, marks_W))
        move_W = choose(here)
        told.append((walker_W, at_W, row_W, move_W, here.dream))
        to_W = ahead.take(at_W * A + move_W)
        moved_W = to_W != at_W
        if moved_W.all():
            memory.pass_on(walker_W, at_W, here_W, move_W, to_W)
            last_W = move_W
        else:
            rest = np.flatnonzero(moved_W)
            memory.bump(*_taken(np.flatnonzero(~moved_W), walker_W, here_W, move_W))
            memory.pass_on(*_taken(rest, walker_W, at_W, here_W, move_W, to_W))
            last_W = np.where(moved_W, move_W, last_W)
        at_W = to_W
        over_W = ends_C.take(at_W)
        if time + 1 >= horizon:
            over_W |= horizon_W.take(walker_W) == time + 1
        if over_W.any():
            ended = walker_W[over_W]
            length_W[ended], end_W[ended] = time + 1, at_W[over_W]
            going = np.flatnonzero(~over_W)
            walker_W, at_W, last_W, shift_W = _taken(going, walker_W, at_W, last_W, shift_W)
            if not len(walker_W):
                break
    return _in_order(told, length_W, end_W)


def learned(sight: Sight, known: Known, walk: Walk) -> Known:
    """What is known after `walk`, which was made with `known`."""
    mazes, visited_C = sight.mazes, known.visited_C.copy()
    visited_C[walk.at_N] |= ways.VISITED
    visited_C[walk.end_W] |= ways.VISITED
    if not sight.policy.radius:
        bumped = mazes.ahead_CA[walk.at_N, walk.move_N] == walk.at_N
        np.bitwise_or.at(visited_C, walk.at_N[bumped], (1 << walk.move_N[bumped]).astype(np.uint8))
    way_C = np.empty(mazes.cells, np.int32)
    for group, (rows, columns) in ways.by_shape(mazes.shape_M2):
        cells = mazes.cells_of(group)
        grid = (len(group), rows, columns)
        way_C[cells] = ways.known_way(mazes.cell_C[cells].reshape(grid), visited_C[cells].reshape(grid)).reshape(-1)
    return Known(visited_C, way_C)


def _taken(rows: Indices, *arrays: npt.NDArray[Any]) -> list[Any]:
    """Some rows of each of the arrays."""
    return [array.take(rows) for array in arrays]


def _in_order(told: list[tuple[Any, ...]], length_W: Ints, end_W: Indices) -> Walk:
    """The steps, which were told time by time, attempt after attempt."""
    first_W = np.cumsum(length_W) - length_W
    place = np.concatenate([first_W.take(step[0]) + time for time, step in enumerate(told)])
    order = np.empty(len(place), np.intp)
    order[place] = np.arange(len(place))
    at_N, row_N, move_N = (np.concatenate([step[field] for step in told]).take(order) for field in (1, 2, 3))
    dreams = [np.zeros(len(order), np.uint8)] * 3
    if told[0][4]:
        names = ("known_W", "hope_W", "gain_W")
        dreams = [np.concatenate([getattr(step[4], name) for step in told]).take(order) for name in names]
    return Walk(length_W, end_W, move_N, at_N, row_N, *dreams)


class _Memory:
    """What every walker remembers, cell by cell, and the ways that it dreams of."""

    def __init__(self, sight: Sight, known: Known, attempts: int) -> None:
        mazes = sight.mazes
        self._sight = sight
        self._remembers, self._dreams = sight.policy.memory != "none", sight.policy.dreams
        count_W, maze_W = np.repeat(mazes.count_M, attempts), np.repeat(np.arange(len(mazes)), attempts)
        self._base_W = np.cumsum(count_W) - count_W  # row of each walker's first cell among the K
        self.shift_W = self._base_W - mazes.offset_M[maze_W]  # from a cell's row among the C to that among the K
        if not self._remembers:
            return
        self._ahead_AC = np.ascontiguousarray(mazes.ahead_CA.T)
        self._cell_K: Indices = np.arange(mazes.cells)[mazes.cells_of(maze_W)]  # row of each among the C
        self._state_K = marked(sight, known.visited_C)[self._cell_K]
        if self._dreams:
            self._shape_W2 = mazes.shape_M2[maze_W]
            self._visited_K, self._way_K = known.visited_C[self._cell_K], known.way_C[self._cell_K]
            self._hope_K = np.full(len(self._cell_K), UNREACHABLE, np.int32)
            self._stale_W = np.ones(len(maze_W), np.bool_)  # whether it has met a new cell or a wall since it dreamt
            goal_C = (mazes.cell_C == EXIT) & (((known.visited_C & ways.VISITED) != 0) | sight.policy.compass)
            goal_M = np.bincount(mazes.maze_C[goal_C], minlength=len(mazes)) > 0
            self._goal_W = goal_M[maze_W]  # whether it knows an exit
            # A blind robot does not know which of the cells beside it are walls; who sees never looks past one.
            self._next_AC = self._ahead_AC if sight.policy.radius else np.ascontiguousarray(sight.beside_CA.T)
            self._plan(np.flatnonzero(self._goal_W))

    def marks(self, here_W: Indices) -> Ints:
        """[W] the marks of the four directions, MARK_BITS each. `here_W`: rows of the walkers' cells among the K."""
        if not self._remembers:
            return np.zeros(len(here_W), np.int32)
        return self._state_K.take(here_W) & ALL_MARKS

    def enter(self, walker_W: Indices, at_W: Indices, here_W: Indices) -> None:
        """Cells that are visited for the first time in this attempt: their neighbours' marks say so from now on."""
        if not self._remembers:
            return
        state_K = self._state_K
        state_W = state_K.take(here_W)
        state_K[here_W] = state_W | NOW
        raised_W = VISITED_0 - (state_W // BEFORE & 1) * EARLIER  # a neighbour's mark was EARLIER, or NEVER, which is 0
        there_AW = self._ahead_AC.take(at_W, axis=1)
        # A wall leads to the cell itself, to which nothing is added: so no row that counts stands there twice.
        raised_AW = (there_AW != at_W) * raised_W << BACK_A1
        there_AW += here_W - at_W
        state_K[there_AW] = state_K.take(there_AW) + raised_AW
        if self._dreams:
            self._stale_W[walker_W] = True

    def bump(self, walker_W: Indices, here_W: Indices, move_W: Bytes) -> None:
        """Moves that have ended at a wall."""
        if not self._remembers:
            return
        bit_W = SHIFTS.take(move_W)
        self._state_K[here_W] = (self._state_K.take(here_W) & ~(MARK << bit_W)) | (BUMPED << bit_W)
        if self._dreams:
            self._stale_W[walker_W] = True  # to a blind robot a wall is news

    def pass_on(self, walker_W: Indices, at_W: Indices, here_W: Indices, move_W: Bytes, to_W: Indices) -> None:
        """Moves from `at_W` to `to_W`: the passage between them is marked at both ends."""
        if not self._remembers:
            return
        state_K = self._state_K
        into_W = here_W + (to_W - at_W)
        fresh = np.flatnonzero(state_K.take(into_W) & NOW == 0)
        if len(fresh):
            self.enter(walker_W.take(fresh), to_W.take(fresh), into_W.take(fresh))
        bit_W, back_W, state_W = SHIFTS.take(move_W), SHIFTS.take(move_W ^ 2), state_K.take(here_W)
        more_W = ((state_W >> bit_W & MARK) < VISITED_2).view(np.uint8)  # both ends of a passage bear the same mark
        state_K[here_W] = state_W + (more_W << bit_W)
        state_K[into_W] = state_K.take(into_W) + (more_W << back_W)

    def dream(self, walker_W: Indices, at_W: Indices, here_W: Indices, marks_W: Ints) -> Dream | None:
        """What each walker dreams in its cell.

        A cell's dream can only change what is done in that cell, so only the one at the robot's own cell is ever looked
        at. The hopeful way is dreamt again when what was sensed since has disproved it.
        """
        if not self._dreams:
            return None
        goal_W = self._goal_W.take(walker_W)
        # An explorer dreams where nothing around it is new; of those who know an exit, each follows its hope.
        dreams_W = goal_W | (((marks_W | marks_W >> 1 | marks_W >> 2) & EACH_MARK) == EACH_MARK)
        told = np.zeros((3, len(at_W)), np.uint8)
        told[2] = NO_EXIT
        some = np.flatnonzero(dreams_W)
        if len(some) == len(at_W):
            told[:] = self._dreamt(walker_W, at_W, here_W, marks_W, goal_W)
        elif len(some):
            told[:, some] = self._dreamt(*_taken(some, walker_W, at_W, here_W, marks_W, goal_W))
        return Dream(*told)

    def _dreamt(
        self, walker_W: Indices, at_W: Indices, here_W: Indices, marks_W: Ints, goal_W: Bools
    ) -> tuple[Bytes, Bytes, Ints]:
        """The fields of Dream for those who dream."""
        there_AW = self._next_AC.take(at_W, axis=1) + (here_W - at_W)
        along_AW = self._along(here_W, there_AW, marks_W)
        again_W = ~along_AW.any(axis=0) & goal_W | self._stale_W.take(walker_W) & ~goal_W
        if again_W.any():
            self._plan(walker_W[again_W])
            along_AW = self._along(here_W, there_AW, marks_W)
        way_W = self._way_K.take(here_W)
        gain_W = np.minimum(way_W - self._hope_K.take(here_W), MOST_GAIN)
        gain_W[way_W == UNREACHABLE] = NO_WAY
        gain_W[~goal_W] = NO_EXIT
        return _set(self._way_K.take(there_AW) == way_W - 1), _set(along_AW & (gain_W > 0)), gain_W

    def _along(self, here_W: Indices, there_AW: Indices, marks_W: Ints) -> Bools:
        """[A, W] which moves follow the hopeful way, as it was dreamt last."""
        along_AW: Bools = self._hope_K.take(there_AW) == self._hope_K.take(here_W) - 1
        if not self._sight.policy.radius:
            along_AW &= (marks_W >> SHIFT_A1 & MARK) != BUMPED
        return along_AW

    def _plan(self, walkers: Indices) -> None:
        """Dreams anew of the ways of some walkers, from all that each knows by now."""
        policy, kind_C = self._sight.policy, self._sight.mazes.cell_C
        for group, (rows, columns) in ways.by_shape(self._shape_W2[walkers]):
            cells = self._base_W[walkers[group], None] + np.arange(rows * columns)
            grid = (len(group), rows, columns)
            state = self._state_K.take(cells)
            known = self._visited_K.take(cells) | (state // NOW & 1).astype(np.uint8) * np.uint8(ways.VISITED)
            if not policy.radius:
                for move in range(A):
                    known |= ((state >> MARK_BITS * move & MARK) == BUMPED).astype(np.uint8) << move
            kind, known = kind_C.take(self._cell_K.take(cells)).reshape(grid), known.reshape(grid)
            hope = ways.hopeful_way(kind, known, policy.radius, policy.compass)
            self._hope_K[cells] = hope.reshape(cells.shape)
        self._stale_W[walkers] = False


def marked(sight: Sight, visited_C: Kinds) -> Ints:
    """[C] what a walker remembers of each cell as its attempt begins."""
    been_C = (visited_C & ways.VISITED) != 0
    state_C: Ints = been_C * np.int32(BEFORE)
    here_C = np.arange(len(visited_C))
    for move, there_C in enumerate(sight.mazes.ahead_CA.T):
        shut_C = there_C == here_C if sight.policy.radius else visited_C >> move & 1 > 0
        mark_C = np.where(shut_C, BUMPED, np.where(there_C != here_C, been_C[there_C] * EARLIER, NEVER))
        state_C |= mark_C.astype(np.int32) << MARK_BITS * move
    return state_C


def _set(move_AW: Bools) -> Bytes:
    """[W] a set of moves, one bit each."""
    packed: Bytes = (move_AW * BIT_A1).sum(axis=0, dtype=np.uint8)
    return packed
