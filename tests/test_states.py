"""The table of a maze against a walk through its text, state by state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.world.maze import MOVES, NO_MOVE, Mazes
from protocol.world.states import StateTable
from tests.oracle import Drawing

FORK = "S..\n#.#\n#.E"
ROOM = "...\n.S.\n..E"
PASSAGE = "S.#..\n#.#.#\n#.E..\n#####\n.#.#."  # what lies behind the exit, and beyond walls, is out of reach
DRAWN = ["S.E", "SE.", "S#E\n...\n...", FORK, ROOM, PASSAGE]


def texts() -> st.SearchStrategy[str]:
    """Drawings of solvable mazes: any walls but on one way, down or up from the start and then along."""

    @st.composite
    def draw(draw: st.DrawFn) -> str:
        side = draw(st.integers(2, 6))
        marks = [[draw(st.sampled_from("##..")) for _ in range(side)] for _ in range(side)]
        cells = st.tuples(st.integers(0, side - 1), st.integers(0, side - 1))
        start, exit_ = draw(cells), draw(cells)
        if start == exit_:
            exit_ = ((start[0] + 1) % side, start[1])
        for row in range(min(start[0], exit_[0]), max(start[0], exit_[0]) + 1):
            marks[row][start[1]] = "."
        for column in range(min(start[1], exit_[1]), max(start[1], exit_[1]) + 1):
            marks[exit_[0]][column] = "."
        marks[start[0]][start[1]], marks[exit_[0]][exit_[1]] = "S", "E"
        return "\n".join("".join(row) for row in marks)

    return draw()


def square(text: str) -> str:
    """The drawing with walls added until it is square, as Mazes has it."""
    rows = text.split("\n")
    side = max(len(rows), len(rows[0]))
    return "\n".join([row.ljust(side, "#") for row in rows] + ["#" * side] * (side - len(rows)))


def check(table: StateTable, index: int, text: str) -> None:
    """Everything that `table` says of maze `index` is what a walk through `text` finds."""
    drawing = Drawing(text)
    states = drawing.states()
    count = len(states)
    assert table.count_M[index] == count
    assert list(zip(table.cell_MS[index, :count], table.previous_MS[index, :count], strict=True)) == states
    for row, state in enumerate(states):
        for move in range(len(MOVES)):
            after = drawing.follow(state, move)
            wanted = table.exit_state if after is None else states.index(after)
            assert table.next_MSA[index, row, move] == wanted, (text, state, move)
        assert table.distance_MS[index, row] == drawing.distance(state[0])


@pytest.mark.parametrize("text", DRAWN)
def test_the_table_is_what_a_walk_through_the_drawing_finds(text: str) -> None:
    check(StateTable.of(Mazes.from_text(text), radius=1), 0, square(text))


@settings(deadline=None, max_examples=60)
@given(texts())
def test_the_table_is_what_a_walk_finds_in_any_maze(text: str) -> None:
    check(StateTable.of(Mazes.from_text(text), radius=1), 0, text)


def test_a_bump_keeps_the_state_with_the_move_that_led_into_it() -> None:
    table = StateTable.of(Mazes.from_text(FORK), radius=1)
    assert table.next_MSA[0, 0, 0] == 0  # the edge above the start
    (right,) = np.flatnonzero((table.cell_MS[0] == 1) & (table.previous_MS[0] == 1))
    assert table.next_MSA[0, 0, 1] == right
    assert table.next_MSA[0, right, 0] == right


def test_the_exit_is_no_state_and_ends_the_attempt() -> None:
    mazes = Mazes.from_text(ROOM)
    table = StateTable.of(mazes, radius=1)
    assert mazes.exit[0] not in table.cell_MS
    onto = table.next_MSA == table.exit_state
    assert (table.distance_MS[onto.any(-1)] == 1).all()
    assert onto.sum() == 2 * 2  # two neighbours, each entered by two moves; none comes from the exit


def test_what_lies_behind_the_exit_is_no_state() -> None:
    table = StateTable.of(Mazes.from_text("S.E.."), radius=1)
    assert set(table.cell_MS[0].tolist()) == {0, 1}


def test_a_cell_is_entered_only_by_moves_that_come_from_a_free_cell() -> None:
    table = StateTable.of(Mazes.from_text("S.E"), radius=1)
    assert list(zip(table.cell_MS[0], table.previous_MS[0], strict=True)) == [(0, NO_MOVE), (0, 3), (1, 1)]


def test_every_maze_of_a_batch_has_the_table_that_it_has_alone_and_padding_is_out_of_reach() -> None:
    texts = [square(text) for text in ("S.E", FORK, ROOM)]
    table = StateTable.of(Mazes.from_text("\n\n".join(texts)), radius=1)
    assert table.cell_MS.shape[1] == table.count_M.max() > table.count_M.min()
    for index, text in enumerate(texts):
        check(table, index, text)
        real = table.next_MSA[index, : table.count_M[index]]
        assert (real[real != table.exit_state] < table.count_M[index]).all()
        assert (table.cell_MS[index, table.count_M[index] :] == table.cell_MS[index, 0]).all()
    assert ((table.next_MSA >= 0) & (table.next_MSA <= table.exit_state)).all()


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("text", [FORK, ROOM, PASSAGE])
def test_a_robot_sees_the_walls_around_it_and_takes_the_outside_for_walls(text: str, radius: int) -> None:
    table, drawing = StateTable.of(Mazes.from_text(text), radius), Drawing(text)
    wanted = [drawing.seen(cell, radius) for cell in range(drawing.side**2)]
    assert table.seen_MCB.dtype == np.float32
    assert table.seen_MCB[0].tolist() == wanted


def test_the_shortest_path_is_the_distance_of_the_first_state() -> None:
    assert StateTable.of(Mazes.from_text(FORK), radius=1).shortest_M.tolist() == [4]
