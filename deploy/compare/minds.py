"""Rivals that do not learn from other mazes and compute no gradient: each move follows from what they know of this one.

They have the senses that the config gives to the robot: the walls within its radius; or, at radius 0, those that it has
bumped into. A trap on which an attempt has ended is remembered. Among moves that are equally good, one is drawn.
"""

# M mazes, C cells of all mazes, W = M walkers, A moves, T steps of an attempt, O places for observations

from __future__ import annotations

from typing import Protocol

import numpy as np

from deploy.compare.played import Played
from deploy.study.exam import Exam
from protocol.config import PolicyConfig
from protocol.world import ways
from protocol.world.cells import BACK, EXIT, TRAP, UNREACHABLE, A, Bools, Floats, Indices, Ints, Kinds
from protocol.world.memory import MARK, SHIFT_A, Known
from protocol.world.senses import ALL_MARKS, BUMPED, EARLIER, NEVER, Bytes, Observations, Sight
from protocol.world.walk import Here, learned, walk

NEW_CELL = 1000  # steps that a cautious planner makes to avoid a cell where it has never been


class Mind(Protocol):
    """The way in which a rival chooses its moves."""

    def begin(self, known: Known) -> None:
        """Begins an attempt, with what is known from earlier ones."""

    def choose(self, here: Here) -> Bytes:
        """Returns a move for each walker that is still on its way [W]."""


class World:
    """The mazes, as a rival without fast weights senses and remembers them."""

    def __init__(self, exam: Exam, policy: PolicyConfig, rng: np.random.Generator) -> None:
        self.mazes, self.policy, self.rng = exam.mazes, policy, rng
        self.sight = Sight.of(exam.mazes, policy)
        self.met = Observations(self.sight)
        # A blind robot does not know which of the cells beside it are walls.
        self.next_CA = exam.mazes.ahead_CA if policy.radius else self.sight.beside_CA

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


def attempts(world: World, mind: Mind, exam: Exam, count: int) -> Played:
    """Lets one robot make `count` attempts at each maze."""
    known, walks = Known.nothing(exam.mazes.cells), []
    for _ in range(count):
        mind.begin(known)
        walks.append(walk(world.sight, world.met, known, 1, exam.horizon_M, mind.choose))
        known = learned(world.sight, known, walks[-1])
    return Played.of(walks, exam.mazes, exam.horizon_M)


class RandomWalk:
    """Draws any move that does not lead into a wall that is sensed; it remembers nothing."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self, known: Known) -> None:
        """Begins an attempt; what is known plays no part."""

    def choose(self, here: Here) -> Bytes:
        """Returns a move for each walker [W]."""
        open_AW = self._world.marks(here) != BUMPED
        if not self._world.policy.radius:
            open_AW[:] = True
        return self._world.any_of(open_AW)


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


class Planner:
    """Follows the shortest way to the exit if all that it has never sensed were free, and plans again with each fact.

    That is the free-space assumption of D* Lite and of the flood fill of micromouse robots. While it knows no exit, it
    goes to the nearest cell where it has never been.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._hope_C = np.full(world.mazes.cells, UNREACHABLE, np.int32)
        self._fact_C = np.zeros(0, np.uint8)

    def begin(self, known: Known) -> None:
        """Begins an attempt with a plan from all that is known."""
        self._fact_C = known.visited_C.copy()
        self._at_W = np.full(len(self._world.mazes), -1)
        self._move_W = np.zeros(len(self._world.mazes), np.uint8)
        self._plan(np.arange(len(self._world.mazes)))

    def choose(self, here: Here) -> Bytes:
        """Returns a move for each walker [W]."""
        world, who_W = self._world, here.walker_W
        before_W = self._fact_C.take(here.at_W)
        bump_W = (self._at_W.take(who_W) == here.at_W) & (world.policy.radius == 0)
        now_W = before_W | ways.VISITED | (bump_W << self._move_W.take(who_W)).astype(np.uint8)
        self._fact_C[here.at_W] = now_W
        self._plan(who_W[now_W != before_W])
        next_AW = world.next(here)
        hope_AW = self._hope_C.take(next_AW)
        hope_AW[(now_W >> np.arange(A)[:, None] & 1 > 0) | (next_AW == here.at_W)] = UNREACHABLE
        move_W = world.any_of(hope_AW == hope_AW.min(axis=0))
        self._at_W[who_W], self._move_W[who_W] = here.at_W, move_W
        return move_W

    def _plan(self, some: Indices) -> None:
        """Plans anew in some of the mazes."""
        mazes = self._world.mazes
        for group, (rows, columns) in ways.by_shape(mazes.shape_M2[some]):
            cells = mazes.offset_M[some[group], None] + np.arange(rows * columns)
            kind, fact = (part_C.take(cells).reshape(-1, rows, columns) for part_C in (mazes.cell_C, self._fact_C))
            self._hope_C[cells] = self._dreamt(kind, fact).reshape(cells.shape)

    def _dreamt(self, kind: Kinds, fact: Kinds) -> Ints:
        """Counts the steps to the goal from each cell of some mazes of one size."""
        return ways.hopeful_way(kind, fact, self._world.policy.radius, self._world.policy.compass)


class CautiousPlanner(Planner):
    """Plans as a planner does, but takes the way with the fewest cells where it has never been, the shortest of these.

    Where it has never been there may be a trap; once it has walked to an exit, it keeps to the best way that it knows.
    """

    def _dreamt(self, kind: Kinds, fact: Kinds) -> Ints:
        """Counts what a way to the goal costs, entering the cell included: Bellman and Ford's relaxation."""
        policy, (count, rows, columns) = self._world.policy, kind.shape
        visited, shut = fact & ways.VISITED > 0, ways.closed(kind, fact, policy.radius)
        goal = (kind == EXIT) & (visited | policy.compass)
        goal |= ~goal.any(axis=(1, 2), keepdims=True) & ~visited & ~shut
        enter = np.where(visited, 1, NEW_CELL).astype(np.int32)
        framed = np.full((count, rows + 2, columns + 2), UNREACHABLE, np.int32)
        cost, before = framed[:, 1:-1, 1:-1], np.zeros(0, np.int32)
        cost[goal] = enter[goal]
        while not np.array_equal(cost, before):
            before = cost.copy()
            upright = np.minimum(framed[:, :-2, 1:-1], framed[:, 2:, 1:-1])
            beside = np.minimum(upright, np.minimum(framed[:, 1:-1, :-2], framed[:, 1:-1, 2:]))
            better = ~shut & ~goal & (beside < UNREACHABLE)
            cost[better] = (enter + beside.clip(max=UNREACHABLE - NEW_CELL))[better]
        return cost.copy()


class RealTimeSearch:
    """Goes where one step more and the estimate from there are least, and raises the estimate of the cell it leaves.

    The estimates of steps to an exit begin at 0; or, with a compass, at the rows and columns between.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.estimate_C: Floats = np.zeros(world.mazes.cells, np.float32)
        if world.policy.compass:
            self.estimate_C = apart(world)

    def begin(self, known: Known) -> None:
        """Begins an attempt; no way leads through a trap that is known."""
        dead_C = (known.visited_C & ways.VISITED > 0) & (self._world.mazes.cell_C == TRAP)
        self.estimate_C[dead_C] = np.inf

    def choose(self, here: Here) -> Bytes:
        """Returns a move for each walker [W]."""
        world, next_AW = self._world, self._world.next(here)
        cost_AW = 1 + self.estimate_C.take(next_AW)
        cost_AW[(world.marks(here) == BUMPED) | (next_AW == here.at_W)] = np.inf
        least_W = cost_AW.min(axis=0)
        self.estimate_C[here.at_W] = np.maximum(self.estimate_C.take(here.at_W), least_W)
        return world.any_of(cost_AW == least_W)


def follows(steps_C: Ints, next_AW: Indices, at_W: Indices) -> Bools:
    """Says which moves lead one step nearer [A, W]. `steps_C`: steps from each cell; UNREACHABLE without a way."""
    nearer_AW: Bools = steps_C.take(next_AW) == steps_C.take(at_W) - 1
    return nearer_AW


def apart(world: World) -> Floats:
    """Counts the steps from each cell to the nearest exit if nothing were a wall or a trap [C]."""
    mazes = world.mazes
    open_C = np.ones(mazes.cells, np.bool_)
    steps_C: Floats = np.zeros(mazes.cells, np.float32)
    for group, (rows, columns) in ways.by_shape(mazes.shape_M2):
        cells = mazes.cells_of(group)
        grid = (len(group), rows, columns)
        exit, free = (mazes.cell_C[cells] == EXIT).reshape(grid), open_C[cells].reshape(grid)
        steps_C[cells] = ways.flood(free, exit).reshape(-1)
    return steps_C
