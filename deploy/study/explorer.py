"""Computes two yardsticks: an explorer that goes depth first and forgets nothing, and the best way it knows afterwards.

It senses the walls beside it, enters any neighbour where it has not been, goes back on foot where there is none, and
stops on the first exit. (Lucas, "Récréations mathématiques", 1882, after Trémaux.)
"""

# M mazes, C cells of all of them, A moves

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocol.world.cells import EXIT, FREE, UNREACHABLE, Bools, Ints
from protocol.world.maze import Mazes, distance


@dataclass(frozen=True)
class Explored:
    """The results of explorers, one in each maze. Traps and the horizon hold for them as for the policy."""

    found_M: Bools  # [M] whether it reached an exit; if not, it knows no way to one either
    first_M: Ints  # [M] steps of its first attempt; the horizon where it failed
    known_M: Ints  # [M] steps on the shortest way through the cells that it visited; the horizon where it failed


def explore(mazes: Mazes, horizon_M: Ints, rng: np.random.Generator) -> Explored:
    """Lets an explorer make an attempt at each maze. One that steps on a trap has failed."""
    visited_C = np.zeros(mazes.cells, np.bool_)
    first_M, end_M = horizon_M.copy(), np.zeros(len(mazes), np.intp)
    for maze, (first, count) in enumerate(zip(mazes.offset_M.tolist(), mazes.count_M.tolist(), strict=True)):
        cells = slice(first, first + count)
        # A random order of a cell's neighbours is the same as a random draw, each time, of those that are left.
        order_CA = rng.permuted(mazes.ahead_CA[cells] - first, axis=1).tolist()
        kind_C = mazes.cell_C[cells].tolist()
        path = depth_first(order_CA, kind_C, int(mazes.start_M[maze]), int(horizon_M[maze]))
        visited_C[cells][path] = True
        end_M[maze] = first + path[-1]
        if kind_C[path[-1]] == EXIT:
            first_M[maze] = len(path) - 1
    found_M = mazes.cell_C[end_M] == EXIT
    way_C = distance(mazes.ahead_CA, end_M[found_M], visited_C & (mazes.cell_C == FREE))
    way_M = way_C[mazes.first_M]
    return Explored(found_M, first_M, np.where(way_M == UNREACHABLE, horizon_M, way_M))


def depth_first(order_CA: list[list[int]], kind_C: list[int], start: int, horizon: int) -> list[int]:
    """Returns the cells that an explorer stands in, from the start until an exit, a trap or the horizon.

    Args:
      order_CA: for each cell of the maze its neighbours, in the order in which they are tried; itself for a wall.
    """
    path, trail, visited = [start], [start], {start}
    while kind_C[path[-1]] == FREE and len(path) <= horizon:
        ahead = next((cell for cell in order_CA[trail[-1]] if cell not in visited), None)
        if ahead is None:
            trail.pop()
        else:
            trail.append(ahead)
            visited.add(ahead)
        path.append(trail[-1])
    return path
