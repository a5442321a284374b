"""The task distributions: how a seed becomes mazes with exits and traps, on one side of the held-out split."""

# M mazes, n side, I cells of one maze

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from protocol.config import ODD_SIDES, MazeConfig
from protocol.world.cells import EXIT, FREE, TRAP, Bools, Kinds, MazeError
from protocol.world.maze import Mazes, read_mazes
from protocol.world.maze import held_out as is_held_out
from protocol.world.walls import middle_rooms, walls_of

TRIES = 1000  # mazes drawn for each one wanted, after which the family counts as exhausted
CELLS_AT_ONCE = 1 << 20  # cells of all mazes drawn together; bounds the memory


def sample(config: MazeConfig, count: int, rng: np.random.Generator, *, held_out: bool) -> Mazes:
    """Draws `count` solvable mazes, all of the training or all of the held-out side of the split; they may repeat.

    They are of one family and, except in family 'file', of one side: each is drawn from the config's list. The result
    is a pure function of the arguments and, in family 'file', of the file as it was when it was first read.
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
        # This is a fifth more than the yield so far asks for: a second round costs as much as a larger first one.
        share = (kept + 1) / (drawn + (10 if held_out else 1))
        size = min(int((count - kept) / share * 1.2) + 4, max(1, CELLS_AT_ONCE // side**2))
        parts.append(_draw(config, family, side, size, rng, held_out)[: count - kept])
        drawn, kept = drawn + size, kept + len(parts[-1])
    return Mazes.concatenate(parts)


def try_out(config: MazeConfig) -> None:
    """Raises what `sample` would raise if mazes of a file, or of a function of the user's own, are of no use."""
    for family in config.families:
        if family == "file" or ":" in family:
            sample(config.model_copy(update={"family": family}), 1, np.random.default_rng(0), held_out=False)


def _draw(config: MazeConfig, family: str, side: int, count: int, rng: np.random.Generator, held_out: bool) -> Mazes:
    """Draws `count` mazes of a generated family, and returns those that can be used."""
    blocked = walls_of(config, family, side, count, rng)
    corner = np.broadcast_to(np.arange(side * side).reshape(side, side) == 0, blocked.shape)
    if not config.traps:
        blocked = blocked[is_held_out(_mazes(blocked.astype(np.uint8), corner)) == held_out]
    free, start = ~blocked, _some(~blocked, 1, rng) if config.start == "random" else corner[: len(blocked)]
    if config.exit == "random":
        exit = _some(_reached(free, start, config.min_distance), config.exits, rng)
    else:
        exit = _reached(free, start, 1) & _exits(config.exit, family, side)
    solvable_M = exit.any(axis=(1, 2))
    kind, start = np.where(exit, np.uint8(EXIT), blocked)[solvable_M], start[solvable_M]  # a wall is 1, a free cell 0
    if not config.traps:
        return _mazes(kind, start)
    mazes = _mazes(*_with_traps(kind, start, config.traps, rng))
    return mazes[is_held_out(mazes) == held_out]


def _mazes(kind: Kinds, start: Bools) -> Mazes:
    """Makes mazes of their cells [M, n, n], and of the cells where they start."""
    count, side = kind.shape[:2]
    start_M = start.reshape(count, side * side).argmax(axis=1).astype(np.int32)
    return Mazes(np.full((count, 2), side, np.int32), start_M, kind.reshape(-1))


def _some(cells: Bools, count: int, rng: np.random.Generator) -> Bools:
    """Picks `count` of the `cells` of each maze [M, n, n], any as likely as any other; none where there are fewer."""
    mazes = len(cells)
    chance_MI = np.where(cells, rng.random(cells.shape, np.float32), -1).reshape(mazes, math.prod(cells.shape[1:]))
    some_MI = np.zeros(chance_MI.shape, np.bool_)
    maze_M, enough_M = np.arange(mazes), np.ones(mazes, np.bool_)
    for _ in range(count):
        best_M = chance_MI.argmax(axis=1)
        enough_M &= chance_MI[maze_M, best_M] >= 0
        some_MI[maze_M, best_M] = True
        chance_MI[maze_M, best_M] = -1
    return (some_MI & enough_M[:, None]).reshape(cells.shape)


def _exits(exit: str, family: str, side: int) -> Bools:
    """Returns [n, n] True for the cells that are exits if they can be reached: the far corner, or the middle."""
    exits = np.zeros((side, side), np.bool_)
    if exit == "corner":
        exits[-1, -1] = True
    elif family not in ODD_SIDES:
        middle = slice(side // 2 - 1, (side + 1) // 2 + 1)  # two cells of an even side, three of an odd one
        exits[middle, middle] = True
    else:
        low, high = middle_rooms(side)
        exits[low : high + 1 : 2, low : high + 1 : 2] = True
    return exits


def _with_traps(kind: Kinds, start: Bools, share: float, rng: np.random.Generator) -> tuple[Kinds, Bools]:
    """Turns each free cell but the start into a trap with chance `share`, in mazes [M, n, n]; returns starts, too.

    Mazes in which an exit can no longer be reached are dropped.
    """
    trap = (kind == FREE) & (rng.random(kind.shape, np.float32) < share) & ~start
    kind = np.where(trap, np.uint8(TRAP), kind)
    lost = (kind == EXIT) & ~_reached((kind == FREE) | (kind == EXIT), start)
    solvable_M: Bools = ~lost.any(axis=(1, 2))
    return kind[solvable_M], start[solvable_M]


def _reached(free: Bools, start: Bools, min_distance: int = 0) -> Bools:
    """Returns [M, n, n] True for the cells that can be reached from the start, in `min_distance` steps or more.

    The cells of all mazes are the bits of one number, and a shift moves them all.
    """
    count, side = free.shape[:2]
    width = side + 1  # a wall right of each row and below the last keeps every move inside its maze
    walled, starts = np.zeros((2, count, width, width), np.bool_)
    walled[:, :side, :side], starts[:, :side, :side] = free, start
    frontier, unreached = (int.from_bytes(np.packbits(cells).tobytes()) for cells in (starts, walled & ~starts))
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


def _from_file(path: str, count: int, rng: np.random.Generator, held_out: bool) -> Mazes:
    """Draws `count` mazes of a file, with replacement, on one side of the split; raises MazeError if there is none."""
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
    """Reads the training and the held-out mazes of a file."""
    mazes = Mazes.concatenate([one.maze for one in read_mazes(path)])
    kept_back = is_held_out(mazes)
    return mazes[~kept_back], mazes[kept_back]


def _split(held_out: bool) -> str:
    """Names a side of the split."""
    return "held-out" if held_out else "training"
