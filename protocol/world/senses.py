"""What the robot senses and remembers at a step: its observation. There are few distinct ones, and each gets a number.

An observation is: the walls within the radius, the last move, for each of the four directions a mark of its memory,
and, with a compass, whether the nearest exit lies that way. The marks of this attempt are Trémaux's: how often a
passage has been used (Lucas, "Récréations mathématiques", 1882). A move into a wall that is sensed, or remembered by
who is blind, is never made.
"""

# M mazes, C cells of all mazes, L looks, B cells seen around one, W walkers, U distinct observations, F features,
# A moves, X sets of four marks

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.config import PolicyConfig
from protocol.world.maze import EXIT, MOVES, NO_MOVE, WALL, Bools, Indices, Ints, Mazes

Keys = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

A = len(MOVES)
# The mark of a direction: nobody has been there; somebody was, in an earlier attempt; visited in this attempt, through
# this passage never, once, or more often; a wall that is sensed here, or that a blind robot has bumped into.
NEVER, EARLIER, VISITED_0, VISITED_1, VISITED_2, BUMPED = range(6)
MARKS = 6
MARK_BITS = 3  # of one direction
LAST = np.arange(NO_MOVE + 1) << MARK_BITS * A  # the last move, as it stands in the key of an observation
ALL_MARKS = (1 << MARK_BITS * A) - 1
ONE_HOT = np.eye(NO_MOVE + 1, dtype=np.uint8)
MARK_XA = np.arange(ALL_MARKS + 1)[:, None] >> np.arange(0, MARK_BITS * A, MARK_BITS) & (1 << MARK_BITS) - 1
MARKED = (MARK_XA[:, None, :] == np.arange(MARKS)[:, None]).reshape(-1, MARKS * A).astype(np.uint8)  # of four marks
FIRST_ROOM = 1024  # observations


@lru_cache
def offsets(radius: int) -> list[tuple[int, int]]:
    """The cells seen around one, as (down, right): B = (2r+1)^2 - 1 of them."""
    reach = range(-radius, radius + 1)
    return [(down, right) for down, right in product(reach, reach) if down or right]


def features(policy: PolicyConfig) -> int:
    """F, how many features an observation has."""
    return len(offsets(policy.radius)) + NO_MOVE + 1 + MARKS * A + A * policy.compass


@lru_cache
def turns(policy: PolicyConfig) -> Indices:
    """[A, F] for each move, which feature stands in each place once the robot is turned so that this move is ahead."""
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
    """What can be sensed in the cells of some mazes without any memory."""

    mazes: Mazes
    policy: PolicyConfig
    look_C: Indices  # [C] the number of what is sensed in each cell
    looks_LB: Bytes  # [L, B] 1 where a cell around is a wall; outside counts as wall
    compass_LA: Bytes  # [L, A] 1 where the nearest exit lies in each direction; 0 without a compass

    @staticmethod
    def of(mazes: Mazes, policy: PolicyConfig) -> Sight:
        """What a robot with the senses of `policy` would sense in each free cell of `mazes`."""
        row_C, column_C = mazes.place_C2.T
        rows_C, columns_C = mazes.shape_M2[mazes.maze_C].T
        wall_C = mazes.cell_C == WALL
        here_C = np.arange(mazes.cells)
        seen = []
        for down, right in offsets(policy.radius):
            r, c = row_C + down, column_C + right
            inside = (r >= 0) & (r < rows_C) & (c >= 0) & (c < columns_C)
            seen.append(~inside | wall_C[np.where(inside, here_C + down * columns_C + right, here_C)])
        sensed = [*seen, *(_compass(mazes) if policy.compass else ())]
        if not sensed:
            none = np.zeros((1, A), np.uint8)
            return Sight(mazes, policy, np.zeros(mazes.cells, np.intp), none[:, :0], none)
        sensed_CX = np.stack(sensed, axis=1)
        sensed_CX[wall_C] = sensed_CX[mazes.first_M[0]]  # nobody stands in a wall
        packed = np.packbits(sensed_CX, axis=1)
        whole = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}").reshape(-1)
        code = packed[:, 0] if packed.shape[1] == 1 else whole
        _, first, look_C = np.unique(code, return_index=True, return_inverse=True)
        looks = sensed_CX[first].astype(np.uint8)
        bits = len(seen)
        compass = looks[:, bits:] if policy.compass else np.zeros((len(looks), A), np.uint8)
        return Sight(mazes, policy, look_C, looks[:, :bits], compass)

    @cached_property
    def beside_CA(self) -> Indices:
        """[C, A] the row of the cell on each side, be it free or not; the cell's own at the border."""
        mazes = self.mazes
        row_C, column_C = mazes.place_C2.T
        rows_C, columns_C = mazes.shape_M2[mazes.maze_C].T
        inside = (row_C > 0, column_C < columns_C - 1, row_C < rows_C - 1, column_C > 0)
        here_C = np.arange(mazes.cells)
        steps = [np.where(ok, down * columns_C + right, 0) for ok, (down, right) in zip(inside, MOVES, strict=True)]
        beside_CA: Indices = here_C[:, None] + np.stack(steps, axis=1)
        return beside_CA


def _compass(mazes: Mazes) -> list[Bools]:
    """For each move, [C] whether the exit nearest to the cell, as the crow flies, lies in its direction."""
    place_C2 = mazes.place_C2
    toward_C2 = np.zeros_like(place_C2)
    nearest_C = np.full(mazes.cells, np.iinfo(np.int32).max)
    exit_N = np.flatnonzero(mazes.cell_C == EXIT)
    for exit_row in exit_N:
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
        """`by_maze`: whether what is alike in two mazes gets two numbers, since each maze has a network of its own."""
        self.sight, self._by_maze = sight, by_maze
        looks = len(sight.looks_LB)
        # The key of an observation: its look, its last move and its marks, one after another.
        self.look_C: Keys = (sight.look_C + looks * sight.mazes.maze_C * by_maze) * (NO_MOVE + 1) << MARK_BITS * A
        size = looks * (len(sight.mazes) if by_maze else 1) * (NO_MOVE + 1) << MARK_BITS * A
        self.row_of = np.zeros(size, np.int32)  # by key, the number + 1; 0: not met so far
        self.key_R = np.zeros(FIRST_ROOM, np.int64)  # of each that was met, and room for more
        self.count = 0  # U

    def rows(self, at_W: Indices, last_W: npt.NDArray[Any], marks_W: Ints) -> Ints:
        """[W] the number of each observation: in a cell, with a last move (NO_MOVE: none) and the marks of memory."""
        key_W = self.look_C.take(at_W) + LAST.take(last_W) + marks_W
        row_W = self.row_of.take(key_W)
        if not row_W.all():
            fresh = np.unique(key_W[row_W == 0])
            begin, self.count = self.count, self.count + len(fresh)
            while self.count > len(self.key_R):
                self.make_room()
            self.key_R[begin : self.count] = fresh
            self.row_of[fresh] = np.arange(begin + 1, self.count + 1)
            row_W = self.row_of.take(key_W)
        return row_W - 1

    def make_room(self) -> None:
        """For as many observations again."""
        self.key_R = np.concatenate((self.key_R, np.zeros_like(self.key_R)))

    def order(self) -> tuple[Indices, Ints]:
        """[U] the numbers in an order that does not depend on when they were met, and [U] the place of each in it."""
        order_U = np.argsort(self.key_R[: self.count])
        rank_U = np.empty(self.count, np.int32)
        rank_U[order_U] = np.arange(self.count)
        return order_U, rank_U

    def features(self, row_U: Indices | None = None) -> Bytes:
        """[U, F] of 0 and 1: the features of the observations with these numbers, or of all."""
        key_U = self._keys(row_U)
        look_U, last_U = np.divmod(key_U >> MARK_BITS * A, NO_MOVE + 1)
        blocks = [
            self.sight.looks_LB.take(look_U % len(self.sight.looks_LB), axis=0),
            ONE_HOT.take(last_U, axis=0),
            MARKED.take(key_U & ALL_MARKS, axis=0),
        ]
        if self.sight.policy.compass:
            blocks.append(self.sight.compass_LA.take(look_U % len(self.sight.looks_LB), axis=0))
        return np.concatenate(blocks, axis=1)

    def mazes(self, row_U: Indices | None = None) -> Indices | None:
        """[U] the maze of each observation with these numbers, or of all; None where mazes share them."""
        if not self._by_maze:
            return None
        return (self._keys(row_U) >> MARK_BITS * A) // ((NO_MOVE + 1) * len(self.sight.looks_LB))

    def _keys(self, row_U: Indices | None) -> Keys:
        """[U]"""
        return self.key_R[: self.count] if row_U is None else self.key_R[row_U]


def open_moves(feature_UF: Bytes, policy: PolicyConfig) -> Bools:
    """[U, A] which moves do not lead into a wall that is sensed or remembered."""
    seen = offsets(policy.radius)
    bumped = len(seen) + NO_MOVE + 1 + BUMPED * A
    shut_UA = feature_UF[:, bumped : bumped + A]
    if policy.radius:
        shut_UA = shut_UA | feature_UF[:, [seen.index(step) for step in MOVES]]
    open_UA: Bools = shut_UA == 0
    return open_UA
