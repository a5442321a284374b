"""Robots in mazes, which all move at once, while each begins and ends its episodes for itself: `clew.gym`'s inside.

What a move does, and what a robot senses and remembers, is decided by what actors and learner walk with.
"""

# W walkers, each a robot in a maze of its own, Y cells of all walkers, M mazes, C cells of all mazes, L looks,
# B cells seen around one, F features of an observation, A moves

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.config import ClewError, Config
from protocol.learning.credit import horizons
from protocol.world.cells import EXIT, FREE, NO_MOVE, A, Bools, Indices, Ints, Kinds
from protocol.world.maze import Mazes, shortest_M
from protocol.world.memory import BEFORE, NOW, SHIFT_A, enter, mark, marked
from protocol.world.senses import (
    ALL_MARKS,
    BUMPED,
    EARLIER,
    FOUR_MARKS,
    ONE_HOT,
    Bytes,
    Sight,
    described,
    features,
    offsets,
    open_moves,
)

TOLD = A + 2  # where an episode has several attempts: the move before, its reward, and whether it ended an attempt
# What becomes of four marks as the next attempt begins: walls stay, and what was visited has been visited earlier.
NEXT_MARKS = (np.where(FOUR_MARKS == BUMPED, BUMPED, np.minimum(FOUR_MARKS, EARLIER)) << SHIFT_A).sum(1, np.int32)

Bits = npt.NDArray[np.int8]  # 0 or 1
Wide = npt.NDArray[np.float64]


class Robots:
    """W robots, each in a maze of its own; an episode is one attempt at it, or several.

    The cells of a robot's maze are rows among the Y, where every robot has room for the largest maze.
    """

    over_W: Bools  # the episode has ended, or has not begun
    way_W: list[list[int]]  # the cells, row * columns + column, of the attempt until now, where ways are kept

    def __init__(self, robots: int, room: int, attempts: int, config: Config, *, keeps_ways: bool) -> None:
        """Makes robots that are nowhere so far.

        Args:
          robots: W.
          room: cells of the largest maze.
          attempts: how many attempts an episode has.
          config: says what robots sense and remember, and how many steps an attempt may have.
          keeps_ways: remembers the ways of attempts, to be looked at.
        """
        policy = config.policy
        self._config, self._attempts, self._keeps_ways = config, attempts, keeps_ways
        self._remembers, self._around = policy.memory != "none", len(offsets(policy.radius))
        self.bits = features(policy) + TOLD * (attempts > 1)  # of what a robot is told at a step
        cells = robots * room
        self._kind_Y: Kinds = np.zeros(cells, np.uint8)
        self._ahead_AY: Indices = np.zeros((A, cells), np.intp)
        self._sensed_YF: Bytes = np.zeros((cells, self._around + A * policy.compass), np.uint8)
        self._state_Y: Ints = np.zeros(cells, np.int32)  # the memory
        self._first_W: Indices = np.arange(robots) * room  # row of each robot's first cell among the Y
        self._start_W, self._at_W, self._shortest_W = np.zeros((3, robots), np.intp)
        self._attempt_W, self._time_W, self._horizon_W = np.zeros((3, robots), np.intp)
        self._columns_W = np.ones(robots, np.intp)
        self._last_W = np.zeros(robots, np.uint8)
        self._told_WF = np.zeros((robots, TOLD), np.uint8)
        self.over_W = np.ones(robots, np.bool_)
        self.way_W = [[] for _ in range(robots)]

    def begin(self, robots: Indices, mazes: Mazes) -> None:
        """Puts some robots where their new mazes start, of which they know nothing. `robots`: their numbers."""
        sight, first_M = Sight.of(mazes, self._config.policy), self._first_W[robots]
        cells = np.arange(mazes.cells) + (first_M - mazes.offset_M).repeat(mazes.count_M)  # row of each C among the Y
        self._kind_Y[cells] = mazes.cell_C
        self._ahead_AY[:, cells] = cells[mazes.ahead_CA.T]
        self._sensed_YF[cells] = np.hstack((sight.looks_LB, sight.compass_LA))[sight.look_C]
        if self._remembers:
            self._state_Y[cells] = marked(sight, np.zeros(mazes.cells, np.uint8))
        self._start_W[robots], self._columns_W[robots] = first_M + mazes.start_M, mazes.shape_M2[:, 1]
        self._shortest_W[robots], self._horizon_W[robots] = shortest_M(mazes), horizons(mazes, self._config)
        self._attempt_W[robots], self._told_WF[robots], self.over_W[robots] = 0, 0, False
        self._start(robots)

    def go(self, move_W: npt.NDArray[Any]) -> tuple[Wide, Bools, Bools]:
        """Moves all robots: returns rewards, and whose episodes have ended, in time or too late.

        Those whose episodes had ended before move too, and what is returned of them means nothing.
        """
        is_whole = move_W.shape == self.over_W.shape and move_W.dtype.kind in "iu"
        if not is_whole or not ((move_W >= 0) & (move_W < A)).all():
            raise ClewError(f"{len(self.over_W)} moves, each from 0 to {A - 1}, are wanted, got {move_W.tolist()}")
        move_W, at_W = move_W.astype(np.uint8), self._at_W
        to_W = self._ahead_AY[move_W, at_W]
        if self._remembers:
            mark(self._state_Y, self._ahead_AY, at_W, at_W, move_W, to_W)
        self._last_W = np.where(to_W != at_W, move_W, self._last_W)
        self._at_W, self._time_W = to_W, self._time_W + 1
        if self._keeps_ways:
            for way, cell in zip(self.way_W, self.cell_W.tolist(), strict=True):
                way.append(cell)
        kind_W = self._kind_Y.take(to_W)
        found_W, done_W = kind_W == EXIT, (kind_W != FREE) | (self._time_W >= self._horizon_W)
        if self._attempts > 1:
            self._told_WF = np.column_stack((ONE_HOT[move_W, :A], found_W, done_W))
        self.over_W = done_W & (self._attempt_W + 1 >= self._attempts)
        again_W = done_W & ~self.over_W
        if again_W.any():
            self._begin_again(np.flatnonzero(again_W))
        late_W = self.over_W & (kind_W == FREE)
        return found_W.astype(np.float64), self.over_W & ~late_W, late_W

    def seen(self) -> tuple[Bits, dict[str, npt.NDArray[Any]]]:
        """Returns what each robot observes [W, F], and what else there is to know, each an array [W, ...]."""
        sensed_WF, marks_W = self._sensed_YF.take(self._at_W, axis=0), self._state_Y.take(self._at_W) & ALL_MARKS
        feature_WF = described(sensed_WF[:, : self._around], self._last_W, marks_W, sensed_WF[:, self._around :])
        info: dict[str, npt.NDArray[Any]] = {
            "action_mask": open_moves(feature_WF, self._config.policy).astype(np.int8),
            "attempt": self._attempt_W.copy(),
            "cell": np.stack(np.divmod(self.cell_W, self._columns_W), axis=1),
            "shortest": self._shortest_W.copy(),
        }
        observation_WF = np.hstack((feature_WF, self._told_WF)) if self._attempts > 1 else feature_WF
        return observation_WF.view(np.int8), info

    @property
    def cell_W(self) -> Indices:
        """Returns where the robots are [W]: row * columns + column."""
        return self._at_W - self._first_W

    def _begin_again(self, robots: Indices) -> None:
        """Begins the next attempt of some robots, which remember what they have learned."""
        room = len(self._state_Y) // len(self._first_W)
        cells = self._first_W[robots, None] + np.arange(room)
        state = self._state_Y.take(cells)
        self._state_Y[cells] = NEXT_MARKS.take(state & ALL_MARKS) | (state >= NOW) * np.int32(BEFORE)
        self._attempt_W[robots] += 1
        self._start(robots)

    def _start(self, robots: Indices) -> None:
        """Begins an attempt of some robots."""
        start_W = self._start_W[robots]
        self._at_W[robots], self._last_W[robots], self._time_W[robots] = start_W, NO_MOVE, 0
        if self._remembers:
            enter(self._state_Y, self._ahead_AY, start_W, start_W)
        if self._keeps_ways:
            for robot, cell in zip(robots.tolist(), self.cell_W[robots].tolist(), strict=True):
                self.way_W[robot] = [cell]
