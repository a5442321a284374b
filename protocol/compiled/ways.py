"""`world/ways.py`: breadth-first, cell by cell."""

# M mazes of one size, H rows, V columns (a grid is [M, H, V]), I cells of one maze

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, machine_code, plain
from protocol.world.maze import UNREACHABLE

CLOSED = -1  # in place of steps, where no way leads


def flood(free: Numbers, source: Numbers) -> Numbers:
    """[M, H, V] steps from each cell to the nearest of the `source` cells, through `free` ones; UNREACHABLE without."""
    steps = np.empty(free.shape, np.int32)
    flood_all(plain(free), plain(source), steps)
    return steps


@machine_code
def flood_all(free: Numbers, source: Numbers, steps: Numbers) -> None:
    """Fills `steps` [M, H, V]."""
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
