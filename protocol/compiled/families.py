"""Machine code of the depth-first trees of `world/trees.py`, one maze after another."""

# M mazes, A moves

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, machine_code
from protocol.world.cells import A


@machine_code
def grow(
    chances: Numbers,
    straight: float,
    around_A: Numbers,
    seen: Numbers,
    parent: Numbers,
    way: Numbers,
    depth_M: Numbers,
) -> None:
    """Makes some steps of `trees.depth_first`, with its arrays. `chances`: [steps, M * A or more] random numbers."""
    mazes = len(depth_M)
    for maze in range(mazes):
        seen_here, parent_here, way_here = seen[maze], parent[maze], way[maze]
        depth = depth_M[maze]
        for time in range(len(chances)):
            at = way_here[depth]
            best, chosen = -2.0, 0
            for move in range(A):
                room = at + around_A[move]
                chance = chances[time, maze * A + move]
                if straight and room - at == at - parent_here[at] and chances[time, mazes * A + maze] < straight:
                    chance += np.float32(1)
                if seen_here[room]:
                    chance = np.float32(-1)
                if chance > best:
                    best, chosen = chance, room
            if not seen_here[chosen]:
                depth += 1
                parent_here[chosen], way_here[depth], seen_here[chosen] = at, chosen, True
            else:
                depth = max(depth - 1, 0)
        depth_M[maze] = depth
