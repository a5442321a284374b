"""The task distributions: how a seed becomes a maze."""

# M mazes, n side, k rooms along one edge, R = k*k rooms (row-major), A moves,
# N rooms or cells of all mazes that meet a condition

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from protocol import own
from protocol.config import ODD_SIDES, ClewError, MazeConfig
from protocol.world import trees
from protocol.world.maze import EXIT, FREE, MOVES, TRAP, Bools, Indices, Kinds, MazeError, Mazes, read_mazes
from protocol.world.maze import held_out as is_held_out

TRIES = 1000  # mazes drawn for each one wanted, after which the family counts as exhausted
CELLS_AT_ONCE = 1 << 20  # cells of all mazes drawn together; bounds the memory
EXTRA_DOORS = 0.2  # share of walls between two rooms that get a door anyhow, family 'rooms'
STRAIGHT = 0.5  # chance that a corridor goes straight on where it can, family 'mouse'
LOOPS = 0.12  # share of walls between two rooms that are opened anyhow, family 'mouse'


def sample(config: MazeConfig, count: int, rng: np.random.Generator, *, held_out: bool) -> Mazes:
    """`count` solvable mazes, all of the training or all of the held-out side of the split; they may repeat.

    They are of one family and, but for family 'file', of one side: each is drawn from the config's list.
    A pure function of its arguments and, in family 'file', of the file as it was when first read.
    Raises MazeError where the family has no such mazes, or hardly any.
    """
    family = config.families[rng.integers(len(config.families))]
    side = config.sides[rng.integers(len(config.sides))]
    if family == "file":
        return _from_file(config.path, count, rng, held_out)
    parts: list[Mazes] = []
    drawn = kept = 0
    while kept < count:
        if drawn >= TRIES * max(count, 10):
            raise MazeError(
                f"only {kept} of {drawn} mazes of family '{family}' and side {side} suit as "
                f"{_split(held_out)} mazes, and {count} were wanted; "
                "change maze.side, maze.min_distance, maze.exits, maze.traps or maze.density"
            )
        # As many as the yield so far asks for, and some: a second round costs as much as a larger first one.
        share = (kept + 1) / (drawn + (10 if held_out else 1))
        size = min(int((count - kept) / share * 1.2) + 4, max(1, CELLS_AT_ONCE // side**2))
        parts.append(_draw(config, family, side, size, rng, held_out)[: count - kept])
        drawn, kept = drawn + size, kept + len(parts[-1])
    return Mazes.concatenate(parts)


def try_out(config: MazeConfig) -> None:
    """Raises what `sample` would where mazes of a file, or of a function of the user's own, are of no use."""
    for family in config.families:
        if family == "file" or ":" in family:
            sample(config.model_copy(update={"family": family}), 1, np.random.default_rng(0), held_out=False)


def _draw(config: MazeConfig, family: str, side: int, count: int, rng: np.random.Generator, held_out: bool) -> Mazes:
    """Those of `count` mazes of a generated family that can be used."""
    blocked = _walls_of(config, family, side, count, rng)
    blocked = blocked[is_held_out(_mazes(blocked.astype(np.uint8))) == held_out]
    free = ~blocked
    if config.exit == "random":
        exit = _some(_reached(free, config.min_distance), config.exits, rng)
    else:
        exit = _reached(free) & _exits(config.exit, family, side)
    solvable_M = exit.any(axis=(1, 2))
    kind = np.where(exit, np.uint8(EXIT), blocked)[solvable_M]  # a wall is 1, a free cell 0
    return _mazes(_with_traps(kind, config.traps, rng) if config.traps else kind)


def _walls_of(config: MazeConfig, family: str, side: int, count: int, rng: np.random.Generator) -> Bools:
    """[M, n, n] True where there is a wall, in mazes of a generated family."""
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
    """[M, n, n] the walls that a function of the user's own draws, one maze after another.

    `function(rng, side)` returns [n, n], True or 1 where there is a wall. The start, at (0, 0), is made free; exits and
    traps, which mazes are of use and which are held out are seen to here. It must be a function of its arguments alone:
    whatever is random comes from `rng`.
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


def _mazes(kind: Kinds) -> Mazes:
    """The mazes of cells [M, n, n]; each starts at (0, 0)."""
    count, side = kind.shape[:2]
    return Mazes(np.full((count, 2), side, np.int32), np.zeros(count, np.int32), kind.reshape(-1))


def _some(cells: Bools, count: int, rng: np.random.Generator) -> Bools:
    """[M, n, n] `count` of the `cells` of each maze, any as likely as any other; none where there are fewer."""
    shape_MC = len(cells), math.prod(cells.shape[1:])
    chance_MC = np.where(cells, rng.random(cells.shape, np.float32), -1).reshape(shape_MC)
    some_MC = np.zeros(shape_MC, np.bool_)
    maze_M, enough_M = np.arange(len(cells)), np.ones(len(cells), np.bool_)
    for _ in range(count):
        best_M = chance_MC.argmax(axis=1)
        enough_M &= chance_MC[maze_M, best_M] >= 0
        some_MC[maze_M, best_M] = True
        chance_MC[maze_M, best_M] = -1
    return (some_MC & enough_M[:, None]).reshape(cells.shape)


def _exits(exit: str, family: str, side: int) -> Bools:
    """[n, n] the cells that are exits, where they can be reached: the far corner, or those in the middle."""
    exits = np.zeros((side, side), np.bool_)
    if exit == "corner":
        exits[-1, -1] = True
    elif family not in ODD_SIDES:
        middle = slice(side // 2 - 1, (side + 1) // 2 + 1)  # two cells of an even side, three of an odd one
        exits[middle, middle] = True
    else:
        low, high = _middle_rooms(side)
        exits[low : high + 1 : 2, low : high + 1 : 2] = True
    return exits


def _with_traps(kind: Kinds, share: float, rng: np.random.Generator) -> Kinds:
    """[N, n, n] the mazes with each free cell but the start turned into a trap with chance `share`.

    Those where an exit can no longer be reached are dropped.
    """
    trap = (kind == FREE) & (rng.random(kind.shape, np.float32) < share)
    trap[:, 0, 0] = False
    kind = np.where(trap, np.uint8(TRAP), kind)
    lost = (kind == EXIT) & ~_reached((kind == FREE) | (kind == EXIT))
    solvable_M: Bools = ~lost.any(axis=(1, 2))
    return kind[solvable_M]


def _reached(free: Bools, min_distance: int = 0) -> Bools:
    """[M, n, n] the cells that can be reached from (0, 0), in `min_distance` steps or more.

    The cells of all mazes are the bits of one number, and a shift moves them all.
    """
    count, side = free.shape[:2]
    width = side + 1  # a wall right of each row and below the last keeps every move inside its maze
    walled = np.zeros((count, width, width), np.bool_)
    walled[:, :side, :side] = free
    start = np.zeros_like(walled)
    start[:, 0, 0] = True
    frontier, unreached = (int.from_bytes(np.packbits(cells).tobytes()) for cells in (start, walled & ~start))
    far = level = 0
    while frontier:
        if level >= min_distance:
            far |= frontier
        beside = frontier | frontier << width - 1
        frontier = (beside | beside << width + 1) >> width & unreached  # moved by -width, -1, 1 and width
        unreached ^= frontier
        level += 1
    packed = np.frombuffer(far.to_bytes(-(-walled.size // 8)), np.uint8)
    bits = np.unpackbits(packed, count=walled.size).astype(np.bool_)
    return bits.reshape(walled.shape)[:, :side, :side]


def _middle_rooms(side: int) -> tuple[int, int]:
    """The row, and the column, of the first and of the last middle room: two of an even number, one of an odd."""
    rooms = (side + 1) // 2
    return (rooms - 1) // 2 * 2, rooms // 2 * 2


def _perfect(to_MR: Indices) -> Bools:
    """[M, n, n] rooms at even (row, column), each joined to the room [M, R] next on the way to the root."""
    count, size = to_MR.shape
    rooms = math.isqrt(size)
    blocked = np.ones((count, 2 * rooms - 1, 2 * rooms - 1), np.bool_)
    blocked[:, ::2, ::2] = False
    row_R, column_R = np.divmod(np.arange(size), rooms)
    # A room is two cells from the next, so the sum of their room coordinates is the cell between them.
    blocked[np.arange(count)[:, None], row_R + row_R[to_MR], column_R + column_R[to_MR]] = False
    return blocked


def _mouse(count: int, side: int, braid: float, exit: str, rng: np.random.Generator) -> Bools:
    """[M, n, n] like the mazes of micromouse competitions: rooms at even (row, column), long corridors, and loops.

    Where the exits are in the center, they make one open square with a single entrance.
    """
    rooms = (side + 1) // 2
    low, high = _middle_rooms(side)
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
    door_L2 = np.array(around + [(edge, row) for row, edge in around])
    row_M, column_M = door_L2[rng.integers(len(door_L2), size=len(blocked))].T
    blocked[np.arange(len(blocked)), row_M, column_M] = False


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


def _blocks(count: int, side: int, density: float, exit: str, rng: np.random.Generator) -> Bools:
    """[M, n, n] each cell blocked with probability `density`, the start and a corner exit never."""
    blocked = rng.random((count, side, side), np.float32) < density
    blocked[:, 0, 0] = False
    if exit == "corner":
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

    to_MR = trees.uniform(count, rooms, rng)
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


def _open_doors(blocked: Bools, door_MRR: Bools, row_ML: Indices, column_ML: Indices, rng: np.random.Generator) -> None:
    """Opens a cell of the wall right of each room with a door, in place; the last of a row have none."""
    maze_N, down_N, right_N = np.nonzero(door_MRR[:, :, :-1])
    row_N = rng.integers(row_ML[maze_N, down_N] + 1, row_ML[maze_N, down_N + 1])
    blocked[maze_N, row_N, column_ML[maze_N, right_N + 1]] = False


def _from_file(path: str, count: int, rng: np.random.Generator, held_out: bool) -> Mazes:
    """`count` mazes of the file on the wanted side of the split, drawn with replacement, as they are in the file."""
    training, kept_back = _file(path)
    wanted = kept_back if held_out else training
    if not len(wanted):
        total = len(training) + len(kept_back)
        raise MazeError(
            f"no {_split(held_out)} maze is among the {total} in {path}; "
            "about one in ten is held out, by a hash of its grid, so add more mazes"
        )
    return wanted[rng.integers(len(wanted), size=count)]


@lru_cache(maxsize=4)
def _file(path: str) -> tuple[Mazes, Mazes]:
    """The training and the held-out mazes of a file."""
    mazes = Mazes.concatenate([one.maze for one in read_mazes(path)])
    kept_back = is_held_out(mazes)
    return mazes[~kept_back], mazes[kept_back]


def _split(held_out: bool) -> str:
    return "held-out" if held_out else "training"
