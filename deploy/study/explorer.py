"""Computes two yardsticks: an explorer that goes depth first and forgets nothing, and the best way it knows afterwards.

It senses the walls beside it, enters any neighbour where it has not been, goes back on foot where there is none, and
stops on the first exit. (Lucas, "Récréations mathématiques", 1882, after Trémaux.)
"""

# M mazes, C cells of all mazes, X cells of all mazes that meet a condition, T steps of an attempt, A moves

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from protocol.world.cells import EXIT, FREE, UNREACHABLE, Bools, Indices, Ints
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
    for maze, path in enumerate(paths(mazes, horizon_M, rng)):
        visited_C[path] = True
        end_M[maze] = path[-1]
        if mazes.cell_C[path[-1]] == EXIT:
            first_M[maze] = len(path) - 1
    found_M = mazes.cell_C[end_M] == EXIT
    way_C = known_way(mazes, end_M[found_M], visited_C)
    way_M = way_C[mazes.first_M]
    return Explored(found_M, first_M, np.where(way_M == UNREACHABLE, horizon_M, way_M))


def paths(mazes: Mazes, horizon_M: Ints, rng: np.random.Generator) -> Iterator[Indices]:
    """Yields, maze by maze, the cells among the C that an explorer stands in on its first attempt [T + 1]."""
    for maze, (first, count) in enumerate(zip(mazes.offset_M.tolist(), mazes.count_M.tolist(), strict=True)):
        cells = slice(first, first + count)
        # A random order of a cell's neighbours is the same as a random draw, each time, of those that are left.
        order_CA = rng.permuted(mazes.ahead_CA[cells] - first, axis=1).tolist()
        kind_C = mazes.cell_C[cells].tolist()
        yield first + np.array(depth_first(order_CA, kind_C, int(mazes.start_M[maze]), int(horizon_M[maze])))


def known_way(mazes: Mazes, exit_X: Indices, visited_C: Bools) -> Ints:
    """Counts the steps to those exits through cells that an explorer has visited [C]; UNREACHABLE without a way."""
    return distance(mazes.ahead_CA, exit_X, visited_C & (mazes.cell_C == FREE))


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
