"""A maze: its text, its grid, the shortest ways through it, and whether it may be trained on."""

# M mazes, n side, C = n*n cells (row-major), N cells of all mazes that meet a condition

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from operator import xor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from protocol.config import ClewError

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int32]
Indices = npt.NDArray[np.intp]

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left as (row, column); A = 4
NO_MOVE = 4  # the "previous move" of the start state
UNREACHABLE = np.iinfo(np.int32).max  # the distance where there is no way
MAX_SIDE = 51
FLOOD_CELLS = 2**15  # up to which one number for all cells is faster than lists of cells, measured
LEGEND = "# is a wall, . or a space a free cell, S the start, E or G the exit"


class MazeError(ClewError):
    """A maze that cannot be used; the message names file, maze, line and remedy."""


@dataclass(frozen=True)
class Mazes:
    """M mazes of one side."""

    blocked: Bools  # [M, n, n] True where there is a wall
    start: Ints  # [M] cell, row * n + column
    exit: Ints  # [M] cell

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp] | Bools) -> Mazes:
        return Mazes(self.blocked[rows], self.start[rows], self.exit[rows])

    @property
    def side(self) -> int:
        return int(self.blocked.shape[-1])

    @staticmethod
    def concatenate(parts: Sequence[Mazes]) -> Mazes:
        """All mazes of `parts` (of one side), in order."""
        return Mazes(
            np.concatenate([part.blocked for part in parts]),
            np.concatenate([part.start for part in parts]),
            np.concatenate([part.exit for part in parts]),
        )

    @staticmethod
    def from_text(text: str) -> Mazes:
        """Mazes as `read_mazes` reads them, padded to the side of the largest."""
        mazes = list(_parse(text, "maze text"))
        side = max(maze.side for maze in mazes)
        return Mazes.concatenate([pad(maze, side) for maze in mazes])

    def to_text(self, index: int) -> str:
        """Maze `index` as n lines of `#`, `.`, one `S` and one `E`; no newline at the end."""
        character_C = np.where(self.blocked[index].reshape(-1), "#", ".")
        character_C[self.start[index]], character_C[self.exit[index]] = "S", "E"
        return "\n".join("".join(row) for row in character_C.reshape(self.side, self.side))


class NamedMaze(NamedTuple):
    """A maze of a file."""

    name: str  # "stem:1", "stem:2", ... in the file's order; "stem" where the file holds one maze
    maze: Mazes  # M = 1, of its own side


def read_mazes(path: str | Path) -> list[NamedMaze]:
    """The mazes of a text file: `#` wall, `.` or space free, `S` start, `E` or `G` exit.

    Lines of whitespace alone separate mazes, so a row of nothing but free cells is drawn with dots. Walls to
    the right or below make a maze square. Raises MazeError, which names file, maze, line and remedy.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise MazeError(f"cannot read maze file {path}: {error.strerror}; name a text file") from error
    except UnicodeDecodeError as error:
        raise MazeError(f"{path} is not UTF-8 text from byte {error.start} on; save it as UTF-8") from error
    mazes = list(_parse(text, str(path)))
    if len(mazes) == 1:
        return [NamedMaze(path.stem, mazes[0])]
    return [NamedMaze(f"{path.stem}:{number}", maze) for number, maze in enumerate(mazes, start=1)]


def pad(mazes: Mazes, side: int) -> Mazes:
    """The same mazes with walls added to the right and below, up to `side`; MazeError if theirs is more."""
    more = side - mazes.side
    if more < 0:
        raise MazeError(
            f"mazes of side {mazes.side} do not fit into side {side}; pad to {mazes.side} or more"
        )
    return Mazes(
        np.pad(mazes.blocked, ((0, 0), (0, more), (0, more)), constant_values=True),
        mazes.start + mazes.start // mazes.side * np.int32(more),
        mazes.exit + mazes.exit // mazes.side * np.int32(more),
    )


def held_out(mazes: Mazes) -> Bools:
    """[M] True where a maze is never trained on: about one grid in ten, by a hash of its free cells.

    Start, exit and padding play no part, so what differs in these alone stays on the same side.
    """
    maze_N, row_N, column_N = np.nonzero(~mazes.blocked)
    cells = (row_N << 8 | column_N).astype("<u2").tobytes()
    ends = np.cumsum(np.append(0, np.bincount(maze_N, minlength=len(mazes)))) * 2  # bytes
    hashes = [hashlib.blake2b(cells[begin:end]).digest() for begin, end in pairwise(ends.tolist())]
    return np.array([int.from_bytes(digest[:8], "little") % 10 == 0 for digest in hashes], np.bool_)


def distance(blocked: Bools, source: Ints) -> Ints:
    """[M, C] steps on the shortest path between each cell and `source`; UNREACHABLE where there is none.

    Args:
      source: [M] a free cell of each maze.
    """
    count, side = blocked.shape[:2]
    # A wall right of each row and below the last keeps every move inside its maze.
    width = side + 1
    free_MWW = np.zeros((count, width, width), np.bool_)
    np.logical_not(blocked, out=free_MWW[:, :side, :side])
    first = np.arange(count) * width**2 + source + source // side
    search = _flood if free_MWW.size <= FLOOD_CELLS else _walk
    steps = search(free_MWW.reshape(-1), first, width)
    return steps.reshape(count, width, width)[:, :side, :side].reshape(count, side**2)


def _flood(free: Bools, first: Indices, width: int) -> Ints:
    """Steps from the cells `first`, breadth-first: the cells are bits of one number, and a shift moves them all.

    The distances are numbers too, one for each digit. They count in Gray code, where a level differs from the
    one before in a single digit.
    """
    started = np.zeros_like(free)
    started[first] = True
    frontier, unreached = (int.from_bytes(np.packbits(bits).tobytes()) for bits in (started, free & ~started))
    digits = [0] * free.size.bit_length()
    level = 0
    while frontier:
        level += 1
        digits[(level & -level).bit_length() - 1] ^= unreached
        beside = frontier | frontier << width - 1
        frontier = (beside | beside << width + 1) >> width & unreached  # moved by -width, -1, 1 and width
        unreached ^= frontier
    count, size = level.bit_length(), -(-free.size // 8)
    digits = list(accumulate(digits[count - 1 :: -1], xor))  # in binary, the highest first
    packed = np.frombuffer(b"".join(digit.to_bytes(size) for digit in digits), np.uint8)
    bits = np.unpackbits(packed.reshape(count, size), axis=1, count=free.size)
    weights = 2 ** np.arange(count, dtype=np.int32)[::-1]
    steps: Ints = np.einsum("d,dn->n", weights, bits)  # numpy is slow at @ of integers
    steps[~free | (steps == level)] = UNREACHABLE  # what is never reached counts on to the last, empty level
    return steps


def _walk(free: Bools, first: Indices, width: int) -> Ints:
    """The same with a list of cells for a level: faster where many mazes make long numbers."""
    free, steps = free.copy(), np.full(free.size, UNREACHABLE, np.int32)
    around = np.array([down * width + right for down, right in MOVES])
    frontier = first
    free[frontier] = False
    steps[frontier] = 0
    level = 0
    while frontier.size:
        level += 1
        reached = np.add.outer(around, frontier).reshape(-1)  # an index below 0 finds the last wall
        reached = reached[free[reached]]
        order = np.arange(reached.size, dtype=np.int32)
        steps[reached] = order  # the last of equals overwrites the others, which are then dropped
        frontier = reached[steps[reached] == order]
        free[frontier] = False
        steps[frontier] = level
    return steps


def _parse(text: str, source: str) -> Iterator[Mazes]:
    """Each maze of `text`; MazeError, which names `source`, at the first of no use or where there is none."""
    lines = enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), start=1)
    groups = groupby(lines, key=lambda line: bool(line[1].strip()))
    drawings = [list(group) for filled, group in groups if filled]
    if not drawings:
        raise MazeError(f"{source} holds no maze; draw one: {LEGEND}")
    for number, drawing in enumerate(drawings, start=1):
        yield _maze([row for _, row in drawing], f"{source}, maze {number}", first_line=drawing[0][0])


def _maze(rows: list[str], name: str, first_line: int) -> Mazes:
    """The maze that `rows` draw."""

    def refusal(row: int, sentence: str) -> MazeError:
        return MazeError(f"{name}, line {first_line + row}: {sentence}")

    height, width = len(rows), len(rows[0])
    side = max(height, width)
    if side > MAX_SIDE:
        raise refusal(
            0, f"{height} rows of {width} cells are too many; draw {MAX_SIDE} by {MAX_SIDE} at most"
        )
    if height * width < 2:
        raise refusal(0, "a single cell is too small; draw two or more, among them S and E")
    blocked = np.ones((1, side, side), np.bool_)
    marks: dict[str, list[int]] = {"S": [], "E": []}
    for row, text in enumerate(rows):
        if len(text) != width:
            raise refusal(row, f"{len(text)} cells, where the first row has {width}; make all rows as long")
        for column, character in enumerate(text.replace("G", "E")):
            if character not in "#. SE":
                raise refusal(row, f"{character!r} is not a cell; {LEGEND}")
            blocked[0, row, column] = character == "#"
            if character in marks:
                marks[character].append(row * side + column)

    for mark, meaning in (("S", "start"), ("E", "exit")):
        if not marks[mark]:
            raise refusal(0, f"no {meaning}; mark one cell {mark} (a line of spaces alone ends a maze)")
        if len(marks[mark]) > 1:
            raise refusal(marks[mark][1] // side, f"a second {meaning}; leave one cell marked {mark}")
    maze = Mazes(blocked, np.array(marks["S"], np.int32), np.array(marks["E"], np.int32))
    if distance(blocked, maze.start)[0, maze.exit[0]] == UNREACHABLE:
        raise refusal(0, "no way leads from the start to the exit; open a wall between them")
    return maze
