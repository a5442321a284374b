"""The task distributions: how a seed becomes a maze."""

# M mazes, n side, k rooms along one edge, R = k*k rooms (row-major), A moves,
# N rooms or cells of all mazes that meet a condition

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from protocol.config import MazeConfig
from protocol.world.maze import MOVES, UNREACHABLE, Bools, MazeError, Mazes, distance, pad, read_mazes
from protocol.world.maze import held_out as is_held_out

Indices = npt.NDArray[np.intp]

TRIES = 1000  # mazes drawn for each one wanted, after which the family counts as exhausted
CELLS_AT_ONCE = 1 << 20  # cells of all mazes drawn together; bounds the memory
EXTRA_DOORS = 0.2  # share of walls between two rooms that get a door anyhow, family 'rooms'


def sample(config: MazeConfig, count: int, rng: np.random.Generator, *, held_out: bool) -> Mazes:
    """`count` solvable mazes of the family, all of the training or all of the held-out side; they may repeat.

    A pure function of its arguments and, in family 'file', of the file as it was when first read.
    Raises MazeError where the family has no such mazes, or hardly any.
    """
    if config.family == "file":
        return _from_file(config, count, rng, held_out)
    parts: list[Mazes] = []
    drawn = kept = 0
    while kept < count:
        if drawn >= TRIES * max(count, 10):
            raise MazeError(
                f"only {kept} of {drawn} mazes of family '{config.family}' and side {config.side} suit as "
                f"{_split(held_out)} mazes, and {count} were wanted; "
                "change maze.side, maze.min_distance or maze.density"
            )
        # As many as the yield so far asks for, and some: a second round costs as much as a larger first one.
        share = (kept + 1) / (drawn + (10 if held_out else 1))
        size = min(int((count - kept) / share * 1.2) + 4, max(1, CELLS_AT_ONCE // config.side**2))
        parts.append(_draw(config, size, rng, held_out)[: count - kept])
        drawn, kept = drawn + size, kept + len(parts[-1])
    return Mazes.concatenate(parts)


def _draw(config: MazeConfig, count: int, rng: np.random.Generator, held_out: bool) -> Mazes:
    """Those of `count` mazes of a generated family that can be used."""
    if config.family == "blocks":
        blocked = _blocks(count, config, rng)
    elif config.family == "rooms":
        blocked = _rooms(count, config.side, rng)
    else:
        blocked = _perfect(count, config.side, rng)
        if config.family == "braided":
            _braid(blocked, config.braid, rng)
    corner = np.zeros(count, np.int32)
    mazes = Mazes(blocked, start=corner, exit=corner + np.int32(config.side**2 - 1))
    mazes = mazes[is_held_out(mazes) == held_out]
    return _with_random_exit(mazes, config.min_distance, rng) if config.exit == "random" else _solvable(mazes)


def _solvable(mazes: Mazes) -> Mazes:
    """Those whose exit can be reached."""
    steps = distance(mazes.blocked, mazes.start)
    return mazes[steps[np.arange(len(mazes)), mazes.exit] != UNREACHABLE]


def _with_random_exit(mazes: Mazes, min_distance: int, rng: np.random.Generator) -> Mazes:
    """The exit anew, uniform over the cells `min_distance` steps away or more; mazes without are dropped."""
    steps = distance(mazes.blocked, mazes.start)
    maze_N, cell_N = np.nonzero((steps >= min_distance) & (steps != UNREACHABLE))
    count_M = np.bincount(maze_N, minlength=len(mazes))
    some_M = count_M > 0
    count, first = count_M[some_M], (np.cumsum(count_M) - count_M)[some_M]
    exits = cell_N[first + rng.integers(count)].astype(np.int32)
    return Mazes(mazes.blocked[some_M], mazes.start[some_M], exits)


def _perfect(count: int, side: int, rng: np.random.Generator) -> Bools:
    """[M, n, n] rooms at even (row, column), joined by a depth-first tree grown from the start."""
    rooms = (side + 1) // 2
    blocked = np.ones((count, side, side), np.bool_)
    blocked[:, ::2, ::2] = False
    to_MR = _depth_first_trees(count, rooms, rng)
    row_R, column_R = np.divmod(np.arange(rooms**2), rooms)
    # A room is two cells from the next, so the sum of their room coordinates is the cell between them.
    blocked[np.arange(count)[:, None], row_R + row_R[to_MR], column_R + column_R[to_MR]] = False
    return blocked


def _braid(blocked: Bools, share: float, rng: np.random.Generator) -> None:
    """Opens each dead end with probability `share`, in place: one of the walls to other rooms goes."""
    side = blocked.shape[-1]
    walled = np.pad(blocked, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    beside = [walled[:, 1 + down :: 2, 1 + right :: 2] for down, right in MOVES]
    rooms = (side + 1) // 2
    wall_MRRA = np.stack([wall[:, :rooms, :rooms] for wall in beside], axis=-1)
    dead_end = wall_MRRA.sum(axis=-1) == len(MOVES) - 1
    maze_N, row_N, column_N = np.nonzero(dead_end & (rng.random(dead_end.shape) < share))
    down_A, right_A = np.array(MOVES).T
    row_NA, column_NA = 2 * row_N[:, None] + down_A, 2 * column_N[:, None] + right_A
    inside_NA = (row_NA >= 0) & (row_NA < side) & (column_NA >= 0) & (column_NA < side)
    closed_NA = wall_MRRA[maze_N, row_N, column_N] & inside_NA
    move_N = np.argmax(closed_NA * (1 - rng.random(closed_NA.shape)), axis=1)
    each_N = np.arange(len(move_N))
    blocked[maze_N, row_NA[each_N, move_N], column_NA[each_N, move_N]] = False


def _blocks(count: int, config: MazeConfig, rng: np.random.Generator) -> Bools:
    """[M, n, n] each cell blocked with probability `density`, the start and a corner exit never."""
    blocked = rng.random((count, config.side, config.side), np.float32) < config.density
    blocked[:, 0, 0] = False
    if config.exit == "corner":
        blocked[:, -1, -1] = False
    return blocked


def _rooms(count: int, side: int, rng: np.random.Generator) -> Bools:
    """[M, n, n] k by k rectangular rooms, joined by the doors of a uniform spanning tree and a few more.

    Walls lie in odd rows and columns, so every room is at least one cell wide and every corner is free.
    """
    rooms = (side + 3) // 4
    row_ML, column_ML = _walls(count, side, rooms, rng), _walls(count, side, rooms, rng)
    maze_M1 = np.arange(count)[:, None]
    blocked = np.zeros((count, side, side), np.bool_)
    blocked[maze_M1, row_ML[:, 1:-1]] = True
    turned = blocked.transpose(0, 2, 1)  # a view: what leads down in `blocked` leads right here
    turned[maze_M1, column_ML[:, 1:-1]] = True

    to_MR = _uniform_trees(count, rooms, rng)
    _open_doors(blocked, _doors(to_MR, 1, rng), row_ML, column_ML, rng)
    _open_doors(turned, _doors(to_MR, rooms, rng).transpose(0, 2, 1), column_ML, row_ML, rng)
    return blocked


def _walls(count: int, side: int, rooms: int, rng: np.random.Generator) -> Indices:
    """[M, k + 1] rows of wall between k rows of rooms: odd ones, with -1 before and n after them."""
    odd = rng.permuted(np.tile(np.arange(1, side, 2), (count, 1)), axis=1)[:, : rooms - 1]
    return np.pad(np.sort(odd, axis=1), ((0, 0), (1, 1)), constant_values=((0, 0), (-1, side)))


def _doors(to_MR: Indices, apart: int, rng: np.random.Generator) -> Bools:
    """[M, k, k] which rooms have a door to the room `apart` further on: the tree's, and extra ones."""
    count, size = to_MR.shape
    rooms = math.isqrt(size)
    door_MR = rng.random((count, size)) < EXTRA_DOORS
    maze_N, room_N = np.nonzero(np.abs(to_MR - np.arange(size)) == apart)
    door_MR[maze_N, np.minimum(to_MR[maze_N, room_N], room_N)] = True
    return door_MR.reshape(count, rooms, rooms)


def _open_doors(
    blocked: Bools, door_MRR: Bools, row_ML: Indices, column_ML: Indices, rng: np.random.Generator
) -> None:
    """Opens a cell of the wall right of each room with a door, in place; the last of a row have none."""
    maze_N, down_N, right_N = np.nonzero(door_MRR[:, :, :-1])
    row_N = rng.integers(row_ML[maze_N, down_N] + 1, row_ML[maze_N, down_N + 1])
    blocked[maze_N, row_N, column_ML[maze_N, right_N + 1]] = False


def _depth_first_trees(count: int, rooms: int, rng: np.random.Generator) -> Indices:
    """[M, R] trees of a k by k grid, grown depth first from room 0: each room's parent; of room 0, itself.

    All mazes grow at once: each goes on to a random neighbour that it has not seen, or back where there is none.
    """
    width = rooms + 2  # with a frame of rooms that count as seen
    frame = np.ones((width, width), np.bool_)
    frame[1:-1, 1:-1] = False
    seen = np.tile(frame.reshape(-1), (count, 1))
    around = np.array([down * width + right for down, right in MOVES])
    maze_M, maze_M1 = np.arange(count), np.arange(count)[:, None]
    parent = np.zeros((count, width**2), np.intp)
    way = np.zeros((count, rooms**2), np.intp)  # the rooms from room 0 to where it is
    depth_M = np.zeros(count, np.intp)
    at_M = way[:, 0] = np.full(count, width + 1)
    parent[:, width + 1] = width + 1
    seen[:, width + 1] = True
    for _ in range(2 * rooms**2 - 3):  # every room is entered once, and left once for the one before
        next_MA = at_M[:, None] + around
        chance_MA = rng.random((count, len(MOVES)), np.float32)
        chance_MA[seen[maze_M1, next_MA]] = -1
        next_M = next_MA[maze_M, chance_MA.argmax(axis=1)]
        grows_M = ~seen[maze_M, next_M]
        depth_M = np.maximum(depth_M + np.where(grows_M, 1, -1), 0)
        maze_N, room_N = maze_M[grows_M], next_M[grows_M]
        parent[maze_N, room_N] = at_M[grows_M]
        seen[maze_N, room_N] = True
        way[maze_N, depth_M[grows_M]] = room_N
        at_M = way[maze_M, depth_M]
    row, column = np.divmod(parent.reshape(count, width, width)[:, 1:-1, 1:-1] - width - 1, width)
    return (row * rooms + column).reshape(count, rooms**2)


def _uniform_trees(count: int, rooms: int, rng: np.random.Generator) -> Indices:
    """[M, R] uniform spanning trees of a k by k grid: each room's parent; of the root, itself.

    Cycle popping (Propp and Wilson, "How to get a perfectly random sample from a generic Markov chain and
    generate a random spanning tree of a directed graph", J. Algorithms 27, 1998): every room but the root has
    a random arrow to a neighbour, and rooms on a cycle get fresh ones until there is no cycle. The order in
    which cycles are popped does not matter, so those of all mazes are popped at once.
    """
    size = rooms**2
    step_RX = _arrows(rooms)
    to = np.arange(count * size)
    # The rooms not yet known to lead to their root, and the place of each in that list.
    live = np.delete(to.reshape(count, size), size // 2, axis=1).reshape(-1)
    place = np.full(count * size, -1)
    popped = live
    while live.size:
        to[popped] = popped + step_RX[popped % size, rng.integers(step_RX.shape[1], size=popped.size)]
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
    """[R, 12] the steps from a room to its 2, 3 or 4 neighbours, repeated: one draw of twelve suits all."""
    arrows_R = []
    for row, column in np.ndindex(rooms, rooms):
        inside = [(d, r) for d, r in MOVES if 0 <= row + d < rooms and 0 <= column + r < rooms]
        arrows_R.append([down * rooms + right for down, right in inside] * (12 // len(inside)))
    return np.array(arrows_R)


def _from_file(config: MazeConfig, count: int, rng: np.random.Generator, held_out: bool) -> Mazes:
    """`count` mazes of the file on the wanted side, drawn with replacement; start and exit as in the file."""
    training, kept_back = _file(config.path, config.side)
    wanted = kept_back if held_out else training
    if not len(wanted):
        total = len(training) + len(kept_back)
        raise MazeError(
            f"no {_split(held_out)} maze is among the {total} in {config.path}; "
            "about one in ten is held out, by a hash of its grid, so add more mazes"
        )
    return wanted[rng.integers(len(wanted), size=count)]


@lru_cache(maxsize=4)
def _file(path: str, side: int) -> tuple[Mazes, Mazes]:
    """The training and the held-out mazes of a file, padded to `side`."""
    named = read_mazes(path)
    largest = max(named, key=lambda one: one.maze.side)
    if largest.maze.side > side:
        raise MazeError(
            f"maze {largest.name} in {path} has side {largest.maze.side}, but maze.side is {side}; "
            f"set maze.side to {largest.maze.side} or more"
        )
    mazes = Mazes.concatenate([pad(one.maze, side) for one in named])
    kept_back = is_held_out(mazes)
    return mazes[~kept_back], mazes[kept_back]


def _split(held_out: bool) -> str:
    return "held-out" if held_out else "training"
