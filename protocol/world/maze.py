"""Mazes as arrays, the shortest ways through them, and whether they may be trained on."""

# M mazes of any sizes, C cells of all mazes (row by row, one maze after another), A moves,
# X cells of all mazes that meet a condition, I cells of one maze

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from protocol.compiled import compiled, plain
from protocol.world.cells import EXIT, FREE, MOVES, TRAP, UNREACHABLE, WALL, Bools, Indices, Ints, Kinds, MazeError
from protocol.world.drawing import Drawing, drawings, to_text


@dataclass(frozen=True)
class Mazes:
    """M mazes of any sizes; the cells of all, row by row, one maze after another."""

    shape_M2: Ints  # [M, 2] rows, columns
    start_M: Ints  # [M] the start, among the cells of its own maze: row * columns + column
    cell_C: Kinds  # [C] what each cell is: FREE, WALL, EXIT or TRAP

    def __len__(self) -> int:
        """Counts the mazes: M."""
        return len(self.start_M)

    def __getitem__(self, rows: slice | Indices | Bools) -> Mazes:
        """Returns the mazes that `rows` picks, in its order: a slice, numbers of mazes, or [M] booleans."""
        return Mazes(self.shape_M2[rows], self.start_M[rows], self.cell_C[self.cells_of(rows)])

    def cells_of(self, rows: slice | Indices | Bools) -> slice | Indices:
        """Returns the rows, among the C, of all cells of the mazes that `rows` picks: a slice where it is one."""
        offset, count = self.offset_M[rows], self.count_M[rows]
        if isinstance(rows, slice) and rows.step in (None, 1):
            return slice(int(offset[0]), int(offset[-1] + count[-1])) if len(offset) else slice(0, 0)
        cells: Indices = np.repeat(offset - (np.cumsum(count) - count), count) + np.arange(count.sum())
        return cells

    @property
    def cells(self) -> int:
        """Counts the cells that all mazes have together: C."""
        return len(self.cell_C)

    @cached_property
    def count_M(self) -> Indices:
        """Counts the cells of each maze [M]."""
        return self.shape_M2[:, 0].astype(np.intp) * self.shape_M2[:, 1]

    @cached_property
    def offset_M(self) -> Indices:
        """Returns the row of each maze's first cell among the C [M]."""
        offset: Indices = np.cumsum(self.count_M) - self.count_M
        return offset

    @cached_property
    def first_M(self) -> Indices:
        """Returns the row of each maze's start among the C [M]."""
        return self.offset_M + self.start_M

    @cached_property
    def maze_C(self) -> Indices:
        """Returns the number of the maze that each cell belongs to [C]."""
        return np.repeat(np.arange(len(self)), self.count_M)

    @cached_property
    def place_C2(self) -> Ints:
        """Returns the row and the column of each cell within its own maze [C, 2]."""
        return np.concatenate([_places(0, 0), *(_places(*shape) for shape in self.shape_M2.tolist())])

    @cached_property
    def ahead_CA(self) -> Indices:
        """Returns the row, among the C, of the cell that each move leads to [C, A].

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
        """Puts the mazes of all `parts` together, in order; there is at least one part."""
        return Mazes(
            np.concatenate([part.shape_M2 for part in parts]),
            np.concatenate([part.start_M for part in parts]),
            np.concatenate([part.cell_C for part in parts]),
        )

    @staticmethod
    def from_text(text: str) -> Mazes:
        """Reads the mazes of a text as `read_mazes` does; raises MazeError, which names maze, line and remedy."""
        return Mazes.concatenate([_usable(drawing) for drawing in drawings(text, "maze text")])

    def to_text(self, index: int) -> str:
        """Draws maze `index`: lines of `#`, `.`, `H` for a trap, `E` for an exit and one `S`; no newline at the end."""
        first = self.offset_M[index]
        cells: Kinds = self.cell_C[first : first + self.count_M[index]].reshape(self.shape_M2[index])
        return to_text(cells, int(self.start_M[index]))


class NamedMaze(NamedTuple):
    """A maze of a file."""

    name: str  # "stem:1", "stem:2", ... in the file's order; "stem" where the file holds one maze
    maze: Mazes  # M = 1


def read_mazes(path: str | Path) -> list[NamedMaze]:
    """Reads the mazes of a text file, in its order.

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
    except ValueError as error:  # no file has such a name
        raise MazeError(f"cannot read maze file {str(path)!r}: {error}; name a text file") from error
    mazes = [_usable(drawing) for drawing in drawings(text, str(path))]
    if len(mazes) == 1:
        return [NamedMaze(path.stem, mazes[0])]
    return [NamedMaze(f"{path.stem}:{number}", maze) for number, maze in enumerate(mazes, start=1)]


def held_out(mazes: Mazes) -> Bools:
    """Says which mazes are never trained on [M]: about one grid in ten, by a hash of the free cells and the exits.

    Start, exits and the walls around play no part, so what differs in these alone stays on the same side; nor does it
    matter whether a cell is a wall or a trap.
    """
    cell_X = np.flatnonzero((mazes.cell_C != WALL) & (mazes.cell_C != TRAP))
    code_C = np.concatenate([_codes(0, 0), *(_codes(*shape) for shape in mazes.shape_M2.tolist())])
    places = code_C.take(cell_X).tobytes()
    ends = 2 * np.searchsorted(cell_X, np.append(mazes.offset_M, mazes.cells))  # bytes
    hashes = [hashlib.blake2b(places[begin:end]).digest() for begin, end in pairwise(ends.tolist())]
    return np.array([int.from_bytes(digest[:8], "little") % 10 == 0 for digest in hashes], np.bool_)


def to_exit(mazes: Mazes) -> Ints:
    """Counts the steps from each cell to the nearest exit [C], by no trap; UNREACHABLE where there is no way."""
    return distance(mazes.ahead_CA, np.flatnonzero(mazes.cell_C == EXIT), mazes.cell_C == FREE)


def shortest_M(mazes: Mazes) -> Ints:
    """Counts the steps on the shortest way from each maze's start to an exit [M]; UNREACHABLE where there is none."""
    return to_exit(mazes)[mazes.first_M]


def distance(ahead_CA: Indices, source_X: Indices, passable_C: Bools) -> Ints:
    """Counts the steps on the shortest way from each cell to the nearest source [C]; UNREACHABLE where there is none.

    Args:
      ahead_CA: [C, A] where each move leads, as in `Mazes`: whatever leads there also leads back.
      source_X: rows among the C, of any mazes; they count as reached, passable or not.
      passable_C: [C] the cells that a way may use.
    """
    open_C, steps_C = passable_C.copy(), np.full(len(passable_C), UNREACHABLE, np.int32)
    if machine := compiled("ways"):
        machine.fill_distance(plain(ahead_CA), plain(source_X), open_C, steps_C)
        return steps_C
    # Breadth-first by lists of cells: all mazes go one step on at a time.
    frontier = source_X
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


# What follows belongs to a shape, not to a maze, since a batch has many mazes and few shapes.


@lru_cache(maxsize=64)
def _places(rows: int, columns: int) -> Ints:
    """Returns the row and the column of each cell of a maze [I, 2]."""
    return np.indices((rows, columns), np.int32).reshape(2, -1).T


@lru_cache(maxsize=64)
def _codes(rows: int, columns: int) -> npt.NDArray[np.uint16]:
    """Returns the row and the column of each cell of a maze in one number [I], the column in the lower byte."""
    row_I, column_I = _places(rows, columns).T
    code_I: npt.NDArray[np.uint16] = (row_I << 8 | column_I).astype("<u2")
    return code_I


@lru_cache(maxsize=64)
def _steps(rows: int, columns: int) -> Indices:
    """Says how many cells further on, row by row, each move leads [I, A]; 0 where that is over the border."""
    row_I, column_I = _places(rows, columns).T
    inside = (row_I > 0, column_I < columns - 1, row_I < rows - 1, column_I > 0)
    steps = [(down * columns + right) * inside_I for (down, right), inside_I in zip(MOVES, inside, strict=True)]
    return np.stack(steps, axis=-1).astype(np.intp)


def _usable(drawing: Drawing) -> Mazes:
    """Makes a drawing one maze; raises MazeError where no way leads to an exit."""
    shape_M2, start_M = np.array([drawing.cells.shape], np.int32), np.array([drawing.start], np.int32)
    maze = Mazes(shape_M2, start_M, drawing.cells.reshape(-1))
    exit_X = np.flatnonzero(maze.cell_C == EXIT)
    if not exit_X.size:
        raise drawing.refusal(0, "no exit; mark one cell or more E (a line of spaces alone ends a maze)")
    if shortest_M(maze)[0] != UNREACHABLE:
        return maze
    if distance(maze.ahead_CA, exit_X, maze.cell_C != WALL)[drawing.start] == UNREACHABLE:
        raise drawing.refusal(0, "no way leads from the start to an exit; open a wall between them")
    raise drawing.refusal(0, "an exit can be reached only through a trap; open a way around it, or replace H by a dot")
