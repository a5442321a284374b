"""Mazes as text: two forms in which people draw them, and what is wrong with a drawing that is neither."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np

from protocol.config import MAX_SIDE
from protocol.world.cells import EXIT, FREE, TRAP, WALL, Kinds, MazeError

CHARACTERS = ".#EH"  # how a cell of each kind is written
KINDS = {"#": WALL, ".": FREE, " ": FREE, "F": FREE, "S": FREE, "E": EXIT, "G": EXIT, "H": TRAP}
LEGEND = "# is a wall, . or F or a space a free cell, H a trap, S the start, E or G an exit"
POSTS = "o+"  # a drawing that begins with one of these has walls of --- and |
MARKS = " SEGH"  # what may stand in the middle of the cells of a drawing with posts

Refusal = Callable[[int, str], MazeError]  # takes the line of a drawing, from 0, and what is wrong there


class Drawing(NamedTuple):
    """One maze as it was drawn."""

    cells: Kinds  # [rows, columns] what each cell is
    start: int  # row * columns + column
    refusal: Refusal  # makes the error for a maze that is well drawn and of no use


def drawings(text: str, source: str) -> Iterator[Drawing]:
    """Yields each drawing of `text`; raises MazeError, which names `source`, at a faulty one and where there is none.

    `read_mazes` of `protocol.world.maze` says which forms there are.
    """
    lines = enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), start=1)
    groups = groupby(lines, key=lambda line: bool(line[1].strip()))
    numbered = [list(group) for filled, group in groups if filled]
    if not numbered:
        raise MazeError(f"{source} holds no maze; draw one: {LEGEND}")
    for number, drawn in enumerate(numbered, start=1):
        yield _drawing([line for _, line in drawn], f"{source}, maze {number}", first_line=drawn[0][0])


def to_text(cells: Kinds, start: int) -> str:
    """Draws the cells [rows, columns] of a maze, as lines of `#`, `.`, `H`, `E` and one `S`; `start` counts by rows."""
    characters = np.array(list(CHARACTERS))[cells]
    characters.flat[start] = "S"
    return "\n".join("".join(row) for row in characters)


def _drawing(lines: list[str], name: str, first_line: int) -> Drawing:
    """Reads one drawing, in either form."""

    def refusal(line: int, sentence: str) -> MazeError:
        return MazeError(f"{name}, line {first_line + line}: {sentence}")

    if lines[0][0] not in POSTS:
        return _of_cells(lines, refusal)
    # What was drawn above the first row of rooms is the outer wall, which is left out.
    return _of_cells(_without_posts(lines, refusal), lambda row, sentence: refusal(row + 1, sentence))


def _of_cells(rows: list[str], refusal: Refusal) -> Drawing:
    """Reads a drawing in which a character is a cell."""
    height, width = len(rows), len(rows[0])
    if max(height, width) > MAX_SIDE:
        raise refusal(0, f"{height} rows of {width} cells are too many; draw {MAX_SIDE} by {MAX_SIDE} at most")
    if height * width < 2:
        raise refusal(0, "a single cell is too small; draw two or more, among them S and E")
    for row, text in enumerate(rows):
        if len(text) != width:
            raise refusal(
                row, f"{len(text)} cells, spaces among them, where the first row has {width}; make all rows as long"
            )
        for character in text:
            if character not in KINDS:
                raise refusal(row, f"{character!r} is not a cell; {LEGEND}")
    text = "".join(rows)
    starts = [cell for cell, character in enumerate(text) if character == "S"]
    if not starts:
        raise refusal(0, "no start; mark one cell S (a line of spaces alone ends a maze)")
    if len(starts) > 1:
        raise refusal(starts[1] // width, "a second start; leave one cell marked S")
    cells = np.array([KINDS[character] for character in text], np.uint8).reshape(height, width)
    return Drawing(cells, starts[0], refusal)


def _without_posts(lines: list[str], refusal: Refusal) -> list[str]:
    """Turns a drawing with posts into one in which a character is a cell, and leaves out the outer wall."""
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
    """Turns `o---o   o` into `###.#`."""
    for post in text[::4]:
        if post not in POSTS:
            raise refusal(line, f"{post!r} is not a post; draw o or + at every fourth character")
    return "#" + "".join(_wall(text[at : at + 3], "---", line, refusal) + "#" for at in range(1, len(text), 4))


def _row_of_rooms(text: str, line: int, refusal: Refusal) -> str:
    """Turns `| S     |` into `#S..#`."""
    row = _wall(text[0], "|", line, refusal)
    for at in range(1, len(text), 4):
        inside, mark = text[at : at + 3], text[at + 1]
        if inside != f" {mark} " or mark not in MARKS:
            wanted = "leave it empty, or draw S, G or H in the middle of its three characters"
            raise refusal(line, f"{inside!r} is not a cell; {wanted}")
        row += mark.replace(" ", ".") + _wall(text[at + 3], "|", line, refusal)
    return row


def _wall(drawn: str, wall: str, line: int, refusal: Refusal) -> str:
    """Returns `#` where `drawn` is `wall`, and `.` where it is blank."""
    if drawn not in (wall, " " * len(wall)):
        raise refusal(line, f"{drawn!r} is not a wall; draw {wall!r}, or {' ' * len(wall)!r} where there is none")
    return "#" if drawn == wall else "."
