"""One robot in one drawn maze, one cell at a time: the slow and obvious form of protocol.world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from protocol.config import PolicyConfig
from protocol.world.cells import EXIT, FREE, TRAP, WALL
from protocol.world.maze import Mazes

Cell = tuple[int, int]  # row, column

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
NO_MOVE = 4
KIND = {"S": FREE, ".": FREE, "#": WALL, "E": EXIT, "H": TRAP}
FAR = 2**31 - 1  # the distance where there is no way
NEVER, EARLIER, VISITED_0, VISITED_1, VISITED_2, BUMPED = range(6)
MOST_GAIN, NO_WAY, NO_EXIT = 31, 32, 33


class Drawing:
    """A maze as its text says."""

    def __init__(self, text: str) -> None:
        rows = text.split("\n")
        self.rows, self.columns = len(rows), len(rows[0])
        self.mark = {(i, j): mark for i, row in enumerate(rows) for j, mark in enumerate(row)}
        (self.start,) = (cell for cell, mark in self.mark.items() if mark == "S")
        self.exits = {cell for cell, mark in self.mark.items() if mark == "E"}
        self.traps = {cell for cell, mark in self.mark.items() if mark == "H"}
        self.walls = {cell for cell, mark in self.mark.items() if mark == "#"}

    @staticmethod
    def all_of(mazes: Mazes) -> list[Drawing]:
        return [Drawing(mazes.to_text(maze)) for maze in range(len(mazes))]

    @property
    def text(self) -> str:
        return "\n".join("".join(self.mark[i, j] for j in range(self.columns)) for i in range(self.rows))

    @property
    def cells(self) -> list[Cell]:
        return list(self.mark)

    def number(self, cell: Cell) -> int:
        return cell[0] * self.columns + cell[1]

    def beside(self, cell: Cell, move: int) -> Cell | None:
        """The cell on that side, be it free or not; None over the border."""
        down, right = MOVES[move]
        there = cell[0] + down, cell[1] + right
        return there if there in self.mark else None

    def ahead(self, cell: Cell, move: int) -> Cell:
        """Returns the cell that a move leads to: the same one where a wall or the border is in the way."""
        there = self.beside(cell, move)
        return cell if there is None or there in self.walls else there

    def ends(self, cell: Cell) -> bool:
        return cell in self.exits or cell in self.traps

    def distance(self, cell: Cell) -> int:
        """Steps to the nearest exit, by no trap and past no exit."""
        free = set(self.cells) - self.walls - self.traps - self.exits
        return steps_to(self, self.exits, free).get(cell, FAR)

    def seen(self, cell: Cell, radius: int) -> list[bool]:
        """Says whether each of the cells around is a wall or outside; row by row, without the cell itself."""
        around = [(cell[0] + down, cell[1] + right) for down, right in square(radius) if (down, right) != (0, 0)]
        return [there not in self.mark or there in self.walls for there in around]

    def compass(self, cell: Cell) -> list[bool]:
        """Says for each move whether the nearest exit lies that way; of two as near, the one that is read first."""
        exits = sorted(self.exits)
        if not exits:
            return [False] * len(MOVES)
        apart = [(abs(i - cell[0]) + abs(j - cell[1])) for i, j in exits]
        row, column = exits[apart.index(min(apart))]
        return [row < cell[0], column > cell[1], row > cell[0], column < cell[1]]


def square(radius: int) -> list[Cell]:
    reach = range(-radius, radius + 1)
    return list(product(reach, reach))


def steps_to(drawing: Drawing, goals: Iterable[Cell], through: Collection[Cell]) -> dict[Cell, int]:
    """Steps from each cell to the nearest goal, one step further on at a time; where no way leads, no entry."""
    steps = dict.fromkeys(goals, 0)
    frontier = list(steps)
    while frontier:
        reached = []
        for cell in frontier:
            for move in range(len(MOVES)):
                there = drawing.beside(cell, move)
                if there is not None and there in through and there not in steps:
                    steps[there] = steps[cell] + 1
                    reached.append(there)
        frontier = reached
    return steps


@dataclass(frozen=True)
class Past:
    """The knowledge from earlier attempts."""

    visited: frozenset[Cell] = frozenset()
    bumps: frozenset[tuple[Cell, int]] = frozenset()  # of a blind robot: cells, and moves that ended at a wall

    def known_way(self, drawing: Drawing) -> dict[Cell, int]:
        """Steps to the nearest exit that was reached, through visited cells."""
        return steps_to(drawing, drawing.exits & self.visited, self.visited - drawing.traps)

    def closed(self, drawing: Drawing, radius: int) -> set[Cell]:
        """Returns the cells that no way leads to: walls that were sensed or bumped into, traps that were stepped on."""
        if radius:
            sensed = {(i + down, j + right) for i, j in self.visited for down, right in square(radius)}
        else:
            sensed = {there for cell, move in self.bumps if (there := drawing.beside(cell, move)) is not None}
        return (sensed & drawing.walls) | (self.visited & drawing.traps)

    def goals(self, drawing: Drawing, compass: bool) -> set[Cell]:
        """The exits that it knows."""
        return drawing.exits if compass else drawing.exits & self.visited

    def hopeful_way(self, drawing: Drawing, radius: int, compass: bool) -> dict[Cell, int]:
        """Steps to an exit that it knows, else to the nearest new cell, if all that it has not sensed were free."""
        maybe = set(drawing.cells) - self.closed(drawing, radius)
        return steps_to(drawing, self.goals(drawing, compass) or maybe - self.visited, maybe)

    def and_then(self, robots: Iterable[Robot]) -> Past:
        """Returns what is known once these attempts are over, too."""
        robots = list(robots)
        return Past(
            self.visited.union(*(robot.visited for robot in robots)),
            self.bumps.union(*(robot.bumps for robot in robots)),
        )


@dataclass(frozen=True)
class Dream:
    """The ways that a robot dreams of in a cell."""

    known: frozenset[int] = frozenset()  # the moves along the known way
    hope: frozenset[int] = frozenset()  # the moves along the hopeful way
    gain: int = 0


class Robot:
    """One attempt."""

    def __init__(self, drawing: Drawing, policy: PolicyConfig, past: Past) -> None:
        self.drawing, self.policy, self.past = drawing, policy, past
        self.moves: list[int] = []
        self.last = NO_MOVE  # the last move that got it somewhere
        self.bumps: set[tuple[Cell, int]] = set()
        self.visited: set[Cell] = set()
        self.passed: Counter[frozenset[Cell]] = Counter()  # passages: how often it went through
        self.way = past.known_way(drawing)
        self.knows_exit = bool(past.goals(drawing, policy.compass))
        self.hope: dict[Cell, int] = {}
        if policy.dreams and self.knows_exit:
            self._hope_anew()
        self.news = True  # whether it has been somewhere new, or has bumped into something, since it dreamt
        self.cell = drawing.start
        self.visited.add(self.cell)

    def copy(self) -> Robot:
        """The same robot, to go on in another way."""
        other = Robot.__new__(Robot)
        other.__dict__ = {k: v.copy() if isinstance(v, list | set | Counter) else v for k, v in vars(self).items()}
        return other

    def over(self, horizon: int) -> bool:
        return self.drawing.ends(self.cell) or len(self.moves) == horizon

    @property
    def found(self) -> bool:
        return self.cell in self.drawing.exits

    def mark(self, move: int) -> int:
        """Returns what the robot remembers of the neighbour on that side."""
        if self.policy.memory == "none":
            return NEVER
        there = self.drawing.ahead(self.cell, move)
        if there == self.cell:
            known = self.policy.radius or (self.cell, move) in self.bumps | self.past.bumps
            return BUMPED if known else NEVER
        if there in self.visited:
            return VISITED_0 + min(2, self.passed[frozenset((self.cell, there))])
        return EARLIER if there in self.past.visited else NEVER

    def features(self, facing: int = 0) -> list[float]:
        """Returns what the robot senses and remembers, turned so that the move `facing` is ahead."""
        side = 2 * self.policy.radius + 1
        seen = self.drawing.seen(self.cell, self.policy.radius)
        middle = len(seen) // 2
        around = np.rot90(np.array([*seen[:middle], False, *seen[middle:]]).reshape(side, side), facing).reshape(-1)
        by_side = [[self.last == move for move in range(4)]]
        by_side += [[self.mark(move) == mark for move in range(4)] for mark in range(6)]
        by_side += [self.drawing.compass(self.cell)] * self.policy.compass
        last, *rest = ([row[(move + facing) % 4] for move in range(4)] for row in by_side)
        parts = [
            *around[:middle],
            *around[middle + 1 :],
            *last,
            self.last == NO_MOVE,
            *(one for row in rest for one in row),
        ]
        return [float(part) for part in parts]

    def may(self, move: int) -> bool:
        """Says whether no wall that the robot senses or remembers is in the way."""
        if self.policy.radius:
            return self.drawing.ahead(self.cell, move) != self.cell
        return self.mark(move) != BUMPED

    def dream(self) -> Dream:
        """The ways from its cell; what it hopes for is dreamt again where it has been disproved.

        One who knows an exit dreams again when no way is open that goes on as it hoped; an explorer when nothing around
        it is new, and something new was met since.
        """
        if not self.policy.dreams:
            return Dream()
        sides = {move: self.drawing.beside(self.cell, move) for move in range(4) if self.may(move)}

        def along(steps: dict[Cell, int]) -> frozenset[int]:
            here = steps.get(self.cell, FAR)
            return frozenset(
                move for move, there in sides.items() if there is not None and steps.get(there, FAR) == here - 1
            )

        lost = not self.knows_exit and all(self.mark(move) != NEVER for move in range(4))
        if (self.knows_exit and not along(self.hope)) or (lost and self.news):
            self._hope_anew()
        gain = NO_EXIT
        if self.knows_exit:
            known, hoped = self.way.get(self.cell), self.hope.get(self.cell, FAR)
            gain = NO_WAY if known is None else min(max(known - hoped, 0), MOST_GAIN)
        hopes = gain > 0 if self.knows_exit else lost
        return Dream(along(self.way), along(self.hope) if hopes else frozenset(), gain)

    def go(self, move: int) -> None:
        self.moves.append(move)
        there = self.drawing.ahead(self.cell, move)
        if there == self.cell:
            if not self.policy.radius:
                self.bumps.add((self.cell, move))
                self.news = True
            return
        self.news |= there not in self.visited
        self.visited.add(there)
        self.passed[frozenset((self.cell, there))] += 1
        self.cell, self.last = there, move

    def _hope_anew(self) -> None:
        known = self.past.and_then([self])
        self.hope = known.hopeful_way(self.drawing, self.policy.radius, self.policy.compass)
        self.news = False


def random_drawing(rng: np.random.Generator, most: int = 7, least: int = 1) -> Drawing:
    """A maze of any shape, with one exit or more, perhaps with traps, in which some way leads to an exit."""
    while True:
        rows, columns = (int(size) for size in rng.integers(least, most + 1, 2))
        if rows * columns < 2:
            continue
        walls, traps = float(rng.choice([0.0, 0.2, 0.4])), float(rng.choice([0.0, 0.1]))
        marks = rng.choice([".", "#", "H"], (rows, columns), p=[1 - walls - traps, walls, traps])
        places = rng.permutation(rows * columns)
        marks.flat[places[0]] = "S"
        marks.flat[places[1 : 1 + int(rng.integers(1, 4))]] = "E"
        drawing = Drawing("\n".join("".join(row) for row in marks))
        if drawing.distance(drawing.start) < FAR:
            return drawing


def mazes_of(drawings: Sequence[Drawing]) -> Mazes:
    """The mazes as they are drawn, whether some way leads to an exit or none."""
    return Mazes(
        np.array([(drawing.rows, drawing.columns) for drawing in drawings], np.int32),
        np.array([drawing.number(drawing.start) for drawing in drawings], np.int32),
        np.array([KIND[mark] for drawing in drawings for mark in drawing.mark.values()], np.uint8),
    )
