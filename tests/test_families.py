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

from protocol.config import MazeConfig
from protocol.world.families import _depth_first_trees, _uniform_trees, sample
from protocol.world.maze import MOVES, UNREACHABLE, Bools, Ints, MazeError, Mazes, distance
from protocol.world.maze import held_out as is_held_out

Integers = npt.NDArray[np.int64]

GENERATED = ("perfect", "braided", "blocks", "rooms")
ROWS = ["".join(row) for row in product(".#", repeat=3)]
FILE = [f"S...\n{above}.\n{below}.\n#..E" for above in ROWS for below in ROWS]


def draw(count: int = 30, seed: int = 0, held_out: bool = False, **maze: Any) -> Mazes:
    return sample(MazeConfig(**maze), count, np.random.default_rng(seed), held_out=held_out)


def free_neighbours(blocked: Bools) -> Integers:
    """[M, n, n] how many of a cell's neighbours are free."""
    free: Integers = np.pad(~blocked, ((0, 0), (1, 1), (1, 1))).astype(np.int64)
    return free[:, :-2, 1:-1] + free[:, 2:, 1:-1] + free[:, 1:-1, :-2] + free[:, 1:-1, 2:]


def dead_ends(mazes: Mazes) -> int:
    return int((~mazes.blocked & (free_neighbours(mazes.blocked) == 1)).sum())


def to_exit(mazes: Mazes) -> Ints:
    """[M] steps from the start to the exit."""
    return distance(mazes.blocked, mazes.start)[np.arange(len(mazes)), mazes.exit]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(GENERATED), st.integers(0, 2**32), st.integers(2, 7), st.integers(1, 12), st.booleans()
)
def test_every_maze_is_solvable_with_its_exit_far_enough(
    family: str, seed: int, half_side: int, min_distance: int, held_out: bool
) -> None:
    side = 2 * half_side + 1
    min_distance = min(min_distance, 2 * (side - 1))
    mazes = draw(5, seed, held_out, family=family, side=side, min_distance=min_distance)
    assert mazes.blocked.shape == (5, side, side)
    assert mazes.start.dtype == mazes.exit.dtype == np.int32
    assert (mazes.start == 0).all()
    assert not mazes.blocked.reshape(5, -1)[np.arange(5), mazes.exit].any()
    steps = to_exit(mazes)
    assert ((steps >= min_distance) & (steps != UNREACHABLE)).all()


@pytest.mark.parametrize("family", GENERATED)
def test_the_largest_mazes_are_solvable_too(family: str) -> None:
    mazes = draw(3, family=family, side=51, min_distance=100)
    assert ((to_exit(mazes) >= 100) & (to_exit(mazes) != UNREACHABLE)).all()


@pytest.mark.parametrize("family", GENERATED)
def test_a_corner_exit_is_the_opposite_corner_and_can_be_reached(family: str) -> None:
    mazes = draw(50, family=family, side=9, exit="corner")
    assert (mazes.exit == 80).all()
    assert (to_exit(mazes) != UNREACHABLE).all()


@pytest.mark.parametrize("family", GENERATED)
def test_the_same_seed_draws_the_same_mazes_and_another_draws_others(family: str) -> None:
    mazes, same, other = (draw(family=family, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(mazes.blocked, same.blocked)
    np.testing.assert_array_equal(mazes.exit, same.exit)
    assert (mazes.blocked != other.blocked).any()


@pytest.mark.parametrize("family", GENERATED)
def test_training_and_held_out_mazes_never_meet(family: str) -> None:
    training = draw(3000, family=family, side=5, min_distance=1)
    kept_back = draw(300, family=family, side=5, min_distance=1, held_out=True)
    assert not is_held_out(training).any()
    assert is_held_out(kept_back).all()
    grids = [{grid.tobytes() for grid in mazes.blocked} for mazes in (training, kept_back)]
    assert grids[0].isdisjoint(grids[1])


def chi_square_is_small(counts: list[int], chances: list[float]) -> bool:
    # Chi-square with f degrees of freedom has mean f and variance 2 f.
    expected = np.array(chances) * sum(counts)
    freedom = len(counts) - 1
    return bool(((counts - expected) ** 2 / expected).sum() < freedom + 4 * np.sqrt(2 * freedom))


def test_trees_of_doors_are_uniform() -> None:
    trees = Counter(tuple(tree) for tree in _edges(_uniform_trees(50_000, 3, np.random.default_rng(0)), 3))
    assert len(trees) == 192  # the spanning trees of 3x3 rooms
    assert chi_square_is_small(list(trees.values()), [1 / 192] * 192)


def test_perfect_mazes_are_as_often_as_a_depth_first_walk_makes_them() -> None:
    exact = depth_first_chances((0,), frozenset(), 3)
    assert sum(exact.values()) == pytest.approx(1)
    drawn = Counter(
        tuple(tree) for tree in _edges(_depth_first_trees(20_000, 3, np.random.default_rng(0)), 3)
    )
    assert set(drawn) <= {tuple(sorted(tree)) for tree in exact}
    trees = list(exact)
    assert chi_square_is_small(
        [drawn[tuple(sorted(tree))] for tree in trees], [exact[tree] for tree in trees]
    )


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


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_perfect_mazes_are_trees_over_all_rooms(seed: int, half_side: int) -> None:
    mazes = draw(4, seed, side=2 * half_side + 1)
    assert not mazes.blocked[:, ::2, ::2].any()
    assert mazes.blocked[:, 1::2, 1::2].all()
    cells = (~mazes.blocked).sum(axis=(1, 2))
    links = (free_neighbours(mazes.blocked) * ~mazes.blocked).sum(axis=(1, 2)) // 2
    reached = (distance(mazes.blocked, mazes.start) != UNREACHABLE).sum(axis=1)
    assert (links == cells - 1).all()
    assert (reached == cells).all()


def test_random_exits_are_uniform_over_the_cells_far_enough() -> None:
    mazes = draw(40_000, side=5, min_distance=6)
    first = (mazes.blocked == mazes.blocked[0]).all(axis=(1, 2))
    steps = distance(mazes.blocked[:1], mazes.start[:1])[0]
    far = np.flatnonzero((steps >= 6) & (steps != UNREACHABLE))
    counts = np.bincount(mazes.exit[first], minlength=25)
    expected = first.sum() / len(far)
    assert counts[far].sum() == first.sum()
    assert (np.abs(counts[far] - expected) < 4 * np.sqrt(expected)).all()


def test_braiding_opens_the_wanted_share_of_dead_ends() -> None:
    shares = (0.0, 0.5, 1.0)
    never, half, always = (dead_ends(draw(400, family="braided", braid=share, side=15)) for share in shares)
    assert never == pytest.approx(dead_ends(draw(400, side=15)), rel=0.03)
    assert 0.3 * never < half < 0.5 * never  # below one half, since one wall less may open two dead ends
    assert always == 0


def test_braiding_only_removes_walls_between_rooms() -> None:
    mazes = draw(50, family="braided", braid=1.0, side=9)
    assert not mazes.blocked[:, ::2, ::2].any()
    assert mazes.blocked[:, 1::2, 1::2].all()


@pytest.mark.parametrize("density", [0.1, 0.2, 0.4])
def test_blocks_are_as_dense_as_configured(density: float) -> None:
    # Nearly all of them are solvable at a distance of one, so redrawing hardly bends the density.
    blocked = draw(500, family="blocks", side=20, min_distance=1, density=density).blocked
    assert blocked[:, 1:, 1:].mean() == pytest.approx(density, abs=0.01)


def test_rooms_are_rectangles_joined_by_doors_one_cell_wide() -> None:
    for blocked in draw(40, family="rooms", side=13).blocked:
        # A line that is mostly wall is a wall; its free cells are doors. Nothing else is blocked.
        rows, columns = (np.flatnonzero(blocked.mean(axis=axis) > 0.5) for axis in (1, 0))
        assert len(rows) == len(columns) == 3
        rest = np.delete(np.delete(blocked, rows, axis=0), columns, axis=1)
        assert not rest.any()
        doors = (~blocked[rows]).sum() + (~blocked[:, columns]).sum()
        assert 15 <= doors <= 24  # a spanning tree of 16 rooms; every wall between two rooms


def test_a_file_gives_all_its_mazes_padded_to_the_side(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("\n\n".join(FILE))
    config: dict[str, Any] = {"family": "file", "path": str(path), "side": 6, "min_distance": 10}
    training, kept_back = draw(2000, **config), draw(200, held_out=True, **config)
    assert not is_held_out(training).any()
    assert is_held_out(kept_back).all()
    drawn = {mazes.to_text(index) for mazes in (training, kept_back) for index in range(len(mazes))}
    padding = "##\n", "##\n######\n######"
    assert drawn == {text.replace("\n", padding[0]) + padding[1] for text in FILE}


def test_a_file_without_mazes_on_the_wanted_side_of_the_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text(FILE[0])
    held_out = not is_held_out(Mazes.from_text(FILE[0]))[0]
    kind = "held-out" if held_out else "training"
    with pytest.raises(MazeError, match=rf"no {kind} maze is among the 1 in .*one\.txt; .*add more mazes"):
        draw(family="file", path=str(path), held_out=held_out)


def test_a_maze_of_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_text("SE\n\nS......E")
    with pytest.raises(
        MazeError, match=r"maze large:2 in .* has side 8, but maze.side is 5; set maze.side to 8"
    ):
        draw(family="file", path=str(path), side=5)


def test_a_family_without_such_mazes_is_refused_in_the_end() -> None:
    one_grid: dict[str, Any] = {"family": "blocks", "density": 0.0, "side": 5}
    with pytest.raises(
        MazeError, match=r"only 0 of \d+ mazes of family 'blocks' and side 5 suit as training"
    ):
        draw(**one_grid)
    assert len(draw(held_out=True, **one_grid)) == 30
    with pytest.raises(MazeError, match=r"change maze\.side, maze\.min_distance or maze\.density"):
        draw(family="blocks", density=0.6, side=31, exit="corner")
