"""The depth-first trees of `world/trees.py`, one maze after another."""

# T steps of growth, M mazes, R rooms of one maze, with a frame around them, A moves

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, machine_code


@machine_code
def grow(
    chance_TX: Numbers,
    straight: float,
    around_A: Numbers,
    seen_MR: Numbers,
    parent_MR: Numbers,
    way_MR: Numbers,
    depth_M: Numbers,
) -> None:
    """Some steps of `trees.depth_first`, with its arrays. `chance_TX`: the random numbers of each."""
    mazes, moves = len(depth_M), len(around_A)
    for maze in range(mazes):
        seen_R, parent_R, way_R = seen_MR[maze], parent_MR[maze], way_MR[maze]
        depth = depth_M[maze]
        for time in range(len(chance_TX)):
            at = way_R[depth]
            best, chosen = -2.0, 0
            for move in range(moves):
                room = at + around_A[move]
                chance = chance_TX[time, maze * moves + move]
                if straight and room - at == at - parent_R[at] and chance_TX[time, mazes * moves + maze] < straight:
                    chance += np.float32(1)
                if seen_R[room]:
                    chance = np.float32(-1)
                if chance > best:
                    best, chosen = chance, room
            if not seen_R[chosen]:
                depth += 1
                parent_R[chosen], way_R[depth], seen_R[chosen] = at, chosen, True
            else:
                depth = max(depth - 1, 0)
        depth_M[maze] = depth
