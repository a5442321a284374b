"""Random spanning trees of a k by k grid of rooms, of many mazes at once."""

# M mazes, k rooms along one edge, R = k*k rooms of one maze (row-major), A moves,
# X rooms of all mazes that meet a condition

from __future__ import annotations

from functools import lru_cache

import numpy as np

from protocol.compiled import compiled
from protocol.world.cells import MOVES, A, Bools, Indices

GROWS_AT_ONCE = 64  # steps of growth whose random numbers are drawn together


def depth_first(
    count: int, rooms: int, rng: np.random.Generator, straight: float = 0.0, apart: Bools | None = None
) -> Indices:
    """Grows trees of a k by k grid depth first from room 0: [M, R] each room's parent; of room 0, itself.

    All trees grow at once: each goes on to a random neighbour that it has not seen, or back where there is none.

    Args:
      straight: chance that a tree goes straight on, where it can, before any neighbour is drawn.
      apart: [k, k] rooms that stay out of the tree, each its own parent; the others must hang together.
    """
    width = rooms + 2  # with a frame of rooms that count as seen
    frame = np.ones((width, width), np.bool_)
    frame[1:-1, 1:-1] = False if apart is None else apart
    seen = np.tile(frame.reshape(-1), (count, 1))
    around = np.array([down * width + right for down, right in MOVES])
    maze_M, maze_M1 = np.arange(count), np.arange(count)[:, None]
    parent = np.tile(np.arange(width**2), (count, 1))
    way = np.zeros((count, rooms**2), np.intp)  # the rooms from room 0 to where each tree grows
    depth_M = np.zeros(count, np.intp)
    at_M = way[:, 0] = np.full(count, width + 1)
    seen[:, width + 1] = True
    steps = 2 * int((~frame).sum()) - 3  # every room is entered once, and left once for the one before
    if machine := compiled("families"):
        numbers = count * (A + (straight > 0))
        while steps > 0:
            some = min(steps, GROWS_AT_ONCE)
            machine.grow(rng.random((some, numbers), np.float32), straight, around, seen, parent, way, depth_M)
            steps -= some
    for _ in range(steps):
        next_MA = at_M[:, None] + around
        chance_MA = rng.random((count, A), np.float32)
        if straight:
            ahead_M1 = (at_M - parent[maze_M, at_M])[:, None]
            chance_MA += (around == ahead_M1) & (rng.random((count, 1), np.float32) < straight)
        chance_MA[seen[maze_M1, next_MA]] = -1
        next_M = next_MA[maze_M, chance_MA.argmax(axis=1)]
        grows_M = ~seen[maze_M, next_M]
        depth_M = np.maximum(depth_M + np.where(grows_M, 1, -1), 0)
        maze_X, room_X = maze_M[grows_M], next_M[grows_M]
        parent[maze_X, room_X] = at_M[grows_M]
        seen[maze_X, room_X] = True
        way[maze_X, depth_M[grows_M]] = room_X
        at_M = way[maze_M, depth_M]
    row, column = np.divmod(parent.reshape(count, width, width)[:, 1:-1, 1:-1] - width - 1, width)
    return (row * rooms + column).reshape(count, rooms**2)


def uniform(count: int, rooms: int, rng: np.random.Generator) -> Indices:
    """Draws uniform spanning trees of a k by k grid: [M, R] each room's parent; of the root, itself.

    Cycle popping (Propp and Wilson, "How to get a perfectly random sample from a generic Markov chain and
    generate a random spanning tree of a directed graph", J. Algorithms 27, 1998): every room but the root has
    a random arrow to a neighbour, and rooms on a cycle get fresh ones until there is no cycle. The order in
    which cycles are popped does not matter, so those of all mazes are popped at once.
    """
    size = rooms**2
    step_R12 = _arrows(rooms)
    to = np.arange(count * size)
    # These are the rooms of all mazes not yet known to lead to their root, and the place of each in that list.
    live = np.delete(to.reshape(count, size), size // 2, axis=1).reshape(-1)
    place = np.full(count * size, -1)
    popped = live
    while live.size:
        to[popped] = popped + step_R12[popped % size, rng.integers(step_R12.shape[1], size=popped.size)]
        place[live] = np.arange(live.size)
        # Whatever 2^i >= R steps along the arrows lead to is on a cycle, or is the root (-1).
        ahead = np.append(place[to[live]], -1)
        for _ in range((size - 1).bit_length()):
            ahead = ahead[ahead]
        on_cycle = np.zeros(live.size + 1, np.bool_)
        on_cycle[ahead] = True
        popped = live[on_cycle[:-1]]
        rooted = ahead[:-1] < 0
        place[live[rooted]] = -1
        live = live[~rooted]
    return to.reshape(count, size) % size


@lru_cache
def _arrows(rooms: int) -> Indices:
    """Lists the steps from a room to its 2, 3 or 4 neighbours, repeated [R, 12]: one draw of twelve suits all."""
    arrows_R = []
    for row, column in np.ndindex(rooms, rooms):
        inside = [(d, r) for d, r in MOVES if 0 <= row + d < rooms and 0 <= column + r < rooms]
        arrows_R.append([down * rooms + right for down, right in inside] * (12 // len(inside)))
    return np.array(arrows_R)
