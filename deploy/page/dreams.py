"""The ways that a robot dreamt of at each step of an attempt, as lines that can be drawn.

A walk says which first moves the robot dreamt of (`protocol.world.memory.Dream`); the cells beyond follow from what it
knew: from one to the next, the way gets shorter.
"""

# M mazes, C cells of all mazes (here of the one maze), T steps of an attempt, A moves

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from protocol.world import ways
from protocol.world.cells import EXIT, A, Kinds
from protocol.world.memory import Known
from protocol.world.senses import Sight

# The step from which on a line holds, and its cells, from the robot's own on. It loses its first cell with every step,
# until the next line begins. A line without cells says that the robot dreams of no such way.
Line = tuple[int, list[int]]


def changes(lines: Iterator[list[int]]) -> Iterator[Line]:
    """Yields the lines that are not what is left of the one before, each with its step."""
    former: list[int] = []
    for step, cells in enumerate(lines):
        if cells != former[1:]:
            yield step, cells
        former = cells


def line(steps_C: Sequence[int], cell: int, beside_CA: Sequence[Sequence[int]]) -> list[int]:
    """Returns the cells on a way from `cell` to where no steps are left."""
    cells = [cell]
    while steps_C[cells[-1]]:
        nearer = steps_C[cells[-1]] - 1
        cells.append(next(there for there in beside_CA[cells[-1]] if steps_C[there] == nearer))
    return cells


def known_lines(sight: Sight, known: Known, cells: Sequence[int], known_T: Sequence[int]) -> Iterator[list[int]]:
    """Yields the known way at each step of an attempt.

    Args:
      known: what the robot knew before the attempt.
      cells: [T + 1] where it was.
      known_T: the first moves that it dreamt of, as in `Dream`.
    """
    way_C, beside_CA = known.way_C.tolist(), sight.beside_CA.tolist()
    former: list[int] = []
    for cell, moves in zip(cells, known_T, strict=False):
        former = _next_line(former, way_C, cell, moves, beside_CA)
        yield former


def hopeful_lines(
    sight: Sight, known: Known, cells: Sequence[int], moves: Sequence[int], hope_T: Sequence[int]
) -> Iterator[list[int]]:
    """Yields the hopeful way at each step of an attempt, which the robot dreams anew where a wall has disproved it.

    Args:
      known: what the robot knew before the attempt.
      cells: [T + 1] where it was.
      moves: [T] what it did there.
      hope_T: the first moves that it dreamt of, as in `Dream`.
    """
    beside_CA, ahead_CA = sight.beside_CA.tolist(), sight.mazes.ahead_CA.tolist()
    visited_C, former = known.visited_C.copy(), list[int]()
    has_goal = bool(((sight.mazes.cell_C == EXIT) & (((visited_C & ways.VISITED) != 0) | sight.policy.compass)).any())
    hope_C = _hope(sight, visited_C) if has_goal else []
    for (cell, there), move, hoped in zip(pairwise(cells), moves, hope_T, strict=True):
        visited_C[cell] |= ways.VISITED
        if has_goal:
            bumped = int(visited_C[cell])  # of a blind robot: a bit for each move that ended at a wall
            near = beside_CA[cell] if not sight.policy.radius else ahead_CA[cell]
            along = [hope_C[near[move]] == hope_C[cell] - 1 and not bumped >> move & 1 for move in range(A)]
            again = not any(along)
        else:
            again = bool(hoped)
        if again:
            hope_C, former = _hope(sight, visited_C), []
        former = _next_line(former, hope_C, cell, hoped, beside_CA)
        yield former
        if there == cell and not sight.policy.radius:
            visited_C[cell] |= 1 << move


def _hope(sight: Sight, visited_C: Kinds) -> list[int]:
    """Counts the steps from each cell to what the robot hopes for."""
    grid = (1, *sight.mazes.shape_M2[0].tolist())
    kind, known = sight.mazes.cell_C.reshape(grid), visited_C.reshape(grid)
    steps: list[int] = ways.hopeful_way(kind, known, sight.policy.radius, sight.policy.compass).reshape(-1).tolist()
    return steps


def _next_line(
    former: list[int], steps_C: Sequence[int], cell: int, moves: int, beside_CA: Sequence[Sequence[int]]
) -> list[int]:
    """Returns what is left of the former line where the robot follows it, or another line; no cells without `moves`."""
    near = [there for move, there in enumerate(beside_CA[cell]) if moves >> move & 1]
    if not near:
        return []
    if former[1:2] == [cell] and former[2:3] and former[2] in near:
        return former[1:]
    return [cell, *line(steps_C, near[0], beside_CA)]
