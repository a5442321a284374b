"""The ways through what is known, of all mazes at once, against one cell further on at a time."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.config import MAX_SIDE
from protocol.world.cells import Kinds
from protocol.world.ways import VISITED, by_shape, closed, flood, hopeful_way, known_way
from tests.parts.robot import FAR, Cell, Drawing, Past, mazes_of, steps_to

RIGHT = 1


def random_grids(rng: np.random.Generator) -> list[Drawing]:
    """Mazes of one shape, of which no way need lead anywhere."""
    rows, columns, count = (int(size) for size in rng.integers(1, 8, 3))
    columns += rows * columns < 2
    drawings = []
    for _ in range(count):
        marks = rng.choice(list("..##EH"), (rows, columns))
        marks.flat[rng.integers(marks.size)] = "S"
        drawings.append(Drawing("\n".join("".join(row) for row in marks)))
    return drawings


def random_past(drawing: Drawing, rng: np.random.Generator) -> Past:
    """Cells and bumps that no single attempt need explain."""
    free = [cell for cell in drawing.cells if cell not in drawing.walls]
    visited = {cell for cell in free if rng.random() < 0.5}
    bumps = {(cell, move) for cell in visited for move in range(4) if drawing.ahead(cell, move) == cell}
    return Past(frozenset(visited), frozenset(bump for bump in bumps if rng.random() < 0.5))


def grids(drawings: list[Drawing], pasts: list[Past]) -> tuple[Kinds, Kinds]:
    """[M, H, V] what each cell is, and what is known of it."""
    known = np.array(
        [
            VISITED * (cell in past.visited) + sum(1 << move for move in range(4) if (cell, move) in past.bumps)
            for drawing, past in zip(drawings, pasts, strict=True)
            for cell in drawing.cells
        ],
        np.uint8,
    )
    shape = len(drawings), drawings[0].rows, drawings[0].columns
    return mazes_of(drawings).cell_C.reshape(shape), known.reshape(shape)


def grid(drawing: Drawing, steps: dict[Cell, int]) -> list[list[int]]:
    """[H, V]"""
    return [[steps.get((row, column), FAR) for column in range(drawing.columns)] for row in range(drawing.rows)]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_all_that_is_known_and_hoped_is_what_a_slow_search_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawings = random_grids(rng)
    pasts = [random_past(drawing, rng) for drawing in drawings]
    cell, known = grids(drawings, pasts)
    way = known_way(cell, known)
    assert way.tolist() == [grid(d, past.known_way(d)) for d, past in zip(drawings, pasts, strict=True)]
    for radius, compass in product(range(4), (False, True)):
        shut = closed(cell, known, radius)
        wanted = [past.closed(drawing, radius) for drawing, past in zip(drawings, pasts, strict=True)]
        assert shut.reshape(len(drawings), -1).tolist() == [
            [cell in own for cell in drawing.cells] for drawing, own in zip(drawings, wanted, strict=True)
        ]
        hope = hopeful_way(cell, known, radius, compass)
        assert hope.tolist() == [
            grid(d, past.hopeful_way(d, radius, compass)) for d, past in zip(drawings, pasts, strict=True)
        ]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_a_flood_takes_the_shortest_way_through_free_cells_from_each_to_the_nearest_source(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawings = random_grids(rng)
    free, source = (np.stack([rng.random((d.rows, d.columns)) < share for d in drawings]) for share in (0.7, 0.1))
    cells = [[{(i, j) for i, j in np.argwhere(one).tolist()} for one in grid] for grid in (free, source)]
    wanted = [grid(d, steps_to(d, s, f)) for d, f, s in zip(drawings, *cells, strict=True)]
    assert flood(free, source).tolist() == wanted


def test_a_flood_reaches_the_end_of_the_longest_corridor() -> None:
    """A serpentine of 127 by 127: some 8,000 steps, which need 13 binary digits."""
    free = np.ones((2, MAX_SIDE, MAX_SIDE), np.bool_)
    free[0, 1::4, :-1] = free[0, 3::4, 1:] = False
    source = np.zeros_like(free)
    source[:, 0, 0] = True
    steps = flood(free, source)
    assert steps[0, -1, 0] == free[0].sum() - 1
    assert steps[1].tolist() == np.add.outer(np.arange(MAX_SIDE), np.arange(MAX_SIDE)).tolist()


def test_hope_leads_through_what_was_never_sensed_and_around_what_was() -> None:
    drawing = Drawing("S#..\n.#E.\n....")
    past = Past(frozenset({(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2)}))
    cell, known = grids([drawing], [past])
    assert known_way(cell, known)[0, 0, 0] == 5
    assert hopeful_way(cell, known, 1, compass=False)[0, 0, 0] == 5  # both walls were seen
    assert hopeful_way(cell, known, 0, compass=False)[0, 0, 0] == 3  # nobody has bumped into them
    bumped = known.copy()
    bumped[0, 0, 0] |= 1 << RIGHT
    assert hopeful_way(cell, bumped, 0, compass=False)[0, 0, 0] == 3  # down, right
    bumped[0, 1, 0] |= 1 << RIGHT
    assert hopeful_way(cell, bumped, 0, compass=False)[0, 0, 0] == 5


def test_an_explorer_hopes_for_the_nearest_cell_where_it_has_never_been() -> None:
    drawing = Drawing("S...E")
    cell, known = grids([drawing], [Past(frozenset({(0, 0), (0, 1)}))])
    assert hopeful_way(cell, known, 1, compass=False).tolist() == [[[2, 1, 0, 0, 0]]]
    assert hopeful_way(cell, known, 1, compass=True).tolist() == [[[4, 3, 2, 1, 0]]]


def test_sizes_are_told_apart_and_each_maze_belongs_to_one() -> None:
    shape_M2 = np.array([[3, 5], [5, 3], [3, 5], [127, 1], [1, 127], [5, 3]], np.int32)
    groups = {shape: rows.tolist() for rows, shape in by_shape(shape_M2)}
    assert groups == {(3, 5): [0, 2], (5, 3): [1, 5], (127, 1): [3], (1, 127): [4]}
    assert [(rows.tolist(), shape) for rows, shape in by_shape(shape_M2[:1])] == [([0], (3, 5))]
    assert list(by_shape(shape_M2[:0])) == []
