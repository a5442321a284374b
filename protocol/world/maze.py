"""A maze: its text, its cells, the shortest ways through it, and whether it may be trained on."""

# M mazes of any sizes, C cells of all of them (row by row, one maze after another), A moves,
# N cells of all mazes that meet a condition

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from protocol.compiled import compiled, plain
from protocol.config import MAX_SIDE, ClewError

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int32]
Kinds = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float32]

FREE, WALL, EXIT, TRAP = range(4)  # what a cell is
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left as (row, column); A = 4
NO_MOVE = 4  # the "previous move" of the start
UNREACHABLE = np.iinfo(np.int32).max  # the distance where there is no way


CHARACTERS = ".#EH"  # how a cell of each kind is written
KINDS = {"#": WALL, ".": FREE, " ": FREE, "F": FREE, "S": FREE, "E": EXIT, "G": EXIT, "H": TRAP}
LEGEND = "# is a wall, . or F or a space a free cell, H a trap, S the start, E or G an exit"
POSTS = "o+"  # a drawing that begins with one of these has walls of --- and |
MARKS = " SEGH"  # what may stand in the middle of its cells

Refusal = Callable[[int, str], "MazeError"]  # the line of a drawing, from 0, and what is wrong there


class MazeError(ClewError):
    """A maze that cannot be used; the message names file, maze, line and remedy."""


@dataclass(frozen=True)
class Mazes:
    """M mazes of any sizes; the cells of all, row by row, one maze after another."""

    shape_M2: Ints  # [M, 2] rows, columns
    start_M: Ints  # [M] the start, among the cells of its own maze: row * columns + column
    cell_C: Kinds  # [C] what each cell is: FREE, WALL, EXIT or TRAP

    def __len__(self) -> int:
        """How many mazes there are: M."""
        return len(self.start_M)

    def __getitem__(self, rows: slice | Indices | Bools) -> Mazes:
        """The mazes that `rows` picks, in its order: a slice, [N] numbers of mazes, or [M] booleans."""
        return Mazes(self.shape_M2[rows], self.start_M[rows], self.cell_C[self.cells_of(rows)])

    def cells_of(self, rows: slice | Indices | Bools) -> slice | Indices:
        """The rows, among all C, of the cells of the mazes that `rows` picks: a slice where they are in one piece."""
        offset, count = self.offset_M[rows], self.count_M[rows]
        if isinstance(rows, slice) and rows.step in (None, 1):
            return slice(int(offset[0]), int(offset[-1] + count[-1])) if len(offset) else slice(0, 0)
        cells: Indices = np.repeat(offset - (np.cumsum(count) - count), count) + np.arange(count.sum())
        return cells

    @property
    def cells(self) -> int:
        """How many cells all mazes have together: C."""
        return len(self.cell_C)

    @cached_property
    def count_M(self) -> Indices:
        """[M] cells of each maze."""
        return self.shape_M2[:, 0].astype(np.intp) * self.shape_M2[:, 1]

    @cached_property
    def offset_M(self) -> Indices:
        """[M] the row of each maze's first cell among all C cells."""
        offset: Indices = np.cumsum(self.count_M) - self.count_M
        return offset

    @cached_property
    def first_M(self) -> Indices:
        """[M] the row of each maze's start among all C cells."""
        return self.offset_M + self.start_M

    @cached_property
    def maze_C(self) -> Indices:
        """[C] the number of the maze that each cell belongs to."""
        return np.repeat(np.arange(len(self)), self.count_M)

    @cached_property
    def place_C2(self) -> Ints:
        """[C, 2] the row and the column of each cell within its own maze."""
        return np.concatenate([_places(0, 0), *(_places(*shape) for shape in self.shape_M2.tolist())])

    @cached_property
    def ahead_CA(self) -> Indices:
        """[C, A] the row, among all C, of the cell that each move leads to.

        A move into a wall or over the border leads nowhere: its row is that of the cell itself, as are all four of
        a wall. Moves out of exits and traps are listed as for free cells, though no attempt makes them.
        """
        step_CA = np.concatenate([_steps(0, 0), *(_steps(*shape) for shape in self.shape_M2.tolist())])
        open_C = self.cell_C != WALL
        here_C1 = np.arange(self.cells)[:, None]
        step_CA *= open_C.take(here_C1 + step_CA) & open_C[:, None]
        step_CA += here_C1
        return step_CA

    @staticmethod
    def concatenate(parts: Sequence[Mazes]) -> Mazes:
        """All mazes of `parts`, in order; there is at least one part."""
        return Mazes(
            np.concatenate([part.shape_M2 for part in parts]),
            np.concatenate([part.start_M for part in parts]),
            np.concatenate([part.cell_C for part in parts]),
        )

    @staticmethod
    def from_text(text: str) -> Mazes:
        """The mazes of a text, as `read_mazes` reads them; MazeError, which names maze, line and remedy."""
        return Mazes.concatenate(list(_parse(text, "maze text")))

    def to_text(self, index: int) -> str:
        """Maze `index` as lines of `#`, `.`, `H` for a trap, `E` for an exit and one `S`; no newline at the end."""
        rows, columns = self.shape_M2[index]
        first = self.offset_M[index]
        character_C = np.array(list(CHARACTERS))[self.cell_C[first : first + self.count_M[index]]]
        character_C[self.start_M[index]] = "S"
        return "\n".join("".join(row) for row in character_C.reshape(rows, columns))


class NamedMaze(NamedTuple):
    """A maze of a file."""

    name: str  # "stem:1", "stem:2", ... in the file's order; "stem" where the file holds one maze
    maze: Mazes  # M = 1


def read_mazes(path: str | Path) -> list[NamedMaze]:
    """The mazes of a text file, in its order.

    There are two forms, and a file may mix them. In the first, a character is a cell: `#` wall, `.`, `F` or space
    free, `H` trap, `S` start, `E` or `G` exit. In the second, the one of micromouse competitions, a cell is four
    characters wide: posts `o` or `+`, walls `---` and `|`, and `S`, `G`, `E` or `H` in the middle of a cell; the
    rooms come to lie at even rows and columns, the walls between them, and the outer wall is left out. Lines of
    whitespace alone separate mazes. Raises MazeError, which names file, maze, line and remedy.
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


def held_out(mazes: Mazes) -> Bools:
    """[M] True where a maze is never trained on: about one grid in ten, by a hash of the cells that are no walls.

    Start, exits, traps and the walls around play no part, so what differs in these alone stays on the same side.
    """
    cell_N = np.flatnonzero(mazes.cell_C != WALL)
    code_C = np.concatenate([_codes(0, 0), *(_codes(*shape) for shape in mazes.shape_M2.tolist())])
    places = code_C.take(cell_N).tobytes()
    ends = 2 * np.searchsorted(cell_N, np.append(mazes.offset_M, mazes.cells))  # bytes
    hashes = [hashlib.blake2b(places[begin:end]).digest() for begin, end in pairwise(ends.tolist())]
    return np.array([int.from_bytes(digest[:8], "little") % 10 == 0 for digest in hashes], np.bool_)


def to_exit(mazes: Mazes) -> Ints:
    """[C] steps from each cell to the nearest exit, by no trap and past no exit; UNREACHABLE where none leads there."""
    return distance(mazes.ahead_CA, np.flatnonzero(mazes.cell_C == EXIT), mazes.cell_C == FREE)


def shortest_M(mazes: Mazes) -> Ints:
    """[M] steps on the shortest way from the start to an exit; UNREACHABLE where there is none."""
    return to_exit(mazes)[mazes.first_M]


def distance(ahead_CA: Indices, source_rows: Indices, passable_C: Bools) -> Ints:
    """[C] steps on the shortest way from each cell to the nearest source; UNREACHABLE where there is none.

    Args:
      ahead_CA: [C, A] where each move leads, as in `Mazes`: whatever leads there also leads back.
      source_rows: rows among all C, of any mazes; they count as reached, passable or not.
      passable_C: [C] the cells that a way may use.
    """
    open_C, steps_C = passable_C.copy(), np.full(len(passable_C), UNREACHABLE, np.int32)
    if machine := compiled("ways"):
        machine.fill_distance(plain(ahead_CA), plain(source_rows), open_C, steps_C)
        return steps_C
    # Breadth-first by lists of cells: all mazes go one step on at a time.
    frontier = source_rows
    open_C[frontier] = False
    steps_C[frontier] = 0
    level = 0
    while frontier.size:
        level += 1
        reached = ahead_CA.take(frontier, axis=0).reshape(-1)
        reached = reached[open_C.take(reached)]
        order = np.arange(reached.size, dtype=np.int32)
        steps_C[reached] = order  # the last of equals overwrites the others, which are then dropped
        frontier = reached[steps_C.take(reached) == order]
        open_C[frontier] = False
        steps_C[frontier] = level
    return steps_C


# What follows belongs to a shape, not to a maze: a batch has many mazes and few shapes.


@lru_cache(maxsize=64)
def _places(rows: int, columns: int) -> Ints:
    """[C, 2] the row and the column of each cell of a maze."""
    return np.indices((rows, columns), np.int32).reshape(2, -1).T


@lru_cache(maxsize=64)
def _codes(rows: int, columns: int) -> npt.NDArray[np.uint16]:
    """[C] the row and the column of each cell of a maze in one number, the column in the lower byte."""
    row_C, column_C = _places(rows, columns).T
    code_C: npt.NDArray[np.uint16] = (row_C << 8 | column_C).astype("<u2")
    return code_C


@lru_cache(maxsize=64)
def _steps(rows: int, columns: int) -> Indices:
    """[C, A] how many cells further on, row by row, each move leads; 0 where that would be over the border."""
    row_C, column_C = _places(rows, columns).T
    inside = (row_C > 0, column_C < columns - 1, row_C < rows - 1, column_C > 0)
    steps = [(down * columns + right) * inside_C for (down, right), inside_C in zip(MOVES, inside, strict=True)]
    return np.stack(steps, axis=-1).astype(np.intp)


def _parse(text: str, source: str) -> Iterator[Mazes]:
    """Each maze of `text`; MazeError, which names `source`, at the first of no use or where there is none."""
    lines = enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), start=1)
    groups = groupby(lines, key=lambda line: bool(line[1].strip()))
    drawings = [list(group) for filled, group in groups if filled]
    if not drawings:
        raise MazeError(f"{source} holds no maze; draw one: {LEGEND}")
    for number, drawing in enumerate(drawings, start=1):
        yield _maze([row for _, row in drawing], f"{source}, maze {number}", first_line=drawing[0][0])


def _maze(lines: list[str], name: str, first_line: int) -> Mazes:
    """The maze that `lines` draw, in either form."""

    def refusal(line: int, sentence: str) -> MazeError:
        return MazeError(f"{name}, line {first_line + line}: {sentence}")

    if lines[0][0] not in POSTS:
        return _of_cells(lines, refusal)
    # What was drawn above the first row of rooms is the outer wall, which is left out.
    return _of_cells(_without_posts(lines, refusal), lambda row, sentence: refusal(row + 1, sentence))


def _of_cells(rows: list[str], refusal: Refusal) -> Mazes:
    """The maze of a drawing in which a character is a cell."""
    height, width = len(rows), len(rows[0])
    if max(height, width) > MAX_SIDE:
        raise refusal(0, f"{height} rows of {width} cells are too many; draw {MAX_SIDE} by {MAX_SIDE} at most")
    if height * width < 2:
        raise refusal(0, "a single cell is too small; draw two or more, among them S and E")
    for row, text in enumerate(rows):
        if len(text) != width:
            raise refusal(row, f"{len(text)} cells, where the first row has {width}; make all rows as long")
        for character in text:
            if character not in KINDS:
                raise refusal(row, f"{character!r} is not a cell; {LEGEND}")
    text = "".join(rows)
    starts = [cell for cell, character in enumerate(text) if character == "S"]
    if not starts:
        raise refusal(0, "no start; mark one cell S (a line of spaces alone ends a maze)")
    if len(starts) > 1:
        raise refusal(starts[1] // width, "a second start; leave one cell marked S")
    cells = np.array([KINDS[character] for character in text], np.uint8)
    maze = Mazes(np.array([[height, width]], np.int32), np.array(starts, np.int32), cells)
    _check_ways(maze, refusal)
    return maze


def _check_ways(maze: Mazes, refusal: Refusal) -> None:
    """Refuses the one maze that `maze` holds where no exit can be reached."""
    exits = np.flatnonzero(maze.cell_C == EXIT)
    if not exits.size:
        raise refusal(0, "no exit; mark one cell or more E (a line of spaces alone ends a maze)")
    if shortest_M(maze)[0] != UNREACHABLE:
        return
    if distance(maze.ahead_CA, exits, maze.cell_C != WALL)[maze.start_M[0]] == UNREACHABLE:
        raise refusal(0, "no way leads from the start to an exit; open a wall between them")
    raise refusal(0, "an exit can be reached only through a trap; open a way around it, or replace H by a dot")


def _without_posts(lines: list[str], refusal: Refusal) -> list[str]:
    """A drawing with posts as one in which a character is a cell, without the outer wall."""
    width = len(lines[0].rstrip())
    if width % 4 != 1 or width < 5:
        raise refusal(0, f"{width} characters are no row of posts; draw o---o---o, four characters a cell and a post")
    if len(lines) % 2 == 0 or len(lines) < 3:
        raise refusal(
            len(lines) - 1,
            "a drawing with posts ends with the outer wall below; draw it (a line of spaces alone ends a maze)",
        )
    rooms, most = (len(lines) // 2, width // 4), (MAX_SIDE + 1) // 2
    if max(rooms) > most:
        raise refusal(0, f"{rooms[0]} rows of {rooms[1]} cells are too many; draw {most} by {most} at most")
    rows = []
    for line, drawn in enumerate(lines):
        text = drawn.rstrip().ljust(width)
        if len(text) != width:
            raise refusal(line, f"{len(text)} characters, where the first row has {width}; make all rows as long")
        rows.append((_row_of_rooms if line % 2 else _row_of_walls)(text, line, refusal))
        border = rows[-1] if line in (0, len(lines) - 1) else rows[-1][0] + rows[-1][-1]
        if "." in border:
            raise refusal(line, "the outer wall has a gap; close it with --- or |")
    return [row[1:-1] for row in rows[1:-1]]


def _row_of_walls(text: str, line: int, refusal: Refusal) -> str:
    """`o---o   o` as `###.#`."""
    for post in text[::4]:
        if post not in POSTS:
            raise refusal(line, f"{post!r} is not a post; draw o or + at every fourth character")
    return "#" + "".join(_wall(text[at : at + 3], "---", line, refusal) + "#" for at in range(1, len(text), 4))


def _row_of_rooms(text: str, line: int, refusal: Refusal) -> str:
    """`| S     |` as `#S..#`."""
    row = _wall(text[0], "|", line, refusal)
    for at in range(1, len(text), 4):
        inside, mark = text[at : at + 3], text[at + 1]
        if inside != f" {mark} " or mark not in MARKS:
            wanted = "leave it empty, or draw S, G or H in the middle of its three characters"
            raise refusal(line, f"{inside!r} is not a cell; {wanted}")
        row += mark.replace(" ", ".") + _wall(text[at + 3], "|", line, refusal)
    return row


def _wall(drawn: str, wall: str, line: int, refusal: Refusal) -> str:
    """`#` where `drawn` is `wall`, `.` where it is blank."""
    if drawn not in (wall, " " * len(wall)):
        raise refusal(line, f"{drawn!r} is not a wall; draw {wall!r}, or {' ' * len(wall)!r} where there is none")
    return "#" if drawn == wall else "."
