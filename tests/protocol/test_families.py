"""The task distributions: what each family promises of its mazes."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from protocol.config import MazeConfig
from protocol.world.cells import EXIT, FREE, MOVES, TRAP, UNREACHABLE, WALL, Bools, Ints, Kinds, MazeError
from protocol.world.families import sample
from protocol.world.maze import Mazes, distance, shortest_M
from protocol.world.maze import held_out as is_held_out
from protocol.world.trees import depth_first, uniform

Integers = npt.NDArray[np.int64]

GENERATED = ("perfect", "braided", "blocks", "rooms", "mouse")
ROWS = ["".join(row) for row in product(".#", repeat=3)]
FILE = [f"S...\n{above}.\n{below}.\n#..E" for above in ROWS for below in ROWS]


def draw(count: int = 30, seed: int = 0, held_out: bool = False, **maze: Any) -> Mazes:
    config = MazeConfig.model_validate({"family": "perfect", "side": 9} | maze)
    return sample(config, count, np.random.default_rng(seed), held_out=held_out)


def grids(mazes: Mazes) -> Kinds:
    """[M, n, n] the cells of mazes of one side."""
    [side] = {int(side) for side in mazes.shape_M2.reshape(-1)}
    return mazes.cell_C.reshape(len(mazes), side, side)


def walls(mazes: Mazes) -> Bools:
    """[M, n, n] where there is a wall."""
    walls: Bools = grids(mazes) == WALL
    return walls


def steps_from_start(mazes: Mazes) -> Ints:
    """[M, n, n] steps from the start, through exits and traps too."""
    return distance(mazes.ahead_CA, mazes.first_M, mazes.cell_C != WALL).reshape(grids(mazes).shape)


def free_neighbours(blocked: Bools) -> Integers:
    """[M, n, n] how many of a cell's neighbours are free."""
    free: Integers = np.pad(~blocked, ((0, 0), (1, 1), (1, 1))).astype(np.int64)
    return free[:, :-2, 1:-1] + free[:, 2:, 1:-1] + free[:, 1:-1, :-2] + free[:, 1:-1, 2:]


def dead_ends(mazes: Mazes) -> int:
    return int((~walls(mazes) & (free_neighbours(walls(mazes)) == 1)).sum())


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(GENERATED),
    st.integers(0, 2**32),
    st.integers(3, 7),
    st.integers(1, 12),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_maze_is_solvable_with_its_exits_far_enough(
    family: str, seed: int, half_side: int, min_distance: int, exits: int, held_out: bool
) -> None:
    side = 2 * half_side + 1
    mazes = draw(5, seed, held_out, family=family, side=side, min_distance=min_distance, exits=exits)
    assert mazes.shape_M2.tolist() == [[side, side]] * 5
    assert (mazes.shape_M2.dtype, mazes.start_M.dtype, mazes.cell_C.dtype) == tuple(map(np.dtype, ("i4", "i4", "u1")))
    assert (mazes.start_M == 0).all()
    assert (mazes.cell_C[mazes.first_M] == FREE).all()
    is_exit = grids(mazes) == EXIT
    assert (is_exit.sum(axis=(1, 2)) == exits).all()
    steps = steps_from_start(mazes)[is_exit]
    assert ((steps >= min_distance) & (steps != UNREACHABLE)).all()
    assert (shortest_M(mazes) != UNREACHABLE).all()


@pytest.mark.parametrize("family", GENERATED)
def test_the_largest_mazes_are_solvable_too(family: str) -> None:
    mazes = draw(2, family=family, side=127, min_distance=200)
    assert ((shortest_M(mazes) >= 200) & (shortest_M(mazes) != UNREACHABLE)).all()


@pytest.mark.parametrize("family", GENERATED)
def test_a_corner_exit_is_the_opposite_corner_and_can_be_reached(family: str) -> None:
    mazes = draw(50, family=family, side=9, exit="corner")
    assert np.argwhere(grids(mazes) == EXIT).tolist() == [[index, 8, 8] for index in range(50)]
    assert (shortest_M(mazes) != UNREACHABLE).all()


@pytest.mark.parametrize("family", ["perfect", "braided", "rooms", "mouse"])
@pytest.mark.parametrize(("side", "middle"), [(31, (14, 16)), (9, (4,)), (11, (4, 6)), (5, (2,))])
def test_center_exits_are_the_middle_rooms(family: str, side: int, middle: tuple[int, ...]) -> None:
    mazes = draw(5, family=family, side=side, exit="center")
    exits = [[index, row, column] for index in range(5) for row in middle for column in middle]
    assert np.argwhere(grids(mazes) == EXIT).tolist() == exits
    assert (shortest_M(mazes) != UNREACHABLE).all()


@pytest.mark.parametrize(("side", "middle"), [(9, slice(3, 6)), (8, slice(3, 5))])
def test_center_exits_of_blocks_are_the_middle_cells_that_can_be_reached(side: int, middle: slice) -> None:
    mazes = draw(200, family="blocks", side=side, exit="center")
    wanted = np.zeros((200, side, side), np.bool_)
    wanted[:, middle, middle] = steps_from_start(mazes)[:, middle, middle] != UNREACHABLE
    np.testing.assert_array_equal(grids(mazes) == EXIT, wanted)
    assert (shortest_M(mazes) != UNREACHABLE).all()


@pytest.mark.parametrize("family", GENERATED)
@pytest.mark.parametrize("exit", ["random", "corner", "center"])
def test_no_exit_is_cut_off_by_traps(family: str, exit: str) -> None:
    mazes = draw(100, family=family, side=11, exit=exit, traps=0.1)
    passable = (mazes.cell_C == FREE) | (mazes.cell_C == EXIT)
    steps = distance(mazes.ahead_CA, mazes.first_M, passable)
    assert (steps[mazes.cell_C == EXIT] != UNREACHABLE).all()
    assert (shortest_M(mazes) != UNREACHABLE).all()
    assert (mazes.cell_C[mazes.first_M] == FREE).all()
    assert TRAP in mazes.cell_C


@pytest.mark.parametrize("family", GENERATED)
def test_a_random_start_is_any_free_cell_and_exits_are_as_far_from_it_as_they_must_be(family: str) -> None:
    mazes = draw(300, family=family, side=9, start="random", min_distance=3, traps=0.02)
    assert (mazes.cell_C[mazes.first_M] == FREE).all()
    assert len(np.unique(mazes.start_M)) > 20
    assert set(shortest_M(mazes).tolist()) >= {3, 4, 5}
    assert (shortest_M(mazes) >= 3).all()
    assert (shortest_M(mazes) != UNREACHABLE).all()


def test_lakes_that_differ_in_their_holes_alone_are_on_both_sides_of_the_split() -> None:
    lakes: dict[str, Any] = {"family": "blocks", "side": 5, "density": 0.0, "traps": 0.2, "exit": "corner"}
    trained, kept = (draw(200, held_out=side, **lakes) for side in (False, True))
    assert not is_held_out(trained).any()
    assert is_held_out(kept).all()
    assert {cells.tobytes() for cells in grids(trained)}.isdisjoint(cells.tobytes() for cells in grids(kept))


def test_the_wanted_share_of_free_cells_are_traps() -> None:
    # In an open field hardly any maze is dropped, so the share is not bent.
    cells = draw(400, held_out=True, family="blocks", density=0.02, side=20, traps=0.1, exits=4).cell_C
    assert (cells == TRAP).sum() / ((cells == TRAP) | (cells == FREE)).sum() == pytest.approx(0.1, abs=0.003)
    assert TRAP not in draw(400).cell_C


@pytest.mark.parametrize("family", GENERATED)
def test_the_same_seed_draws_the_same_mazes_and_another_draws_others(family: str) -> None:
    mazes, same, other = (draw(family=family, seed=seed, exits=2, traps=0.05) for seed in (1, 1, 2))
    np.testing.assert_array_equal(mazes.cell_C, same.cell_C)
    assert (mazes.cell_C != other.cell_C).any()


@pytest.mark.parametrize("family", GENERATED)
def test_training_and_held_out_mazes_never_meet(family: str) -> None:
    training = draw(3000, family=family, side=5, min_distance=1)
    kept_back = draw(300, family=family, side=5, min_distance=1, held_out=True)
    assert not is_held_out(training).any()
    assert is_held_out(kept_back).all()
    seen = [{grid.tobytes() for grid in walls(mazes)} for mazes in (training, kept_back)]
    assert seen[0].isdisjoint(seen[1])


def test_a_call_draws_one_family_and_one_side_and_each_as_often() -> None:
    config = MazeConfig(family=("blocks", "mouse"), side=(5, 9, 13))
    rng = np.random.default_rng(0)
    drawn: Counter[tuple[bool, int]] = Counter()
    for _ in range(600):
        mazes = sample(config, 5, rng, held_out=False)
        rooms = ~walls(mazes)[:, ::2, ::2]  # always free in a mouse's maze, hardly ever all free among blocks
        drawn[bool(rooms.all()), len(rooms[0]) * 2 - 1] += 1
    assert len(drawn) == 6
    assert chi_square_is_small(list(drawn.values()), [1 / 6] * 6)


def chi_square_is_small(counts: list[int], chances: list[float]) -> bool:
    # Chi-square with f degrees of freedom has mean f and variance 2 f.
    expected = np.array(chances) * sum(counts)
    freedom = len(counts) - 1
    return bool(((counts - expected) ** 2 / expected).sum() < freedom + 4 * np.sqrt(2 * freedom))


def test_trees_of_doors_are_uniform() -> None:
    trees = Counter(tuple(tree) for tree in _edges(uniform(50_000, 3, np.random.default_rng(0)), 3))
    assert len(trees) == 192  # the spanning trees of 3x3 rooms
    assert chi_square_is_small(list(trees.values()), [1 / 192] * 192)


def test_perfect_mazes_are_as_often_as_a_depth_first_walk_makes_them() -> None:
    exact = depth_first_chances((0,), frozenset(), 3)
    assert sum(exact.values()) == pytest.approx(1)
    drawn = Counter(tuple(tree) for tree in _edges(depth_first(20_000, 3, np.random.default_rng(0)), 3))
    assert set(drawn) <= {tuple(sorted(tree)) for tree in exact}
    trees = list(exact)
    assert chi_square_is_small([drawn[tuple(sorted(tree))] for tree in trees], [exact[tree] for tree in trees])


def _edges(parents: npt.NDArray[np.intp], rooms: int) -> list[list[tuple[int, int]]]:
    return [
        sorted((min(a, b), max(a, b)) for a, b in enumerate(tree) if a != b)
        for tree in parents.reshape(-1, rooms**2).tolist()
    ]


def depth_first_chances(
    way: tuple[int, ...], tree: frozenset[tuple[int, int]], rooms: int
) -> dict[frozenset[tuple[int, int]], float]:
    """The exact chance of every tree that a walk standing at the end of `way` can still grow."""
    seen = {0} | {room for edge in tree for room in edge}
    if len(seen) == rooms**2:
        return {tree: 1.0}
    row, column = divmod(way[-1], rooms)
    near = [(row + down, column + right) for down, right in MOVES]
    new = [r * rooms + c for r, c in near if 0 <= r < rooms and 0 <= c < rooms and r * rooms + c not in seen]
    if not new:
        return depth_first_chances(way[:-1], tree, rooms)
    chances: dict[frozenset[tuple[int, int]], float] = defaultdict(float)
    for room in new:
        grown = tree | {(min(way[-1], room), max(way[-1], room))}
        for end, chance in depth_first_chances((*way, room), grown, rooms).items():
            chances[end] += chance / len(new)
    return chances


def test_trees_grow_straight_on_and_around_what_stays_apart() -> None:
    apart = np.zeros((6, 6), np.bool_)
    apart[2:4, 2:4] = True
    winding, straight = (depth_first(200, 6, np.random.default_rng(0), share, apart) for share in (0.0, 0.9))
    for trees in (winding, straight):
        assert (trees[:, apart.reshape(-1)] == np.flatnonzero(apart)).all()
        for edges in _edges(trees, 6):
            assert len(edges) == 31
            assert not {room for edge in edges for room in edge} & set(np.flatnonzero(apart).tolist())
    assert _straight(straight) > 1.3 * _straight(winding)


def _straight(trees: npt.NDArray[np.intp]) -> int:
    """How many rooms are entered in the direction in which their parent was."""
    parents = np.take_along_axis(trees, trees, axis=1)
    return int((np.arange(trees.shape[1]) - trees == trees - parents).sum())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_perfect_mazes_are_trees_over_all_rooms(seed: int, half_side: int) -> None:
    mazes = draw(4, seed, side=2 * half_side + 1)
    blocked = walls(mazes)
    assert not blocked[:, ::2, ::2].any()
    assert blocked[:, 1::2, 1::2].all()
    cells = (~blocked).sum(axis=(1, 2))
    links = (free_neighbours(blocked) * ~blocked).sum(axis=(1, 2)) // 2
    reached = (steps_from_start(mazes) != UNREACHABLE).sum(axis=(1, 2))
    assert (links == cells - 1).all()
    assert (reached == cells).all()


@pytest.mark.parametrize("exits", [1, 2])
def test_random_exits_are_uniform_over_the_cells_far_enough(exits: int) -> None:
    mazes = draw(40_000, side=5, min_distance=6, exits=exits)
    alike = (walls(mazes) == walls(mazes)[0]).all(axis=(1, 2))
    steps = steps_from_start(mazes[:1])[0]
    far = (steps >= 6) & (steps != UNREACHABLE)
    counts = (grids(mazes)[alike] == EXIT).sum(axis=0)
    expected = exits * alike.sum() / far.sum()
    assert counts[far].sum() == exits * alike.sum()
    assert (np.abs(counts[far] - expected) < 4 * np.sqrt(expected)).all()


def test_braiding_opens_the_wanted_share_of_dead_ends() -> None:
    shares = (0.0, 0.5, 1.0)
    never, half, always = (dead_ends(draw(400, family="braided", braid=share, side=15)) for share in shares)
    assert never == pytest.approx(dead_ends(draw(400, side=15)), rel=0.03)
    assert 0.3 * never < half < 0.5 * never  # below one half, since one wall less may open two dead ends
    assert always == 0


@pytest.mark.parametrize("family", ["braided", "mouse"])
def test_braiding_only_removes_walls_between_rooms(family: str) -> None:
    mazes = draw(50, family=family, braid=1.0, side=9)
    assert not walls(mazes)[:, ::2, ::2].any()
    assert walls(mazes)[:, 1::2, 1::2].all()


def test_mouse_mazes_have_the_wanted_share_of_loops() -> None:
    blocked = walls(draw(200, family="mouse", side=31, braid=0.0))
    doors = 2 * 16 * 15
    open_doors = (~blocked).sum() / len(blocked) - 16**2
    tree = 16**2 - 1
    assert open_doors == pytest.approx(tree + 0.12 * (doors - tree), rel=0.01)


@pytest.mark.parametrize("side", [5, 9, 11, 31])
def test_a_mouse_finds_one_square_in_the_center_with_one_way_in_and_all_rooms_hang_together(side: int) -> None:
    mazes = draw(50, family="mouse", side=side, exit="center", braid=1.0)
    rows = np.flatnonzero((grids(mazes)[0] == EXIT).any(axis=1))
    low, high = rows[0], rows[-1]
    inside = ~walls(mazes)[:, low : high + 1, low : high + 1]
    assert (inside.sum(axis=(1, 2)) == (1 if low == high else 8)).all()
    around = ~walls(mazes)[:, low - 1 : high + 2, low - 1 : high + 2]
    assert (around.sum(axis=(1, 2)) == inside.sum(axis=(1, 2)) + 1).all()
    assert ((steps_from_start(mazes) != UNREACHABLE) == ~walls(mazes)).all()


@pytest.mark.parametrize("density", [0.1, 0.2, 0.4])
def test_blocks_are_as_dense_as_configured(density: float) -> None:
    # Nearly all of them are solvable at a distance of one, so redrawing hardly bends the density.
    blocked = walls(draw(500, family="blocks", side=20, min_distance=1, density=density))
    assert blocked[:, 1:, 1:].mean() == pytest.approx(density, abs=0.01)


def test_rooms_are_rectangles_joined_by_doors_one_cell_wide() -> None:
    for blocked in walls(draw(40, family="rooms", side=13)):
        # A line that is mostly wall is a wall; its free cells are doors. Nothing else is blocked.
        rows, columns = (np.flatnonzero(blocked.mean(axis=axis) > 0.5) for axis in (1, 0))
        assert len(rows) == len(columns) == 3
        rest = np.delete(np.delete(blocked, rows, axis=0), columns, axis=1)
        assert not rest.any()
        doors = (~blocked[rows]).sum() + (~blocked[:, columns]).sum()
        assert 15 <= doors <= 24  # a spanning tree of 16 rooms; every wall between two rooms


def test_a_file_gives_all_its_mazes_as_they_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    wide = ["\n".join(row + "#." for row in text.split("\n")) for text in FILE[:20]]
    path.write_text("\n\n".join([*FILE, *wide, "SHE\nF.E"]))
    config: dict[str, Any] = {"family": "file", "path": str(path), "side": 6, "min_distance": 99}
    training, kept_back = draw(3000, **config), draw(300, held_out=True, **config)
    assert not is_held_out(training).any()
    assert is_held_out(kept_back).all()
    drawn = {mazes.to_text(index) for mazes in (training, kept_back) for index in range(len(mazes))}
    assert drawn == {*FILE, *wide, "SHE\n..E"}


def test_a_file_is_one_family_among_others(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("\n\n".join(FILE))
    rng = np.random.default_rng(0)
    config = MazeConfig(family=("perfect", "file"), path=str(path), side=(5, 7))
    sides = Counter(int(sample(config, 3, rng, held_out=False).shape_M2[0, 0]) for _ in range(200))
    assert set(sides) == {4, 5, 7}
    assert sides[4] == pytest.approx(100, abs=30)


def test_a_file_without_mazes_on_the_wanted_side_of_the_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text(FILE[0])
    held_out = not is_held_out(Mazes.from_text(FILE[0]))[0]
    kind = "held-out" if held_out else "training"
    with pytest.raises(MazeError, match=rf"no {kind} maze is among the 1 in .*one\.txt; .*add more mazes"):
        draw(family="file", path=str(path), held_out=held_out)


def test_a_family_without_such_mazes_is_refused_in_the_end() -> None:
    one_grid: dict[str, Any] = {"family": "blocks", "density": 0.0, "side": 5}
    with pytest.raises(MazeError, match=r"only 0 of \d+ mazes of family 'blocks' and side 5 suit as training"):
        draw(**one_grid)
    assert len(draw(held_out=True, **one_grid)) == 30
    with pytest.raises(MazeError, match=r"change maze\.side, .*maze\.exits, maze\.traps or maze\.density"):
        draw(2, side=5, exits=16, min_distance=8)


@pytest.mark.parametrize(
    ("setting", "value", "stored"),
    [
        ("side", 9, 9),
        ("side", [9, 13], (9, 13)),
        ("side", "[9,13]", (9, 13)),
        ("side", "9, 13", (9, 13)),
        ("side", "13", 13),
        ("side", "[13]", (13,)),
        ("family", "rooms", "rooms"),
        ("family", ("rooms",), ("rooms",)),
        ("family", '["rooms", "mouse"]', ("rooms", "mouse")),
        ("family", "[rooms,mouse]", ("rooms", "mouse")),
        ("family", "rooms,mouse", ("rooms", "mouse")),
    ],
)
def test_family_and_side_are_one_or_several(setting: str, value: object, stored: object) -> None:
    config = MazeConfig.model_validate({setting: value})
    assert getattr(config, setting) == stored
    assert MazeConfig.model_validate_json(config.model_dump_json()) == config
    several = {"side": config.sides, "family": config.families}[setting]
    assert several == (stored if isinstance(stored, tuple) else (stored,))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"side": []}, "maze.side is an empty list; name one value or more"),
        ({"side": "[]"}, "maze.side is an empty list; name one value or more"),
        ({"side": [9, 11, 9]}, "maze.side lists 9 twice; name each value once"),
        ({"family": "rooms,rooms"}, "maze.family lists 'rooms' twice; name each value once"),
        (
            {"family": ["blocks", "mouse"], "side": [9, 12]},
            "maze side must be odd and at least 5 for family 'mouse', got 12; set maze.side",
        ),
        ({"family": ["rooms", "file"]}, "maze.family 'file' needs a maze file; set maze.path"),
        (
            {"side": [13, 9], "min_distance": 20},
            "maze.min_distance 20 is more than a 9x9 maze can offer; set it to 16 or less",
        ),
        (
            {"exit": "center", "exits": 2},
            "maze.exits 2 is for random exits, and maze.exit is 'center'; set maze.exit to random, or maze.exits to 1",
        ),
        ({"side": [9, 128]}, "Input should be less than or equal to 127"),
        ({"side": 3}, "Input should be greater than or equal to 5"),
        ({"side": "nine"}, "Input should be a valid integer, unable to parse string as an integer"),
        (
            {"family": ["perfct"]},
            "Input should be 'perfect', 'braided', 'blocks', 'rooms', 'mouse' or 'file', "
            "or a function of your own, 'MODULE:FUNCTION'",
        ),
    ],
)
def test_mazes_that_cannot_be_drawn_are_refused_in_one_sentence(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        MazeConfig.model_validate(settings)
    [detail] = refusal.value.errors()
    assert detail["msg"].removeprefix("Value error, ") == sentence
