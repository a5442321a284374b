"""The walls of each family: how a random grid of walls is drawn, for many mazes at once."""

# M mazes, n side, k rooms along one edge, R = k*k rooms of one maze (row-major), A moves,
# X rooms of all mazes that meet a condition

from __future__ import annotations

import math

import numpy as np

from protocol import own
from protocol.config import ClewError, MazeConfig
from protocol.world import trees
from protocol.world.cells import MOVES, A, Bools, Indices

EXTRA_DOORS = 0.2  # share of walls between two rooms that get a door although no way needs it, family 'rooms'
STRAIGHT = 0.5  # chance that a corridor goes straight on where it can, family 'mouse'
LOOPS = 0.12  # share of walls between two rooms that are opened although no way needs it, family 'mouse'


def walls_of(config: MazeConfig, family: str, side: int, count: int, rng: np.random.Generator) -> Bools:
    """Draws `count` mazes of a generated family: [M, n, n], True where there is a wall.

    Raises ClewError where a function of the user's own returns no such walls.
    """
    if family == "blocks":
        return _blocks(count, side, config.density, config.exit, rng)
    if family == "rooms":
        return _rooms(count, side, rng)
    if family == "mouse":
        return _mouse(count, side, config.braid, config.exit, rng)
    if ":" in family:
        return of_ones_own(family, count, side, rng)
    blocked = _perfect(trees.depth_first(count, (side + 1) // 2, rng))
    if family == "braided":
        _braid(blocked, config.braid, rng)
    return blocked


def of_ones_own(family: str, count: int, side: int, rng: np.random.Generator) -> Bools:
    """Draws [M, n, n] walls with a function of the user's own, one maze after another.

    Raises ClewError where the function returns anything else.

    `function(rng, side)` returns [n, n], True or 1 where there is a wall. It must be a function of its arguments alone:
    whatever is random comes from `rng`. The start, at (0, 0), is made free here. Exits, traps, and which mazes are of
    use and which are held out are decided in `protocol.world.families`.
    """
    draw = own.function(family)
    blocked = np.zeros((count, side, side), np.bool_)
    for walls in blocked:
        drawn = np.asarray(draw(rng, side))
        if drawn.shape != walls.shape or drawn.dtype.kind not in "biu":
            raise ClewError(
                f"family '{family}' must return an array [{side}, {side}] of booleans, True where there is a wall, "
                f"got shape {list(drawn.shape)} of {drawn.dtype}; mend the function"
            )
        walls[:] = drawn != 0
    blocked[:, 0, 0] = False
    return blocked


def middle_rooms(side: int) -> tuple[int, int]:
    """Returns the row, and the column, of the first and of the last middle room.

    There are two middle rooms along an edge with an even number of rooms, and one along an edge with an odd number.
    """
    rooms = (side + 1) // 2
    return (rooms - 1) // 2 * 2, rooms // 2 * 2


def _perfect(to_MR: Indices) -> Bools:
    """Draws [M, n, n] rooms at even (row, column), each joined to the room `to_MR`, next on the way to the root."""
    count, size = to_MR.shape
    rooms = math.isqrt(size)
    blocked = np.ones((count, 2 * rooms - 1, 2 * rooms - 1), np.bool_)
    blocked[:, ::2, ::2] = False
    row_R, column_R = np.divmod(np.arange(size), rooms)
    # A room is two cells from the next, so the sum of their room coordinates is the cell between them.
    blocked[np.arange(count)[:, None], row_R + row_R[to_MR], column_R + column_R[to_MR]] = False
    return blocked


def _mouse(count: int, side: int, braid: float, exit: str, rng: np.random.Generator) -> Bools:
    """Draws [M, n, n] like the mazes of micromouse competitions: rooms at even (row, column), corridors, and loops.

    Where the exits are in the center, they make one open square with a single entrance.
    """
    rooms = (side + 1) // 2
    low, high = middle_rooms(side)
    apart = np.zeros((rooms, rooms), np.bool_)
    if exit == "center":
        apart[low // 2 : high // 2 + 1, low // 2 : high // 2 + 1] = True
    blocked = _perfect(trees.depth_first(count, rooms, rng, straight=STRAIGHT, apart=apart))
    _braid(blocked, braid, rng)
    row, column = np.ogrid[:side, :side]
    blocked &= ~((row + column) % 2 == 1) | (rng.random(blocked.shape, np.float32) >= LOOPS)
    if exit == "center":
        _enclose(blocked, low, high, rng)
    return blocked


def _enclose(blocked: Bools, low: int, high: int, rng: np.random.Generator) -> None:
    """Makes the rooms from row and column `low` to `high` one square with a single entrance, in place."""
    blocked[:, low - 1 : high + 2, low - 1 : high + 2] = True
    blocked[:, low : high + 1, low : high + 1] = False
    blocked[:, low + 1 : high : 2, low + 1 : high : 2] = True  # the post in the middle
    rows = range(low, high + 1, 2)
    around = [(row, edge) for row in rows for edge in (low - 1, high + 1)]
    doors = np.array(around + [(edge, row) for row, edge in around])
    row_M, column_M = doors[rng.integers(len(doors), size=len(blocked))].T
    blocked[np.arange(len(blocked)), row_M, column_M] = False


def _braid(blocked: Bools, share: float, rng: np.random.Generator) -> None:
    """Opens each dead end with probability `share`, in place: one of its walls to other rooms goes."""
    side = blocked.shape[-1]
    walled = np.pad(blocked, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    beside = [walled[:, 1 + down :: 2, 1 + right :: 2] for down, right in MOVES]
    rooms = (side + 1) // 2
    shut = np.stack([wall[:, :rooms, :rooms] for wall in beside], axis=-1)  # [M, k, k, A]
    dead_end = shut.sum(axis=-1) == A - 1
    maze_X, row_X, column_X = np.nonzero(dead_end & (rng.random(dead_end.shape) < share))
    down_A, right_A = np.array(MOVES).T
    row_XA, column_XA = 2 * row_X[:, None] + down_A, 2 * column_X[:, None] + right_A
    inside_XA = (row_XA >= 0) & (row_XA < side) & (column_XA >= 0) & (column_XA < side)
    closed_XA = shut[maze_X, row_X, column_X] & inside_XA
    move_X = np.argmax(closed_XA * (1 - rng.random(closed_XA.shape)), axis=1)
    each_X = np.arange(len(move_X))
    blocked[maze_X, row_XA[each_X, move_X], column_XA[each_X, move_X]] = False


def _blocks(count: int, side: int, density: float, exit: str, rng: np.random.Generator) -> Bools:
    """Draws [M, n, n] with each cell blocked with probability `density`, but never the start or a corner exit."""
    blocked = rng.random((count, side, side), np.float32) < density
    blocked[:, 0, 0] = False
    if exit == "corner":
        blocked[:, -1, -1] = False
    return blocked


def _rooms(count: int, side: int, rng: np.random.Generator) -> Bools:
    """Draws [M, n, n] with k by k rectangular rooms, joined by the doors of a uniform spanning tree and a few more.

    Walls lie in odd rows and columns, so every room is at least one cell wide and every corner is free.
    """
    rooms = (side + 3) // 4
    walls_down, walls_right = _lines(count, side, rooms, rng), _lines(count, side, rooms, rng)
    maze_M1 = np.arange(count)[:, None]
    blocked = np.zeros((count, side, side), np.bool_)
    blocked[maze_M1, walls_down[:, 1:-1]] = True
    turned = blocked.transpose(0, 2, 1)  # a view: what leads down in `blocked` leads right here
    turned[maze_M1, walls_right[:, 1:-1]] = True

    to_MR = trees.uniform(count, rooms, rng)
    _open_doors(blocked, _doors(to_MR, 1, rng), walls_down, walls_right, rng)
    _open_doors(turned, _doors(to_MR, rooms, rng).transpose(0, 2, 1), walls_right, walls_down, rng)
    return blocked


def _lines(count: int, side: int, rooms: int, rng: np.random.Generator) -> Indices:
    """Draws the rows of wall [M, k + 1] between k rows of rooms: odd ones, with -1 before and n after them."""
    odd = rng.permuted(np.tile(np.arange(1, side, 2), (count, 1)), axis=1)[:, : rooms - 1]
    return np.pad(np.sort(odd, axis=1), ((0, 0), (1, 1)), constant_values=((0, 0), (-1, side)))


def _doors(to_MR: Indices, apart: int, rng: np.random.Generator) -> Bools:
    """Says which rooms have a door to the room `apart` further on [M, k, k]: the tree's doors, and extra ones."""
    count, size = to_MR.shape
    rooms = math.isqrt(size)
    door_MR = rng.random((count, size)) < EXTRA_DOORS
    maze_X, room_X = np.nonzero(np.abs(to_MR - np.arange(size)) == apart)
    door_MR[maze_X, np.minimum(to_MR[maze_X, room_X], room_X)] = True
    return door_MR.reshape(count, rooms, rooms)


def _open_doors(blocked: Bools, doors: Bools, down: Indices, right: Indices, rng: np.random.Generator) -> None:
    """Opens a cell of the wall right of each room with a door, in place; the last room of a row has none.

    Args:
      doors: [M, k, k] True where a room has a door.
      down: [M, k + 1] rows of wall.
      right: [M, k + 1] columns of wall.
    """
    maze_X, down_X, right_X = np.nonzero(doors[:, :, :-1])
    row_X = rng.integers(down[maze_X, down_X] + 1, down[maze_X, down_X + 1])
    blocked[maze_X, row_X, right[maze_X, right_X + 1]] = False
