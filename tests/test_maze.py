"""Mazes as text, the shortest ways through them, and the split into training and held-out ones."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.world.maze import (
    FLOOD_CELLS,
    MAX_SIDE,
    MOVES,
    UNREACHABLE,
    Bools,
    MazeError,
    Mazes,
    distance,
    held_out,
    pad,
    read_mazes,
)

SNAKE = "S.#\n#.#\n#.E"


def write(folder: Path, text: str) -> Path:
    path = folder / "some.txt"
    path.write_bytes(text.encode())
    return path


def slow_distance(blocked: Bools, source: int) -> list[int]:
    """Steps to each cell of one maze, one cell at a time."""
    side = len(blocked)
    steps = [UNREACHABLE] * side**2
    steps[source] = 0
    queue = deque([source])
    while queue:
        cell = queue.popleft()
        for down, right in MOVES:
            row, column = cell // side + down, cell % side + right
            if 0 <= row < side and 0 <= column < side and not blocked[row, column]:
                after = row * side + column
                if steps[after] == UNREACHABLE:
                    steps[after] = steps[cell] + 1
                    queue.append(after)
    return steps


def random_mazes(seed: int, count: int, side: int) -> Mazes:
    """Cells blocked at random; start and exit are two free cells, perhaps without a way between them."""
    rng = np.random.default_rng(seed)
    blocked = rng.random((count, side, side)) < rng.random((count, 1, 1)) * 0.7
    ends = np.array([rng.choice(side**2, 2, replace=False) for _ in range(count)], np.int32)
    blocked.reshape(count, -1)[np.arange(count)[:, None], ends] = False
    return Mazes(blocked, ends[:, 0], ends[:, 1])


mazes_strategy = st.builds(random_mazes, st.integers(0, 2**32), st.integers(1, 5), st.integers(2, 9))
large_mazes = st.builds(random_mazes, st.integers(0, 2**32), st.integers(1, 2), st.integers(10, MAX_SIDE))


def test_a_drawn_maze_is_read_cell_by_cell() -> None:
    maze = Mazes.from_text(SNAKE)
    assert maze.blocked.astype(int).tolist() == [[[0, 0, 1], [1, 0, 1], [1, 0, 0]]]
    assert maze.start.tolist() == [0]
    assert maze.exit.tolist() == [8]


@settings(deadline=None)
@given(mazes_strategy)
def test_text_and_back_is_the_same_maze(mazes: Mazes) -> None:
    steps = distance(mazes.blocked, mazes.start)
    mazes = mazes[steps[np.arange(len(mazes)), mazes.exit] != UNREACHABLE]
    for index in range(len(mazes)):
        again = Mazes.from_text(mazes.to_text(index))
        np.testing.assert_array_equal(again.blocked[0], mazes.blocked[index])
        assert (again.start[0], again.exit[0]) == (mazes.start[index], mazes.exit[index])


def test_blank_lines_separate_mazes_and_the_smaller_is_padded() -> None:
    mazes = Mazes.from_text(f"\n{SNAKE}\n  \n\t\n\nSE\n\n")
    assert [mazes.to_text(index) for index in range(len(mazes))] == [SNAKE, "SE#\n###\n###"]


@pytest.mark.parametrize(
    "text",
    [
        "S.#\r\n#.#\r\n#.E\r\n",
        "S.#\r#.#\r#.E",
        "\ufeffS.#\n#.#\n#.E",
        "S #\n# #\n# G",
        "\n\n" + SNAKE + "\n\n \n",
    ],
    ids=["windows", "old mac", "byte order mark", "spaces and G", "blank lines around"],
)
def test_other_ways_to_write_the_same_maze_are_read(text: str, tmp_path: Path) -> None:
    [(name, maze)] = read_mazes(write(tmp_path, text))
    assert name == "some"
    assert maze.to_text(0) == SNAKE


def test_mazes_of_one_file_are_numbered_and_keep_their_sides(tmp_path: Path) -> None:
    named = read_mazes(write(tmp_path, f"{SNAKE}\n\nSE\n"))
    assert [(name, maze.side) for name, maze in named] == [("some:1", 3), ("some:2", 2)]


def test_a_maze_that_is_not_square_is_padded_with_walls() -> None:
    assert Mazes.from_text("S..\n..E").to_text(0) == "S..\n..E\n###"
    assert Mazes.from_text("S.\n.E\n..").to_text(0) == "S.#\n.E#\n..#"


@pytest.mark.parametrize(
    ("text", "where", "sentence"),
    [
        (
            "SE\n\nS#E",
            ", maze 2, line 3",
            "no way leads from the start to the exit; open a wall between them",
        ),
        ("..\n.E", ", maze 1, line 1", "no start; mark one cell S (a line of spaces alone ends a maze)"),
        ("S.\n..", ", maze 1, line 1", "no exit; mark one cell E (a line of spaces alone ends a maze)"),
        ("SE\n.S", ", maze 1, line 2", "a second start; leave one cell marked S"),
        ("\nSE\n.G", ", maze 1, line 3", "a second exit; leave one cell marked E"),
        ("SE.\n..", ", maze 1, line 2", "2 cells, where the first row has 3; make all rows as long"),
        (
            "SE\nx.",
            ", maze 1, line 2",
            "'x' is not a cell; # is a wall, . or a space a free cell, S the start, E or G the exit",
        ),
        ("S", ", maze 1, line 1", "a single cell is too small; draw two or more, among them S and E"),
        (
            "S" + "." * MAX_SIDE + "E",
            ", maze 1, line 1",
            "1 rows of 53 cells are too many; draw 51 by 51 at most",
        ),
    ],
    ids=[
        "unsolvable",
        "no start",
        "no exit",
        "two starts",
        "two exits",
        "ragged",
        "strange",
        "small",
        "large",
    ],
)
def test_a_maze_that_cannot_be_used_is_refused_with_place_and_remedy(
    text: str, where: str, sentence: str, tmp_path: Path
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(MazeError) as refusal:
        read_mazes(path)
    assert str(refusal.value) == f"{path}{where}: {sentence}"


@pytest.mark.parametrize("text", ["", "\n", " \r\n\t\n"])
def test_a_file_without_a_maze_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(MazeError, match=r"some\.txt holds no maze; draw one: # is a wall"):
        read_mazes(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        MazeError, match=r"cannot read maze file .*none\.txt: No such file.*; name a text file"
    ):
        read_mazes(tmp_path / "none.txt")
    with pytest.raises(MazeError, match="Is a directory"):
        read_mazes(tmp_path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "utf16.txt"
    path.write_bytes(SNAKE.encode("utf-16"))
    with pytest.raises(MazeError, match=r"utf16\.txt is not UTF-8 text from byte 0 on; save it as UTF-8"):
        read_mazes(path)


@pytest.mark.parametrize("flood_cells", [0, FLOOD_CELLS], ids=["lists", "bits"])
@settings(deadline=None)
@given(st.one_of(mazes_strategy, large_mazes))
def test_distance_is_what_a_slow_search_finds(flood_cells: int, mazes: Mazes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("protocol.world.maze.FLOOD_CELLS", flood_cells)
        steps = distance(mazes.blocked, mazes.start)
    assert steps.dtype == np.int32
    for index in range(len(mazes)):
        assert steps[index].tolist() == slow_distance(mazes.blocked[index], int(mazes.start[index]))


@pytest.mark.parametrize(("count", "bits"), [(1, True), (20, False)])
def test_the_longest_way_is_counted_to_its_end(count: int, bits: bool) -> None:
    blocked = np.zeros((count, MAX_SIDE, MAX_SIDE), np.bool_)
    blocked[:, 1::4, :-1] = blocked[:, 3::4, 1:] = True  # one way, to and fro along every other row
    assert (blocked.size < FLOOD_CELLS) == bits
    for steps, walls in zip(distance(blocked, np.zeros(count, np.int32)), blocked, strict=True):
        assert sorted(steps[~walls.reshape(-1)]) == list(range(26 * MAX_SIDE + 25))


def test_padding_keeps_cells_where_they_are_drawn() -> None:
    padded = pad(Mazes.from_text(SNAKE), 5)
    assert padded.to_text(0) == "S.###\n#.###\n#.E##\n#####\n#####"
    assert padded.start.dtype == padded.exit.dtype == np.int32


def test_a_maze_larger_than_wanted_is_not_padded() -> None:
    with pytest.raises(MazeError, match="mazes of side 3 do not fit into side 2; pad to 3 or more"):
        pad(Mazes.from_text(SNAKE), 2)


def test_about_one_grid_in_ten_is_held_out() -> None:
    blocked = np.random.default_rng(0).random((20_000, 9, 9)) < 0.5
    cells = np.zeros(len(blocked), np.int32)
    assert 0.09 < held_out(Mazes(blocked, cells, cells)).mean() < 0.11


def test_start_exit_and_padding_do_not_change_the_side_of_the_split() -> None:
    mazes = random_mazes(0, 500, 7)
    sides = held_out(mazes)
    assert 0 < sides.sum() < len(mazes)
    np.testing.assert_array_equal(held_out(Mazes(mazes.blocked, mazes.exit, mazes.start)), sides)
    np.testing.assert_array_equal(held_out(pad(mazes, 12)), sides)


def test_the_split_is_the_same_on_every_machine() -> None:
    corridors = Mazes.from_text("\n\n".join("S" + "." * length + "E" for length in range(30)))
    assert np.flatnonzero(held_out(corridors)).tolist() == [16, 24]


def test_no_mazes_have_no_sides_and_no_distances() -> None:
    none = Mazes.from_text(SNAKE)[:0]
    assert held_out(none).shape == (0,)
    assert distance(none.blocked, none.start).shape == (0, 9)
