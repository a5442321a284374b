"""Mazes as text, the shortest ways through them, and the split into training and held-out ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.config import MAX_SIDE
from protocol.world.cells import EXIT, FREE, MOVES, TRAP, UNREACHABLE, WALL, Kinds, MazeError
from protocol.world.maze import Mazes, distance, held_out, read_mazes, shortest_M, to_exit

SNAKE = "S.#\n#.#\n#.E"
POSTS = """\
o---o---o---o
| S | H | G |
o   o   +   o
|           |
o---o---o---o"""
POSTS_AS_CELLS = "S#H#E\n.#.#.\n....."


def write(folder: Path, text: str) -> Path:
    path = folder / "some.txt"
    path.write_bytes(text.encode())
    return path


def around(kind: Kinds, row: int, column: int) -> list[tuple[int, int]]:
    """Where the four moves lead from a cell of one maze, one move at a time."""
    places = []
    for down, right in MOVES:
        to = row + down, column + right
        inside = 0 <= to[0] < kind.shape[0] and 0 <= to[1] < kind.shape[1]
        bumps = kind[row, column] == WALL or not inside or kind[to] == WALL
        places.append((row, column) if bumps else to)
    return places


def slow_distance(kind: Kinds, sources: Iterable[tuple[int, int]], passable: set[int]) -> npt.NDArray[np.int64]:
    """Steps from each cell of one maze to the nearest source, one cell at a time."""
    steps = np.full(kind.shape, UNREACHABLE, np.int64)
    queue = deque(sources)
    for source in queue:
        steps[source] = 0
    while queue:
        cell = queue.popleft()
        for to in around(kind, *cell):
            if kind[to] in passable and steps[to] == UNREACHABLE:
                steps[to] = steps[cell] + 1
                queue.append(to)
    return steps


def kinds(mazes: Mazes) -> list[Kinds]:
    """The cells of each maze, [rows, columns], sliced out one maze after another."""
    grids, begin = [], 0
    for rows, columns in mazes.shape_M2.tolist():
        grids.append(mazes.cell_C[begin : begin + rows * columns].reshape(rows, columns))
        begin += rows * columns
    return grids


def random_mazes(seed: int, count: int, side: int) -> Mazes:
    """Rectangles of cells of any kind, up to `side` long; the start is free, and nothing says that an exit can be
    reached, or that there is one."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(count):
        shape = rng.integers(1, side + 1, size=2)
        walls, exits, traps = rng.random(3) * (0.5, 0.2, 0.2)
        kind = rng.choice(4, size=shape.prod(), p=(1 - walls - exits - traps, walls, exits, traps)).astype(np.uint8)
        start = rng.integers(kind.size)
        kind[start] = FREE
        parts.append(Mazes(shape[None].astype(np.int32), np.array([start], np.int32), kind))
    return Mazes.concatenate(parts)


some_mazes = st.builds(random_mazes, st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 9))
large_mazes = st.builds(random_mazes, st.integers(0, 2**32), st.integers(1, 2), st.integers(10, MAX_SIDE))


def test_a_drawn_maze_is_read_cell_by_cell() -> None:
    maze = Mazes.from_text("S.#H\n#.GE")
    assert maze.shape_M2.tolist() == [[2, 4]]
    assert maze.cell_C.tolist() == [FREE, FREE, WALL, TRAP, WALL, FREE, EXIT, EXIT]
    assert maze.start_M.tolist() == [0]
    assert maze.shape_M2.dtype == maze.start_M.dtype == np.int32
    assert maze.cell_C.dtype == np.uint8


def test_posts_and_the_outer_wall_are_left_out_and_rooms_come_to_lie_two_cells_apart() -> None:
    assert Mazes.from_text(POSTS).to_text(0) == POSTS_AS_CELLS


@settings(deadline=None)
@given(some_mazes)
def test_text_and_back_is_the_same_maze(mazes: Mazes) -> None:
    mazes = mazes[shortest_M(mazes) != UNREACHABLE]
    for index in range(len(mazes)):
        again, wanted = Mazes.from_text(mazes.to_text(index)), mazes[index : index + 1]
        for field in ("shape_M2", "start_M", "cell_C"):
            np.testing.assert_array_equal(getattr(again, field), getattr(wanted, field))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(2, 6))
def test_a_drawing_with_posts_is_the_maze_that_it_was_drawn_from(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    kind = np.where(rng.random((2 * height - 1, 2 * width - 1)) < 0.3, WALL, FREE)
    kind[::2, ::2], kind[1::2, 1::2] = FREE, WALL
    kind[0, -1], kind[-1, -1] = TRAP, EXIT
    walled = np.pad(kind, 1, constant_values=WALL)
    lines = []
    for row, cells in enumerate(walled):
        drawn = ["o" if row % 2 == 0 else "|" if cells[0] == WALL else " "]
        for column in range(1, len(cells), 2):
            inside = {WALL: "---", FREE: "   ", EXIT: " G ", TRAP: " H "}[cells[column]]
            inside = " S " if (row, column) == (1, 1) else inside
            drawn += [inside, "o" if row % 2 == 0 else "|" if cells[column + 1] == WALL else " "]
        lines.append("".join(drawn))
    maze = Mazes(np.array([kind.shape], np.int32), np.zeros(1, np.int32), kind.reshape(-1).astype(np.uint8))
    text = "\n".join(lines)
    if shortest_M(maze)[0] == UNREACHABLE:
        with pytest.raises(MazeError, match=r"line 2: (no way leads|an exit can be reached only through a trap)"):
            Mazes.from_text(text)
    else:
        assert Mazes.from_text(text).to_text(0) == maze.to_text(0)


def test_blank_lines_separate_mazes_of_any_sizes_and_forms() -> None:
    mazes = Mazes.from_text(f"\n{SNAKE}\n  \n\t\n\nSE\n\n{POSTS}\n\nSFFF\nFHFH\nFFFH\nHFFG")
    texts = [mazes.to_text(index) for index in range(len(mazes))]
    assert texts == [SNAKE, "SE", POSTS_AS_CELLS, "S...\n.H.H\n...H\nH..E"]
    assert shortest_M(mazes).tolist() == [4, 1, 8, 6]


@pytest.mark.parametrize(
    "text",
    [
        "S.#\r\n#.#\r\n#.E\r\n",
        "S.#\r#.#\r#.E",
        "\ufeffS.#\n#.#\n#.E",
        "S #\n# #\n# G",
        "SF#\n#F#\n#FG",
        "\n\n" + SNAKE + "\n\n \n",
    ],
    ids=["windows", "old mac", "byte order mark", "spaces and G", "F", "blank lines around"],
)
def test_other_ways_to_write_the_same_maze_are_read(text: str, tmp_path: Path) -> None:
    [(name, maze)] = read_mazes(write(tmp_path, text))
    assert name == "some"
    assert maze.to_text(0) == SNAKE


@pytest.mark.parametrize(
    "text",
    [POSTS.replace("o", "+"), POSTS.replace("\n", "\r\n"), POSTS.replace("\n", "  \n"), POSTS.replace("G", "E")],
    ids=["plus", "windows", "spaces at the end", "E"],
)
def test_other_ways_to_write_the_same_maze_with_posts_are_read(text: str) -> None:
    assert Mazes.from_text(text).to_text(0) == POSTS_AS_CELLS


def test_mazes_of_one_file_are_numbered_and_keep_their_shapes(tmp_path: Path) -> None:
    named = read_mazes(write(tmp_path, f"{SNAKE}\n\nS.E\n"))
    assert [(name, maze.shape_M2.tolist()) for name, maze in named] == [("some:1", [[3, 3]]), ("some:2", [[1, 3]])]


LEGEND = "# is a wall, . or F or a space a free cell, H a trap, S the start, E or G an exit"


@pytest.mark.parametrize(
    ("text", "where", "sentence"),
    [
        ("SE\n\nS#E", ", maze 2, line 3", "no way leads from the start to an exit; open a wall between them"),
        (
            "S#E\nH#.\n...",
            ", maze 1, line 1",
            "an exit can be reached only through a trap; open a way around it, or replace H by a dot",
        ),
        ("..\n.E", ", maze 1, line 1", "no start; mark one cell S (a line of spaces alone ends a maze)"),
        ("S.\n..", ", maze 1, line 1", "no exit; mark one cell or more E (a line of spaces alone ends a maze)"),
        ("SE\n.S", ", maze 1, line 2", "a second start; leave one cell marked S"),
        ("SE.\n..", ", maze 1, line 2", "2 cells, spaces among them, where the first row has 3; make all rows as long"),
        ("SE\nx.", ", maze 1, line 2", f"'x' is not a cell; {LEGEND}"),
        ("S", ", maze 1, line 1", "a single cell is too small; draw two or more, among them S and E"),
        (
            "S" + "." * (MAX_SIDE - 1) + "E",
            ", maze 1, line 1",
            "1 rows of 128 cells are too many; draw 127 by 127 at most",
        ),
        ("S\n" + ".\n" * 126 + "E", ", maze 1, line 1", "128 rows of 1 cells are too many; draw 127 by 127 at most"),
    ],
    ids=["unsolvable", "trap", "no start", "no exit", "two starts", "ragged", "strange", "small", "wide", "high"],
)
def test_a_maze_that_cannot_be_used_is_refused_with_place_and_remedy(
    text: str, where: str, sentence: str, tmp_path: Path
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(MazeError) as refusal:
        read_mazes(path)
    assert str(refusal.value) == f"{path}{where}: {sentence}"


NO_CELL = "is not a cell; leave it empty, or draw S, G or H in the middle of its three characters"


@pytest.mark.parametrize(
    ("old", "new", "line", "sentence"),
    [
        ("S", " ", 2, "no start; mark one cell S (a line of spaces alone ends a maze)"),
        ("G", " ", 2, "no exit; mark one cell or more E (a line of spaces alone ends a maze)"),
        ("|           |", "|         S |", 4, "a second start; leave one cell marked S"),
        ("o   o", "o---o", 2, "no way leads from the start to an exit; open a wall between them"),
        (
            "|           |",
            "|     H     |",
            2,
            "an exit can be reached only through a trap; open a way around it, or replace H by a dot",
        ),
        (" S ", "S  ", 2, f"'S  ' {NO_CELL}"),
        (" G ", "  G", 2, f"'  G' {NO_CELL}"),
        (" G ", " # ", 2, f"' # ' {NO_CELL}"),
        ("o   o", "o - o", 3, "' - ' is not a wall; draw '---', or '   ' where there is none"),
        ("S |", "S I", 2, "'I' is not a wall; draw '|', or ' ' where there is none"),
        ("+", "x", 3, "'x' is not a post; draw o or + at every fourth character"),
        ("o---o---o", "o---o   o", 1, "the outer wall has a gap; close it with --- or |"),
        ("| S", "  S", 2, "the outer wall has a gap; close it with --- or |"),
        ("G |", "G", 2, "the outer wall has a gap; close it with --- or |"),
        ("|\no---o", "|\no   o", 5, "the outer wall has a gap; close it with --- or |"),
        ("G |", "G ||", 2, "14 characters, where the first row has 13; make all rows as long"),
        (
            "o\n| S",
            "o-\n| S",
            1,
            "14 characters are no row of posts; draw o---o---o, four characters a cell and a post",
        ),
        (
            "\no   o",
            "\n\no   o",
            2,
            "a drawing with posts ends with the outer wall below; draw it (a line of spaces alone ends a maze)",
        ),
        (
            "|           |\no---o---o---o",
            "o---o---o---o",
            4,
            "a drawing with posts ends with the outer wall below; draw it (a line of spaces alone ends a maze)",
        ),
        (POSTS, "o", 1, "1 characters are no row of posts; draw o---o---o, four characters a cell and a post"),
        (POSTS, "o---o\n| S |\no---o", 2, "a single cell is too small; draw two or more, among them S and E"),
        (
            POSTS,
            "\n".join(["o" + 65 * "---o", "|" + 64 * "    " + "   |", "o" + 65 * "---o"]),
            1,
            "1 rows of 65 cells are too many; draw 64 by 64 at most",
        ),
    ],
)
def test_a_drawing_with_posts_that_cannot_be_used_is_refused_with_place_and_remedy(
    old: str, new: str, line: int, sentence: str, tmp_path: Path
) -> None:
    assert old in POSTS
    path = write(tmp_path, POSTS.replace(old, new, 1))
    with pytest.raises(MazeError) as refusal:
        read_mazes(path)
    assert str(refusal.value) == f"{path}, maze 1, line {line}: {sentence}"


def test_the_largest_mazes_of_both_forms_are_read() -> None:
    wall, rooms = "o" + 64 * "---o", "|" + 64 * "    "
    lines = [wall, *([rooms[:-1] + "|", "o" + 64 * "   o"] * 64)[:-1], wall]
    lines[1] = lines[1].replace("|    ", "| S  ", 1)
    lines[-2] = lines[-2][:-3] + "G |"
    mazes = Mazes.from_text("\n".join(lines) + "\n\nS" + "." * 125 + "E")
    assert mazes.shape_M2.tolist() == [[127, 127], [1, 127]]
    assert shortest_M(mazes).tolist() == [252, 126]


@pytest.mark.parametrize("text", ["", "\n", " \r\n\t\n"])
def test_a_file_without_a_maze_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(MazeError, match=r"some\.txt holds no maze; draw one: # is a wall"):
        read_mazes(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MazeError, match=r"cannot read maze file .*none\.txt: No such file.*; name a text file"):
        read_mazes(tmp_path / "none.txt")
    with pytest.raises(MazeError, match="Is a directory"):
        read_mazes(tmp_path)
    with pytest.raises(MazeError, match=r"cannot read maze file 'a.x00b': embedded null byte; name a text file"):
        read_mazes("a\0b")


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "utf16.txt"
    path.write_bytes(SNAKE.encode("utf-16"))
    with pytest.raises(MazeError, match=r"utf16\.txt is not UTF-8 text from byte 0 on; save it as UTF-8"):
        read_mazes(path)


@settings(deadline=None)
@given(some_mazes)
def test_cells_are_numbered_through_all_mazes_and_moves_stay_in_their_own(mazes: Mazes) -> None:
    begin = 0
    for index, kind in enumerate(kinds(mazes)):
        columns, cells = kind.shape[1], slice(begin, begin + kind.size)
        assert (mazes.offset_M[index], mazes.count_M[index]) == (begin, kind.size)
        assert mazes.first_M[index] == begin + mazes.start_M[index]
        assert (mazes.maze_C[cells] == index).all()
        assert mazes.place_C2[cells].tolist() == [list(place) for place in np.ndindex(kind.shape)]
        ahead = [[begin + row * columns + column for row, column in around(kind, *at)] for at in np.ndindex(kind.shape)]
        assert mazes.ahead_CA[cells].tolist() == ahead
        begin += kind.size
    assert mazes.cells == begin


@settings(deadline=None)
@given(some_mazes, st.integers(0, 2**32))
def test_picked_mazes_are_those_that_concatenate_puts_together(mazes: Mazes, seed: int) -> None:
    rng, count = np.random.default_rng(seed), len(mazes)
    numbers = rng.integers(count, size=3)
    begin, end = sorted(rng.integers(count + 1, size=2))
    for rows in (numbers, numbers[:0], rng.random(count) < 0.5, slice(begin, end), slice(None, None, -2)):
        picked, which = mazes[rows], np.arange(count)[rows]
        parts = [mazes[index : index + 1] for index in which.tolist()]
        wanted = Mazes.concatenate([mazes[:0], *parts])
        assert len(picked) == len(which)
        for field in ("shape_M2", "start_M", "cell_C", "ahead_CA"):
            np.testing.assert_array_equal(getattr(picked, field), getattr(wanted, field))


@settings(deadline=None)
@given(st.one_of(some_mazes, large_mazes), st.integers(0, 2**32))
def test_distance_is_what_a_slow_search_finds(mazes: Mazes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source_rows = rng.integers(mazes.cells, size=rng.integers(4))
    passable = set(rng.permutation(4)[:2].tolist())
    steps = distance(mazes.ahead_CA, source_rows, np.isin(mazes.cell_C, list(passable)))
    assert steps.dtype == np.int32
    for index, kind in enumerate(kinds(mazes)):
        inside = source_rows[mazes.maze_C[source_rows] == index] - mazes.offset_M[index]
        sources = [divmod(cell, kind.shape[1]) for cell in inside.tolist()]
        wanted = slow_distance(kind, sources, passable)
        np.testing.assert_array_equal(steps[mazes.maze_C == index], wanted.reshape(-1))


@settings(deadline=None)
@given(st.one_of(some_mazes, large_mazes))
def test_ways_to_an_exit_lead_through_free_cells_alone(mazes: Mazes) -> None:
    steps = to_exit(mazes)
    for index, kind in enumerate(kinds(mazes)):
        exits = [(int(row), int(column)) for row, column in np.argwhere(kind == EXIT)]
        wanted = slow_distance(kind, exits, {FREE}).reshape(-1)
        np.testing.assert_array_equal(steps[mazes.maze_C == index], wanted)
        assert shortest_M(mazes)[index] == wanted[mazes.start_M[index]]


def test_the_nearest_exit_counts_and_traps_and_exits_are_not_passed() -> None:
    assert shortest_M(Mazes.from_text("E..S.E\n\nESH..E\n\nSHE\n...\n\nSE.E")).tolist() == [2, 1, 4, 1]
    assert to_exit(Mazes.from_text("H.ES.E")).tolist() == [UNREACHABLE, 1, 0, 1, 1, 0]


def test_the_longest_way_is_counted_to_its_end() -> None:
    rows = [f"{'.' * MAX_SIDE}\n{'#' * (MAX_SIDE - 1)}.", f"{'.' * MAX_SIDE}\n.{'#' * (MAX_SIDE - 1)}"]
    text = "\n".join(rows[number % 2] for number in range(64)).removesuffix("\n." + "#" * (MAX_SIDE - 1))
    mazes = Mazes.from_text("S" + text[1:-127] + "E" + text[-126:])  # one way, to and fro along every other row
    assert shortest_M(mazes).tolist() == [63 * (MAX_SIDE + 1) + MAX_SIDE - 1]


def test_about_one_grid_in_ten_is_held_out() -> None:
    cells = (np.random.default_rng(0).random(20_000 * 81) < 0.5).astype(np.uint8)
    mazes = Mazes(np.full((20_000, 2), 9, np.int32), np.zeros(20_000, np.int32), cells)
    assert 0.09 < held_out(mazes).mean() < 0.11


def test_start_exits_and_walls_around_do_not_change_the_side_of_the_split_and_a_trap_is_as_a_wall() -> None:
    mazes = random_mazes(0, 500, 7)
    sides = held_out(mazes)
    assert 0 < sides.sum() < len(mazes)
    walls_alone = np.where((mazes.cell_C == WALL) | (mazes.cell_C == TRAP), WALL, FREE).astype(np.uint8)
    np.testing.assert_array_equal(held_out(Mazes(mazes.shape_M2, mazes.start_M * 0, walls_alone)), sides)
    added = [((0, index % 3), (0, index % 4)) for index in range(len(mazes))]
    padded = [np.pad(kind, more, constant_values=WALL) for kind, more in zip(kinds(mazes), added, strict=True)]
    shapes = np.array([kind.shape for kind in padded], np.int32)
    larger = Mazes(shapes, mazes.start_M * 0, np.concatenate([kind.reshape(-1) for kind in padded]))
    np.testing.assert_array_equal(held_out(larger), sides)


def test_the_split_is_the_same_on_every_machine() -> None:
    corridors = Mazes.from_text("\n\n".join("S" + "." * length + "E" for length in range(30)))
    assert np.flatnonzero(held_out(corridors)).tolist() == [16, 24]


def test_no_mazes_have_no_sides_and_no_distances() -> None:
    none = Mazes.from_text(SNAKE)[:0]
    assert (len(none), none.cells) == (0, 0)
    assert held_out(none).shape == to_exit(none).shape == shortest_M(none).shape == (0,)
