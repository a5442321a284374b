"""Machine code of `world/ways.py` and of the distances of `world/maze.py`: breadth-first, cell by cell."""

# C cells of all mazes, A moves, X cells of all mazes that meet a condition, I cells of one maze,
# M mazes of one size; a grid is [M, rows, columns]

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, machine_code, plain
from protocol.world.cells import UNREACHABLE, A

CLOSED = -1  # stands in place of steps where no way leads


def flood(free: Numbers, source: Numbers) -> Numbers:
    """Counts the steps from each cell to the nearest `source` cell, as `protocol.world.ways.flood` does."""
    steps = np.empty(free.shape, np.int32)
    flood_all(plain(free), plain(source), steps)
    return steps


@machine_code
def flood_all(free: Numbers, source: Numbers, steps: Numbers) -> None:
    """Fills `steps` [M, rows, columns] with the result of `flood`."""
    count, rows, columns = free.shape
    cells = rows * columns
    queue_I = np.empty(cells, np.int32)
    for maze in range(count):
        free_I, source_I = free[maze].reshape(cells), source[maze].reshape(cells)
        steps_I = steps[maze].reshape(cells)
        sources = 0
        for cell in range(cells):
            steps_I[cell] = UNREACHABLE if free_I[cell] else CLOSED
            if source_I[cell]:
                steps_I[cell] = 0
                queue_I[sources] = cell
                sources += 1
        spread(steps_I, queue_I, sources, columns)


@machine_code
def fill_distance(ahead_CA: Numbers, source_X: Numbers, open_C: Numbers, steps_C: Numbers) -> None:
    """Fills `steps_C` [C] as `maze.distance` does. `open_C` [C] says where a way may go on, and is used up."""
    queue_C = np.empty(len(steps_C) + len(source_X), np.intp)
    steps_C[:] = UNREACHABLE
    done, found = 0, 0
    for cell in source_X:
        steps_C[cell], open_C[cell], queue_C[found] = 0, False, cell
        found += 1
    while done < found:
        cell = queue_C[done]
        done += 1
        for move in range(A):
            there = ahead_CA[cell, move]
            if open_C[there]:
                steps_C[there], open_C[there], queue_C[found] = steps_C[cell] + 1, False, there
                found += 1


@machine_code
def spread(steps_I: Numbers, queue_I: Numbers, sources: int, columns: int) -> None:
    """Turns each UNREACHABLE that a way leads to into steps, and each CLOSED into UNREACHABLE.

    Args:
      steps_I: [I] int32: 0 at the sources, CLOSED or UNREACHABLE elsewhere.
      queue_I: [I] int32: begins with the sources.
    """
    cells = len(steps_I)
    done, found = 0, sources
    while done < found:
        cell = queue_I[done]
        done += 1
        steps, column = steps_I[cell] + 1, cell % columns
        if cell >= columns and steps_I[cell - columns] == UNREACHABLE:
            steps_I[cell - columns], queue_I[found] = steps, cell - columns
            found += 1
        if column + 1 < columns and steps_I[cell + 1] == UNREACHABLE:
            steps_I[cell + 1], queue_I[found] = steps, cell + 1
            found += 1
        if cell + columns < cells and steps_I[cell + columns] == UNREACHABLE:
            steps_I[cell + columns], queue_I[found] = steps, cell + columns
            found += 1
        if column > 0 and steps_I[cell - 1] == UNREACHABLE:
            steps_I[cell - 1], queue_I[found] = steps, cell - 1
            found += 1
    for cell in range(cells):
        if steps_I[cell] == CLOSED:
            steps_I[cell] = UNREACHABLE
