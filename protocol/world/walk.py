"""Attempts: where moves lead, what the robot senses and remembers on the way, and which ways it dreams of.

Actors walk with a policy that draws the moves; the learner walks again with the moves that an actor sent. Both get the
same cells, observations and dreams, for nothing else decides them.
"""

# M mazes, C cells of all mazes, E attempts at each, W = M*E walkers, K cells of all walkers (each has a copy of its maze),
# N steps of all attempts one after another, A moves

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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

Floats = npt.NDArray[np.float32]

A = len(MOVES)
BIT_A = (1 << np.arange(A)).astype(np.uint8)[:, None]  # of each move in a set of moves
MARK = (1 << MARK_BITS) - 1
NOW, BEFORE = 1 << MARK_BITS * A, 2 << MARK_BITS * A  # of a cell, beside its marks: visited in this attempt, in one before
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
class Here:
    """What the walkers that are still on their way have before them at one step."""

    time: int  # t, from 0
    walker_W: Indices  # which of all walkers they are
    at_W: Indices  # row of the cell among the C
    row_W: Ints  # number of the observation
    known_W: Bytes  # the set of moves, one bit each, that follow the known way; 0: there is none
    hope_W: Bytes  # the same of the hopeful way; 0: it is no shorter, or there is none
    gain_W: Bytes  # steps by which the hopeful way is shorter, MOST_GAIN at most; or NO_WAY, or NO_EXIT


Choose = Callable[[Here], tuple[Bytes, Floats]]  # [W] a move for each, and its log-probability


@dataclass(frozen=True)
class Walk:
    """What happened in E attempts at each of M mazes, one after another: by maze, attempt, time."""

    length_W: Ints  # [W] steps: until an exit or a trap, or the horizon
    end_W: Indices  # [W] row of the cell, among the C, where the attempt ended
    move_N: Bytes  # [N] the moves
    log_prob_N: Floats  # [N] the log-probability that each was drawn with
    at_N: Indices  # [N] row of the cell, among the C, before the move
    row_N: Ints  # [N] number of the observation
    known_N: Bytes  # [N] these three as in `Here`
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
    mazes, ahead_CA = sight.mazes, sight.mazes.ahead_CA
    kind_C = mazes.cell_C
    memory = _Memory(sight, known, attempts)
    walker_W = np.arange(len(mazes) * attempts)
    at_W = np.repeat(mazes.first_M, attempts)
    horizon_W = np.repeat(horizon_M, attempts)
    length_W, end_W = horizon_W.copy(), at_W.copy()
    last_W = np.full(len(at_W), NO_MOVE, np.int32)
    memory.enter(walker_W, at_W)
    told: list[tuple[Indices, ...]] = []
    most = int(horizon_W.max())
    for time in range(most):
        row_W = met.rows(at_W, last_W, memory.marks(walker_W, at_W))
        here = Here(time, walker_W, at_W, row_W, *memory.dream(walker_W, at_W))
        move_W, log_prob_W = choose(here)
        told.append((walker_W, at_W, row_W, here.known_W, here.hope_W, here.gain_W, move_W, log_prob_W))
        to_W = ahead_CA[at_W, move_W]
        memory.pass_on(walker_W, at_W, move_W, to_W)
        last_W = np.where(to_W != at_W, move_W, last_W).astype(np.int32)
        kind_W = kind_C[to_W]
        over_W = (kind_W == EXIT) | (kind_W == TRAP) | (horizon_W[walker_W] == time + 1)
        at_W = to_W
        if over_W.any():
            ended = walker_W[over_W]
            length_W[ended], end_W[ended] = time + 1, at_W[over_W]
            going = ~over_W
            walker_W, at_W, last_W = walker_W[going], at_W[going], last_W[going]
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


def _in_order(told: list[tuple[Indices, ...]], length_W: Ints, end_W: Indices) -> Walk:
    """The steps, which were told time by time, attempt after attempt."""
    first_W = np.cumsum(length_W) - length_W
    place = np.concatenate([first_W[step[0]] + time for time, step in enumerate(told)])
    order = np.empty(len(place), np.intp)
    order[place] = np.arange(len(place))
    at_N, row_N, known_N, hope_N, gain_N, move_N, log_prob_N = (
        np.concatenate([step[field] for step in told])[order] for field in range(1, 8)
    )
    return Walk(length_W, end_W, move_N, log_prob_N, at_N, row_N, known_N, hope_N, gain_N)


class _Memory:
    """What every walker remembers, cell by cell, and the ways that it dreams of."""

    def __init__(self, sight: Sight, known: Known, attempts: int) -> None:
        mazes = sight.mazes
        count_W, maze_W = np.repeat(mazes.count_M, attempts), np.repeat(np.arange(len(mazes)), attempts)
        self._sight, self._ahead_AC = sight, np.ascontiguousarray(mazes.ahead_CA.T)
        self._remembers, self._dreams = sight.policy.memory != "none", sight.policy.dreams
        if not self._remembers:
            return
        self._base_W = np.cumsum(count_W) - count_W  # row of each walker's first cell among the K
        self._shift_W = self._base_W - mazes.offset_M[maze_W]  # from a cell's row among the C to that among the K
        self._cell_K = mazes.cells_of(maze_W)  # row of each among the C
        self._state_K = self._marked(known.visited_C)[self._cell_K]
        if self._dreams:
            self._shape_W2 = mazes.shape_M2[maze_W]
            self._beside_AC = np.ascontiguousarray(sight.beside_CA.T)
            self._visited_K, self._way_K = known.visited_C[self._cell_K], known.way_C[self._cell_K]
            self._hope_K = np.full(len(self._cell_K), UNREACHABLE, np.int32)
            self._stale_W = np.ones(len(maze_W), np.bool_)  # whether an explorer has been somewhere new since it dreamt
            goal_C = (mazes.cell_C == EXIT) & (((known.visited_C & ways.VISITED) != 0) | sight.policy.compass)
            goal_M = np.bincount(mazes.maze_C[goal_C], minlength=len(mazes)) > 0
            self._goal_W = goal_M[maze_W]  # whether it knows an exit
            self._plan(np.flatnonzero(self._goal_W))

    def marks(self, walker_W: Indices, at_W: Indices) -> Ints:
        """[W] the marks of the four directions, MARK_BITS each."""
        if not self._remembers:
            return np.zeros(len(at_W), np.int32)
        marks: Ints = self._state_K[at_W + self._shift_W[walker_W]] & ALL_MARKS
        return marks

    def enter(self, walker_W: Indices, at_W: Indices) -> None:
        """Cells that are visited for the first time in this attempt: their neighbours' marks say so from now on."""
        if not self._remembers:
            return
        state_K, shift_W = self._state_K, self._shift_W[walker_W]
        here_W = at_W + shift_W
        raised_W = np.where(state_K[here_W] & BEFORE, VISITED_0 - EARLIER, VISITED_0 - NEVER)
        state_K[here_W] |= NOW
        for move in range(A):
            there_W = self._ahead_AC[move, at_W]
            state_K[there_W + shift_W] += np.where(there_W != at_W, raised_W << MARK_BITS * (move ^ 2), 0)
        if self._dreams:
            self._stale_W[walker_W] = True

    def pass_on(self, walker_W: Indices, at_W: Indices, move_W: Bytes, to_W: Indices) -> None:
        """Moves from `at_W` to `to_W`: passages are marked at both ends, bumps where they happened."""
        if not self._remembers:
            return
        state_K, shift_W = self._state_K, self._shift_W[walker_W]
        from_W, into_W = at_W + shift_W, to_W + shift_W
        bit_W, back_W = MARK_BITS * move_W.astype(np.int32), MARK_BITS * (move_W ^ 2).astype(np.int32)
        moved_W = to_W != at_W
        if not moved_W.all():
            if not self._sight.policy.radius:
                bumped = ~moved_W
                rows, bits = from_W[bumped], bit_W[bumped]
                state_K[rows] = (state_K[rows] & ~(MARK << bits)) | (BUMPED << bits)
            if not moved_W.any():
                return
            walker_W, to_W = walker_W[moved_W], to_W[moved_W]
            from_W, into_W, bit_W, back_W = from_W[moved_W], into_W[moved_W], bit_W[moved_W], back_W[moved_W]
        fresh_W = state_K[into_W] & NOW == 0
        if fresh_W.any():
            self.enter(walker_W[fresh_W], to_W[fresh_W])
        state_K[from_W] += ((state_K[from_W] >> bit_W & MARK) < VISITED_2).astype(np.int32) << bit_W
        state_K[into_W] += ((state_K[into_W] >> back_W & MARK) < VISITED_2).astype(np.int32) << back_W

    def dream(self, walker_W: Indices, at_W: Indices) -> tuple[Bytes, Bytes, Bytes]:
        """[W] the moves of the known way, those of the hopeful way, and by how much the latter is shorter.

        A cell's dream can only change what is done in that cell, so only the one at the robot's own cell is ever looked
        at. The hopeful way is dreamt again when what was sensed since has disproved it.
        """
        none = np.zeros(len(at_W), np.uint8)
        if not self._dreams:
            return none, none, none
        shift_W = self._shift_W[walker_W]
        here_W = at_W + shift_W
        mark_AW = self._state_K[here_W] >> np.arange(0, MARK_BITS * A, MARK_BITS)[:, None] & MARK
        beside_AW = self._beside_AC[:, at_W]
        if self._sight.policy.radius:
            open_AW = self._ahead_AC[:, at_W] != at_W
        else:
            open_AW = (mark_AW != BUMPED) & (beside_AW != at_W)
        there_AW = beside_AW + shift_W
        goal_W = self._goal_W[walker_W]
        # An explorer dreams where nothing around it is new; of those who know an exit, each follows its hope.
        lost_W = ~(goal_W | ((mark_AW == NEVER) & open_AW).any(axis=0))
        along_AW = (self._hope_K[there_AW] == self._hope_K[here_W] - 1) & open_AW
        again_W = np.where(goal_W, ~along_AW.any(axis=0), lost_W & self._stale_W[walker_W])
        if again_W.any():
            self._plan(walker_W[again_W])
            along_AW = (self._hope_K[there_AW] == self._hope_K[here_W] - 1) & open_AW
        way_W = self._way_K[here_W]
        known_AW = (self._way_K[there_AW] == way_W - 1) & open_AW
        gain_W = np.where(way_W == UNREACHABLE, NO_WAY, np.clip(way_W - self._hope_K[here_W], 0, MOST_GAIN))
        gain_W = np.where(goal_W, gain_W, NO_EXIT)
        along_AW &= lost_W | (goal_W & (gain_W > 0))
        return _set(known_AW), _set(along_AW), gain_W.astype(np.uint8)

    def _plan(self, walkers: Indices) -> None:
        """Dreams anew of the ways of some walkers, from all that each knows by now."""
        policy, kind_C = self._sight.policy, self._sight.mazes.cell_C
        for group, (rows, columns) in ways.by_shape(self._shape_W2[walkers]):
            cells = self._base_W[walkers[group], None] + np.arange(rows * columns)
            grid = (len(group), rows, columns)
            state = self._state_K[cells]
            known = self._visited_K[cells] | np.where(state & NOW, ways.VISITED, 0).astype(np.uint8)
            if not policy.radius:
                for move in range(A):
                    known |= ((state >> MARK_BITS * move & MARK) == BUMPED).astype(np.uint8) << move
            kind, known = kind_C[self._cell_K[cells]].reshape(grid), known.reshape(grid)
            hope = ways.hopeful_way(kind, known, policy.radius, policy.compass)
            self._hope_K[cells] = hope.reshape(cells.shape)
        self._stale_W[walkers] = False

    def _marked(self, visited_C: Kinds) -> Ints:
        """[C] what a walker remembers of each cell as its attempt begins."""
        been_C = (visited_C & ways.VISITED) != 0
        state_C = np.where(been_C, BEFORE, 0).astype(np.int32)
        here_C = np.arange(len(visited_C))
        for move in range(A):
            there_C = self._ahead_AC[move]
            state_C |= np.where(been_C[there_C] & (there_C != here_C), EARLIER << MARK_BITS * move, 0)
            state_C |= np.where(visited_C >> move & 1, BUMPED << MARK_BITS * move, 0)
        return state_C


def _set(move_AW: Bools) -> Bytes:
    """[W] a set of moves, one bit each."""
    packed: Bytes = (move_AW * BIT_A).sum(axis=0, dtype=np.uint8)
    return packed
