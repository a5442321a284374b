"""Observations: a robot's senses and memory at a step. There are few distinct ones, and each gets a number.

An observation is: the walls within the radius, the last move, for each of the four directions a mark of its memory,
and, with a compass, whether the nearest exit lies that way. The marks of this attempt are Trémaux's: how often a
passage has been used (Lucas, "Récréations mathématiques", 1882). A move into a wall that the robot senses, or, if it is
blind, remembers, is never made.
"""

# M mazes, C cells of all mazes, L looks, B cells seen around one, W walkers, U distinct observations, O places for
# observations, of which U are taken, F features of an observation, A moves

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.compiled import compiled, plain
from protocol.config import PolicyConfig
from protocol.world.cells import EXIT, MOVES, NO_MOVE, WALL, A, Bools, Indices, Ints
from protocol.world.maze import Mazes

Keys = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

# The mark of a direction: the robot has never been there; it was there in an earlier attempt; it was there in this
# attempt, through this passage never, once, or more often; a wall that is sensed, or that a blind robot bumped into.
NEVER, EARLIER, VISITED_0, VISITED_1, VISITED_2, BUMPED = range(6)
MARKS = 6
MARK_BITS = 3  # bits of the mark of one direction
LAST = np.arange(NO_MOVE + 1) << MARK_BITS * A  # the last move as it stands in the key of an observation
ALL_MARKS = (1 << MARK_BITS * A) - 1
ONE_HOT = np.eye(NO_MOVE + 1, dtype=np.uint8)
FOUR_MARKS = np.arange(ALL_MARKS + 1)[:, None] >> np.arange(0, MARK_BITS * A, MARK_BITS) & (1 << MARK_BITS) - 1
# The features of every set of four marks: [ALL_MARKS + 1, MARKS * A], 1 where a direction bears a mark.
MARKED = (FOUR_MARKS[:, None, :] == np.arange(MARKS)[:, None]).reshape(-1, MARKS * A).astype(np.uint8)
FIRST_ROOM = 1024  # observations for which there is room at first


@lru_cache
def offsets(radius: int) -> list[tuple[int, int]]:
    """Lists the cells seen around one, as (down, right): B = (2r+1)^2 - 1 of them."""
    reach = range(-radius, radius + 1)
    return [(down, right) for down, right in product(reach, reach) if down or right]


def features(policy: PolicyConfig) -> int:
    """Counts the features of an observation: F."""
    return len(offsets(policy.radius)) + NO_MOVE + 1 + MARKS * A + A * policy.compass


@lru_cache
def turns(policy: PolicyConfig) -> Indices:
    """Says for each move which feature stands in each place [A, F] once the robot is turned so that it is ahead."""
    seen = offsets(policy.radius)
    turned = []
    for move in range(A):
        around = seen
        for _ in range(move):
            around = [(right, -down) for down, right in around]  # up becomes right, right becomes down
        ways = [(way + move) % A for way in range(A)]
        rows = [seen.index(there) for there in around]
        for block in (A + 1, *[A] * MARKS, *[A] * policy.compass):
            first = len(rows)
            rows += [first + way for way in ways]
            rows += [first + A] * (block - A)
        turned.append(rows)
    return np.array(turned)


@dataclass(frozen=True)
class Sight:
    """The senses in each cell of some mazes, without any memory."""

    mazes: Mazes
    policy: PolicyConfig
    look_C: Indices  # [C] the number of what is sensed in each cell
    looks_LB: Bytes  # [L, B] 1 where a cell around is a wall; outside counts as wall
    compass_LA: Bytes  # [L, A] 1 where the nearest exit lies in each direction; without a compass of no columns

    @staticmethod
    def of(mazes: Mazes, policy: PolicyConfig) -> Sight:
        """Computes what a robot with the senses of `policy` would sense in each free cell of `mazes`."""
        wall_C = mazes.cell_C == WALL
        bits = len(offsets(policy.radius))
        sensed = np.empty((mazes.cells, bits + A * policy.compass), np.bool_)  # [C, B], with a compass [C, B + A]
        if not sensed.shape[1]:
            nothing = np.zeros((1, 0), np.uint8)
            return Sight(mazes, policy, np.zeros(mazes.cells, np.intp), nothing, nothing)
        _fill_seen(wall_C, mazes, policy.radius, sensed)
        if policy.compass:
            sensed[:, bits:] = np.stack(_compass(mazes), axis=1)
        sensed[wall_C] = sensed[mazes.first_M[0]]  # nobody stands in a wall
        packed = np.packbits(sensed, axis=1)
        if packed.shape[1] == 1:  # 256 codes need no sorting
            is_met = np.bincount(packed[:, 0], minlength=256) > 0
            look_C = (np.cumsum(is_met) - 1).take(packed[:, 0])
            code_L = np.flatnonzero(is_met).astype(np.uint8)[:, None]
            looks = np.unpackbits(code_L, axis=1, count=sensed.shape[1])
        else:
            whole = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}").reshape(-1)
            _, first, look_C = np.unique(whole, return_index=True, return_inverse=True)
            looks = sensed[first].astype(np.uint8)
        return Sight(mazes, policy, look_C, looks[:, :bits], looks[:, bits:])

    @cached_property
    def beside_CA(self) -> Indices:
        """Returns the row of the cell on each side [C, A], be it free or not; the cell's own row at the border."""
        mazes = self.mazes
        row_C, column_C = mazes.place_C2.T
        rows_C, columns_C = mazes.shape_M2[mazes.maze_C].T
        inside = (row_C > 0, column_C < columns_C - 1, row_C < rows_C - 1, column_C > 0)
        here_C = np.arange(mazes.cells)
        steps = [np.where(ok, down * columns_C + right, 0) for ok, (down, right) in zip(inside, MOVES, strict=True)]
        beside_CA: Indices = here_C[:, None] + np.stack(steps, axis=1)
        return beside_CA


def _fill_seen(wall_C: Bools, mazes: Mazes, radius: int, sensed: Bools) -> None:
    """Fills the first B columns of `sensed`: whether each cell around a cell is a wall; outside counts as one."""
    if machine := compiled("senses"):
        around_B2 = np.array(offsets(radius), np.intp).reshape(-1, 2)
        machine.fill_seen(wall_C, plain(mazes.shape_M2), around_B2, sensed)
        return
    row_C, column_C = mazes.place_C2.T
    rows_C, columns_C = mazes.shape_M2[mazes.maze_C].T
    here_C = np.arange(mazes.cells)
    for around, (down, right) in enumerate(offsets(radius)):
        r, c = row_C + down, column_C + right
        inside = (r >= 0) & (r < rows_C) & (c >= 0) & (c < columns_C)
        sensed[:, around] = ~inside | wall_C[np.where(inside, here_C + down * columns_C + right, here_C)]


def _compass(mazes: Mazes) -> list[Bools]:
    """Says for each move whether the exit with the fewest rows and columns between lies in its direction [C]."""
    place_C2 = mazes.place_C2
    toward_C2 = np.zeros_like(place_C2)
    nearest_C = np.full(mazes.cells, np.iinfo(np.int32).max)
    for exit_row in np.flatnonzero(mazes.cell_C == EXIT):
        maze = mazes.maze_C[exit_row]
        cells = slice(int(mazes.offset_M[maze]), int(mazes.offset_M[maze] + mazes.count_M[maze]))
        apart = place_C2[exit_row] - place_C2[cells]
        steps = np.abs(apart).sum(axis=1)
        nearer = steps < nearest_C[cells]
        nearest_C[cells] = np.where(nearer, steps, nearest_C[cells])
        toward_C2[cells] = np.where(nearer[:, None], apart, toward_C2[cells])
    down_C, right_C = toward_C2.T
    return [down_C < 0, right_C > 0, down_C > 0, right_C < 0]


class Observations:
    """The distinct observations that were met in some mazes, numbered in the order in which they were met."""

    def __init__(self, sight: Sight, by_maze: bool = False) -> None:
        """Starts without any; with `by_maze` each maze numbers its own, since each maze has a network of its own."""
        self.sight, self._by_maze = sight, by_maze
        looks = len(sight.looks_LB)
        # The key of an observation: its look, its last move and its marks, one after another.
        self.look_C: Keys = (sight.look_C + looks * sight.mazes.maze_C * by_maze) * (NO_MOVE + 1) << MARK_BITS * A
        size = looks * (len(sight.mazes) if by_maze else 1) * (NO_MOVE + 1) << MARK_BITS * A
        self.seen_of = np.zeros(size, np.int32)  # [keys] the number + 1 of each observation; 0: not met so far
        self.key_O = np.zeros(FIRST_ROOM, np.int64)  # [O] the key of each that was met, and room for more
        self.count = 0  # U

    def numbers(self, at_W: Indices, last_W: npt.NDArray[Any], marks_W: Ints) -> Ints:
        """Numbers observations [W]: each in a cell, with a last move (NO_MOVE: none) and the marks of memory."""
        key_W = self.look_C.take(at_W) + LAST.take(last_W) + marks_W
        seen_W = self.seen_of.take(key_W)
        if not seen_W.all():
            fresh = np.unique(key_W[seen_W == 0])
            begin, self.count = self.count, self.count + len(fresh)
            while self.count > len(self.key_O):
                self.make_room()
            self.key_O[begin : self.count] = fresh
            self.seen_of[fresh] = np.arange(begin + 1, self.count + 1)
            seen_W = self.seen_of.take(key_W)
        return seen_W - 1

    def make_room(self) -> None:
        """Makes room for twice as many observations."""
        self.key_O = np.concatenate((self.key_O, np.zeros_like(self.key_O)))

    def order(self) -> tuple[Indices, Ints]:
        """Returns the numbers in an order [U] that does not depend on when they were met, and the place of each [U]."""
        order_U = np.argsort(self.key_O[: self.count])
        rank_U = np.empty(self.count, np.int32)
        rank_U[order_U] = np.arange(self.count)
        return order_U, rank_U

    def features(self, seen_U: Indices | None = None) -> Bytes:
        """Returns the features [U, F], 0 or 1, of the observations with these numbers, or of all."""
        key_U = self._keys(seen_U)
        look_U, last_U = np.divmod(key_U >> MARK_BITS * A, NO_MOVE + 1)
        look_U %= len(self.sight.looks_LB)
        around_UB, compass_UA = self.sight.looks_LB.take(look_U, axis=0), self.sight.compass_LA.take(look_U, axis=0)
        return described(around_UB, last_U, key_U & ALL_MARKS, compass_UA)

    def mazes(self, seen_U: Indices | None = None) -> Indices | None:
        """Returns the maze of each observation [U] with these numbers, or of all; None where mazes share them."""
        if not self._by_maze:
            return None
        return (self._keys(seen_U) >> MARK_BITS * A) // ((NO_MOVE + 1) * len(self.sight.looks_LB))

    def _keys(self, seen_U: Indices | None) -> Keys:
        """Returns the keys [U] of the observations with these numbers, or of all."""
        return self.key_O[: self.count] if seen_U is None else self.key_O[seen_U]


def described(around_UB: Bytes, last_U: npt.NDArray[Any], marks_U: npt.NDArray[Any], compass_UA: Bytes) -> Bytes:
    """Returns the features [U, F] of observations: what is sensed around, last moves, marks, and the compass."""
    blocks = around_UB, ONE_HOT.take(last_U, axis=0), MARKED.take(marks_U, axis=0), compass_UA
    return np.concatenate(blocks, axis=1)


def open_moves(feature_UF: Bytes, policy: PolicyConfig) -> Bools:
    """Says which moves do not lead into a wall that is sensed or remembered [U, A]."""
    seen = offsets(policy.radius)
    bumped = len(seen) + NO_MOVE + 1 + BUMPED * A
    shut_UA = feature_UF[:, bumped : bumped + A]
    if policy.radius:
        shut_UA = shut_UA | feature_UF[:, [seen.index(step) for step in MOVES]]
    open_UA: Bools = shut_UA == 0
    return open_UA
