"""Observations, their numbers and their turning, against one robot that looks around."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.config import PolicyConfig
from protocol.world.cells import NO_MOVE
from protocol.world.senses import ALL_MARKS, MARK_BITS, MARKS, Observations, Sight, features, offsets, open_moves, turns
from tests.parts.robot import BUMPED, VISITED_2, Drawing, Past, Robot, mazes_of, random_drawing


def policy(radius: int, compass: bool = False) -> PolicyConfig:
    return PolicyConfig(radius=radius, compass=compass)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 4), st.booleans())
def test_what_is_sensed_in_each_free_cell_is_what_a_robot_sees_there(seed: int, radius: int, compass: bool) -> None:
    rng = np.random.default_rng(seed)
    drawings = [random_drawing(rng) for _ in range(3)]
    sight = Sight.of(mazes_of(drawings), policy(radius, compass))
    looks = iter(sight.look_C.tolist())
    seen: dict[int, tuple[list[bool], list[bool]]] = {}
    for drawing in drawings:
        for cell in drawing.cells:
            look = next(looks)
            if cell in drawing.walls:
                continue
            wanted = drawing.seen(cell, radius), drawing.compass(cell) if compass else []
            assert (sight.looks_LB[look].tolist(), sight.compass_LA[look].tolist()) == wanted
            assert seen.setdefault(look, wanted) == wanted
    assert len({str(wanted) for wanted in seen.values()}) == len(seen)  # what is alike has one number


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 3), st.booleans())
def test_an_observation_turned_to_a_move_is_what_a_robot_senses_that_faces_it(
    seed: int, radius: int, compass: bool
) -> None:
    rng = np.random.default_rng(seed)
    robot = Robot(random_drawing(rng), PolicyConfig(radius=radius, compass=compass), Past())
    for move in rng.integers(0, 4, 10).tolist():
        upright = np.array(robot.features())
        assert len(upright) == features(robot.policy)
        turned = upright[turns(robot.policy)]
        assert turned.tolist() == [robot.features(facing) for facing in range(4)]
        opened = open_moves(upright[None].astype(np.uint8), robot.policy)[0]
        assert opened.tolist() == [robot.may(way) for way in range(4)]
        robot.go(move)


def test_turning_four_times_changes_nothing() -> None:
    quarter = turns(policy(2, compass=True))[1]
    whole = np.arange(len(quarter))
    for _ in range(4):
        whole = whole[quarter]
    assert whole.tolist() == list(range(len(quarter)))


@pytest.mark.parametrize("radius", range(5))
def test_a_robot_sees_a_square_around_it_without_its_own_cell(radius: int) -> None:
    assert len(offsets(radius)) == (2 * radius + 1) ** 2 - 1
    assert all(max(abs(down), abs(right)) <= radius for down, right in offsets(radius))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.booleans())
def test_what_is_alike_has_one_number_and_numbers_follow_the_order_of_meeting(seed: int, by_maze: bool) -> None:
    rng = np.random.default_rng(seed)
    drawings = [random_drawing(rng) for _ in range(3)]
    mazes = mazes_of(drawings)
    met = Observations(Sight.of(mazes, policy(1, compass=True)), by_maze)
    places = [(maze, drawing, cell) for maze, drawing in enumerate(drawings) for cell in drawing.cells]
    free = [row for row, (_, drawing, cell) in enumerate(places) if cell not in drawing.walls]
    numbers: dict[str, int] = {}
    for _ in range(4):
        before, at_W, last_W = met.count, rng.choice(free, 20), rng.integers(0, NO_MOVE + 1, 20).astype(np.int32)
        mark_WA = rng.integers(0, MARKS, (20, 4), np.int32)
        seen_W = met.numbers(at_W, last_W, (mark_WA << np.arange(0, 4 * MARK_BITS, MARK_BITS)).sum(1, dtype=np.int32))
        feature_UF, maze_U = met.features(), met.mazes()
        assert (maze_U is not None) == by_maze
        fresh = set()
        for row, at, last, mark_A in zip(seen_W.tolist(), at_W.tolist(), last_W.tolist(), mark_WA, strict=True):
            maze, drawing, cell = places[at]
            wanted = [
                *drawing.seen(cell, 1),
                *(last == move for move in range(NO_MOVE + 1)),
                *(mark == each for each in range(MARKS) for mark in mark_A),
                *drawing.compass(cell),
            ]
            assert feature_UF[row].tolist() == wanted
            assert maze_U is None or maze_U[row] == maze
            assert numbers.setdefault(str((wanted, maze * by_maze)), row) == row
            if row >= before:
                fresh.add(row)
        assert fresh == set(range(before, met.count))
        order_U, rank_U = met.order()
        assert np.array_equal(met.features(order_U), feature_UF[order_U])
        assert np.array_equal(rank_U[order_U], np.arange(met.count))
    assert len(numbers) == met.count


def test_marks_of_the_four_directions_fill_their_bits() -> None:
    assert MARKS <= 1 << MARK_BITS
    assert VISITED_2 + 1 == BUMPED == MARKS - 1
    assert ALL_MARKS == (1 << 4 * MARK_BITS) - 1


def test_the_compass_points_to_the_nearest_exit() -> None:
    drawing = Drawing("E....S...E")
    assert [drawing.compass((0, column)) for column in (3, 6)] == [[False] * 3 + [True], [False, True, False, False]]
    sight = Sight.of(mazes_of([drawing]), policy(0, compass=True))
    assert sight.compass_LA[sight.look_C[[3, 6]]].tolist() == [[False] * 3 + [True], [False, True, False, False]]
