"""The knowledge that a robot can have of a maze, and the ways through it that it can dream of.

The known way is the shortest through cells that the robot has visited. The hopeful way is the shortest if all that it
has never sensed were free (the free-space assumption; Koenig and Likhachev, "D* Lite", AAAI 2002). While no exit is
known, the place that the robot hopes for is the nearest one where it has never been.
"""

# M mazes of one size; a grid is [M, rows, columns]

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from protocol.compiled import compiled
from protocol.world.cells import EXIT, MOVES, TRAP, UNREACHABLE, WALL, A, Bools, Indices, Ints, Kinds

VISITED = 1 << A  # in what is known of a cell: the robot has stood here; the A bits below are bumps, by move


def flood(free: Bools, source: Bools) -> Ints:
    """Counts the steps from each cell to the nearest `source` cell, through `free` cells; UNREACHABLE without a way.

    Breadth-first in all mazes at once. The cells are the bits of one large number, so that a shift moves the whole
    frontier; the distances are numbers too, one for each binary digit.
    """
    if machine := compiled("ways"):
        return machine.flood(free, source)  # type: ignore[no-any-return]
    count, rows, columns = free.shape
    width = columns + 1  # a wall to the right of each row and below the last keeps every move inside its maze
    framed = np.zeros((2, count, rows + 1, width), np.bool_)
    framed[0, :, :rows, :columns], framed[1, :, :rows, :columns] = free & ~source, source
    unreached, frontier = (int.from_bytes(np.packbits(bits).tobytes(), "big") for bits in framed)
    size = framed[0].size
    spare = -size % 8
    reached, level = frontier, 0
    digits: list[int] = []
    while True:
        beside = (frontier << 1) | (frontier >> 1) | (frontier << width) | (frontier >> width)
        frontier = beside & unreached
        if not frontier:
            break
        level += 1
        unreached ^= frontier
        reached |= frontier
        if level >> len(digits):
            digits.append(0)
        for digit in range(len(digits)):
            if level >> digit & 1:
                digits[digit] |= frontier
    number = b"".join(digit.to_bytes((size + spare) // 8, "big") for digit in (reached, *digits))
    bits = np.unpackbits(np.frombuffer(number, np.uint8).reshape(1 + len(digits), -1), axis=1, count=size)
    steps = np.zeros(size, np.int32)
    for digit, bit in enumerate(bits[1:]):
        steps += bit.astype(np.int32) << digit
    steps[bits[0] == 0] = UNREACHABLE
    return steps.reshape(count, rows + 1, width)[:, :rows, :columns]


def closed(cell: Kinds, known: Kinds, radius: int) -> Bools:
    """Says where the robot knows that no way leads: walls it has sensed or bumped into, traps it has stepped on.

    Args:
      cell: [M, rows, columns] what each cell is.
      known: [M, rows, columns] VISITED, and a bit for each move from the cell that has ended at a wall.
      radius: how far the robot senses walls, in cells; 0: by bumping into them alone.
    """
    visited = (known & VISITED) != 0
    if radius:
        sensed = visited
        for axis in (1, 2):
            sensed = _spread(sensed, radius, axis)
    else:
        sensed = np.zeros_like(visited)
        for move, (down, right) in enumerate(MOVES):
            target, origin = _overlap(down, right, visited.shape)
            sensed[target] |= (known[origin] >> move & 1).astype(np.bool_)
    shut: Bools = (sensed & (cell == WALL)) | (visited & (cell == TRAP))
    return shut


def known_way(cell: Kinds, known: Kinds) -> Ints:
    """Counts the steps to the nearest exit that the robot has reached, through visited cells; UNREACHABLE without."""
    visited = (known & VISITED) != 0
    return flood(visited & (cell != TRAP), visited & (cell == EXIT))


def hopeful_way(cell: Kinds, known: Kinds, radius: int, compass: bool) -> Ints:
    """Counts the steps to what the robot hopes for, if all that it has never sensed were free.

    It hopes for the nearest exit that it knows: one that it has reached, or any if it has a `compass`. Where it knows
    none, it hopes for the nearest cell that it has not visited.
    """
    visited, shut = (known & VISITED) != 0, closed(cell, known, radius)
    goal = (cell == EXIT) & (visited | compass)
    unknown = ~goal.any(axis=(1, 2), keepdims=True)
    return flood(~shut, goal | (unknown & ~visited & ~shut))


def by_shape(shape_M2: Ints) -> Iterator[tuple[Indices, tuple[int, int]]]:
    """Yields the numbers of the mazes of each size, and the size: rows and columns."""
    code_M = shape_M2[:, 0] << 8 | shape_M2[:, 1]
    if len(code_M) and (code_M == code_M[0]).all():
        yield np.arange(len(code_M)), (int(shape_M2[0, 0]), int(shape_M2[0, 1]))
        return
    for code in np.unique(code_M):
        yield np.flatnonzero(code_M == code), (int(code >> 8), int(code & 255))


def _spread(grid: Bools, radius: int, axis: int) -> Bools:
    """Returns True up to `radius` cells along an axis from where `grid` is true."""
    wide = grid.copy()
    for reach in range(1, radius + 1):
        for step in (-reach, reach):
            down, right = (step, 0) if axis == 1 else (0, step)
            target, origin = _overlap(down, right, grid.shape)
            wide[target] |= grid[origin]
    return wide


def _overlap(down: int, right: int, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Returns the slices of a grid that hold the cells `down`, `right` of others, and the slices of those others."""

    def pair(step: int, size: int) -> tuple[slice, slice]:
        reach = min(abs(step), size)
        ends = slice(reach, size), slice(0, size - reach)
        return ends if step >= 0 else ends[::-1]

    (row_to, row_from), (column_to, column_from) = pair(down, shape[1]), pair(right, shape[2])
    return (slice(None), row_to, column_to), (slice(None), row_from, column_from)
