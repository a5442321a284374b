"""Minds, which choose moves by what they know of a maze and learn nothing from others, and the yardstick among them.

The yardstick is an explorer that goes depth first and forgets nothing (Lucas, "Récréations mathématiques", 1882,
after Trémaux).
"""

# M mazes, C cells of all mazes, W = M walkers, T steps of an attempt, O places for observations, A moves

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from protocol.config import PolicyConfig
from protocol.world import ways
from protocol.world.cells import BACK, TRAP, Bools, Indices, Ints
from protocol.world.maze import Mazes
from protocol.world.memory import MARK, SHIFT_A, Known
from protocol.world.senses import ALL_MARKS, BUMPED, EARLIER, NEVER, Bytes, Observations, Sight
from protocol.world.walk import Here, Walk, learned, walk

SENSES = PolicyConfig(radius=1, memory="attempts", dreams=False)  # the yardstick's, whatever a policy senses


class Mind(Protocol):
    """The way in which moves are chosen."""

    def begin(self, known: Known) -> None:
        """Begins an attempt, with what is known from earlier ones."""

    def choose(self, here: Here) -> Bytes:
        """Returns a move for each walker that is still on its way [W]."""


class World:
    """The mazes, as a mind senses and remembers them."""

    def __init__(self, mazes: Mazes, policy: PolicyConfig, rng: np.random.Generator) -> None:
        self.mazes, self.policy, self.rng = mazes, policy, rng
        self.sight = Sight.of(mazes, policy)
        self.met = Observations(self.sight)
        # A blind robot does not know which of the cells beside it are walls.
        self.next_CA = mazes.ahead_CA if policy.radius else self.sight.beside_CA

    def marks(self, here: Here) -> Ints:
        """Returns the mark of memory that each direction bears [A, W]."""
        marks_W = self.met.key_O.take(here.seen_W) & ALL_MARKS
        marks_AW: Ints = (marks_W >> SHIFT_A[:, None] & MARK).astype(np.int32)
        return marks_AW

    def next(self, here: Here) -> Indices:
        """Returns the row of the cell that each move is thought to lead to [A, W]."""
        return np.ascontiguousarray(self.next_CA.take(here.at_W, axis=0).T)

    def any_of(self, wanted_AW: Bools) -> Bytes:
        """Draws one of the wanted moves of each walker [W], and any move where none is wanted."""
        chance_AW = self.rng.random(wanted_AW.shape) + wanted_AW
        move_W: Bytes = chance_AW.argmax(axis=0).astype(np.uint8)
        return move_W


class DepthFirst:
    """Explores depth first until an exit is found, then takes the best way that it knows.

    It enters any neighbour where it has not been in this attempt, and goes back on its trail where there is none.
    """

    def __init__(self, world: World) -> None:
        mazes = world.mazes
        self._world = world
        self._trail_WT = np.zeros((len(mazes), int(mazes.count_M.max()) + 1), np.uint8)
        self._way_C, self._dead_C = np.zeros(0, np.int32), np.zeros(0, np.bool_)

    def begin(self, known: Known) -> None:
        """Begins an attempt at the start, where the trail is empty."""
        mazes = self._world.mazes
        self._way_C = known.way_C
        self._dead_C = (known.visited_C & ways.VISITED > 0) & (mazes.cell_C == TRAP)
        self._depth_W = np.zeros(len(mazes), np.intp)
        self._from_W = np.full(len(mazes), -1)  # the cell that a new one was to be entered from

    def choose(self, here: Here) -> Bytes:
        """Returns a move for each walker [W]."""
        world, who_W, next_AW, marks_AW = self._world, here.walker_W, self._world.next(here), self._world.marks(here)
        self._depth_W[who_W] -= self._from_W[who_W] == here.at_W  # a blind robot has bumped, and stands where it stood
        new_AW = ((marks_AW == NEVER) | (marks_AW == EARLIER)) & ~self._dead_C.take(next_AW)
        fresh_W, depth_W = new_AW.any(axis=0), self._depth_W.take(who_W)
        back_W = self._trail_WT[who_W, depth_W - 1] ^ BACK
        home_AW = marks_AW != BUMPED  # for a walker at the start with nothing new, which has missed what it looks for
        move_W = np.where(depth_W > 0, back_W, world.any_of(home_AW))
        move_W = np.where(fresh_W, world.any_of(new_AW), move_W).astype(np.uint8)
        known_AW = follows(self._way_C, next_AW, here.at_W)
        knows_W = known_AW.any(axis=0)
        self._trail_WT[who_W, depth_W] = move_W
        self._depth_W[who_W] = np.where(fresh_W, depth_W + 1, np.maximum(depth_W - 1, 0))
        self._from_W[who_W] = np.where(fresh_W, here.at_W, -1)
        return np.where(knows_W, world.any_of(known_AW), move_W).astype(np.uint8)


def attempts(world: World, mind: Mind, horizon_M: Ints, count: int) -> Iterator[Walk]:
    """Yields `count` attempts of a mind, one at each maze at a time; it knows all that the earlier ones have shown."""
    known = Known.nothing(world.mazes.cells)
    for _ in range(count):
        mind.begin(known)
        made = walk(world.sight, world.met, known, 1, horizon_M, mind.choose)
        yield made
        known = learned(world.sight, known, made)


def explored(mazes: Mazes, horizon_M: Ints, rng: np.random.Generator) -> Iterator[Walk]:
    """Yields the yardstick's attempts at each maze: the one in which it explores, and then the one that follows it."""
    world = World(mazes, SENSES, rng)
    return attempts(world, DepthFirst(world), horizon_M, 2)


def follows(steps_C: Ints, next_AW: Indices, at_W: Indices) -> Bools:
    """Says which moves lead one step nearer [A, W]. `steps_C`: steps from each cell; UNREACHABLE without a way."""
    nearer_AW: Bools = steps_C.take(next_AW) == steps_C.take(at_W) - 1
    return nearer_AW
