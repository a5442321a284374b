"""All walkers at once against one robot at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.config import PolicyConfig
from protocol.world.maze import Mazes
from protocol.world.memory import Known
from protocol.world.senses import Observations, Sight
from protocol.world.walk import Walk, learned, walk
from protocol.world.ways import VISITED
from tests.parts.batches import Given, Wanderer, members
from tests.parts.robot import (
    BUMPED,
    EARLIER,
    FAR,
    NEVER,
    NO_EXIT,
    NO_WAY,
    VISITED_0,
    VISITED_1,
    VISITED_2,
    Drawing,
    Dream,
    Past,
    Robot,
    mazes_of,
    random_drawing,
)

UP, RIGHT, DOWN, LEFT = range(4)


def some_policy(rng: np.random.Generator, **settings: Any) -> PolicyConfig:
    drawn: dict[str, Any] = {"radius": int(rng.integers(3)), "compass": bool(rng.integers(2))}
    remembers = rng.random() < 0.8
    drawn |= {"memory": "attempts" if remembers else "none", "dreams": remembers and rng.random() < 0.8}
    return PolicyConfig.model_validate(drawn | settings)


def assert_alike(
    made: Walk, met: Observations, drawings: list[Drawing], pasts: list[Past], policy: PolicyConfig, horizons: list[int]
) -> list[Past]:
    """Every robot, which makes the same moves, has the same before it at every step; what is known afterwards."""
    feature_UF, step, after = met.features(), 0, []
    offsets = np.cumsum([0, *(len(drawing.cells) for drawing in drawings)])
    attempts = len(made.length_W) // len(drawings)
    for maze, (drawing, past, horizon) in enumerate(zip(drawings, pasts, horizons, strict=True)):
        robots = []
        for walker in range(maze * attempts, (maze + 1) * attempts):
            robot = Robot(drawing, policy, past)
            while not robot.over(horizon):
                assert made.at_N[step] == offsets[maze] + drawing.number(robot.cell)
                assert feature_UF[made.seen_N[step]].tolist() == robot.features()
                dream = Dream(members(made.known_N[step]), members(made.hope_N[step]), int(made.gain_N[step]))
                assert dream == robot.dream()
                robot.go(int(made.move_N[step]))
                step += 1
            assert made.length_W[walker] == len(robot.moves)
            assert made.end_W[walker] == offsets[maze] + drawing.number(robot.cell)
            robots.append(robot)
        after.append(past.and_then(robots))
    assert step == len(made.move_N)
    return after


def assert_known(known: Known, drawings: list[Drawing], pasts: list[Past], policy: PolicyConfig) -> None:
    visited, way = [], []
    for drawing, past in zip(drawings, pasts, strict=True):
        steps = past.known_way(drawing)
        way += [steps.get(cell, FAR) for cell in drawing.cells]
        for cell in drawing.cells:
            bumps = sum(1 << move for move in range(4) if (cell, move) in past.bumps)
            visited.append(VISITED * (cell in past.visited) + bumps)
    assert known.visited_C.tolist() == visited
    assert known.way_C.tolist() == way


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_all_walkers_at_once_meet_what_one_robot_at_a_time_meets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy, drawings = some_policy(rng), [random_drawing(rng) for _ in range(3)]
    mazes, attempts = mazes_of(drawings), int(rng.integers(1, 4))
    sight = Sight.of(mazes, policy)
    met, known, pasts = Observations(sight), Known.nothing(mazes.cells), [Past()] * 3
    horizons = [int(horizon) for horizon in rng.integers(1, 40, 3)]
    for stage in range(3):
        wanderer = Wanderer(seed + stage)
        made = walk(sight, met, known, attempts, np.array(horizons, np.int32), wanderer.choose)
        pasts = assert_alike(made, met, drawings, pasts, policy, horizons)
        known = learned(sight, known, made)
        assert_known(known, drawings, pasts, policy)


class Walked:
    """Attempts at one drawn maze, one after another, that make these moves."""

    def __init__(self, text: str, *attempts: list[int], **settings: Any) -> None:
        self.mazes = Mazes.from_text(text)
        self.sight = Sight.of(self.mazes, PolicyConfig.model_validate(settings))
        self.met, self.known = Observations(self.sight), Known.nothing(self.mazes.cells)
        for moves in attempts:
            horizon_M = np.array([len(moves)], np.int32)
            self.walk = walk(self.sight, self.met, self.known, 1, horizon_M, Given([moves]).choose)
            self.before, self.known = self.known, learned(self.sight, self.known, self.walk)

    def marks(self, step: int) -> list[int]:
        """Returns the marks of the four directions before a step of the last attempt."""
        radius = self.sight.policy.radius
        first = (2 * radius + 1) ** 2 - 1 + 5
        mark_EA = self.met.features()[self.walk.seen_N[step], first : first + 24].reshape(6, 4)
        assert (mark_EA.sum(0) == 1).all()
        return [int(mark) for mark in mark_EA.argmax(0)]

    def dreams(self) -> list[tuple[set[int], set[int], int]]:
        """Returns the dream at every step of the last attempt: moves of the known way, of the hopeful way, the gain."""
        rows = zip(self.walk.known_N, self.walk.hope_N, self.walk.gain_N.tolist(), strict=True)
        return [(set(members(known)), set(members(hope)), gain) for known, hope, gain in rows]


def test_an_exit_a_trap_and_the_horizon_end_an_attempt() -> None:
    text = "ES.H"
    ends = [Walked(text, moves) for moves in ([LEFT, LEFT], [RIGHT, RIGHT, RIGHT], [RIGHT, LEFT])]
    assert [one.walk.length_W.tolist() for one in ends] == [[1], [2], [2]]
    assert [one.walk.end_W.tolist() for one in ends] == [[0], [3], [1]]
    assert [one.known.way_C.tolist() for one in ends] == [[0, 1, FAR, FAR], [FAR] * 4, [FAR] * 4]


def test_marks_say_how_often_a_passage_was_used_in_this_attempt() -> None:
    one = Walked("S..\n.#E", [RIGHT, LEFT, RIGHT, LEFT, DOWN, UP, RIGHT])
    wall = BUMPED
    assert [one.marks(step) for step in range(7)] == [
        [wall, NEVER, NEVER, wall],
        [wall, NEVER, wall, VISITED_1],
        [wall, VISITED_2, NEVER, wall],
        [wall, NEVER, wall, VISITED_2],
        [wall, VISITED_2, NEVER, wall],
        [VISITED_1, wall, wall, wall],
        [wall, VISITED_2, VISITED_2, wall],
    ]


def test_marks_tell_earlier_attempts_from_this_one() -> None:
    one = Walked("S..\n...\n..E", [RIGHT, DOWN, LEFT], [DOWN, RIGHT, UP])
    assert [one.marks(step) for step in range(3)] == [
        [BUMPED, EARLIER, EARLIER, BUMPED],
        [VISITED_1, EARLIER, NEVER, BUMPED],
        [EARLIER, NEVER, NEVER, VISITED_1],
    ]
    around = Walked("S..\n...\n..E", [RIGHT, DOWN, LEFT, UP])
    assert around.marks(3) == [VISITED_0, VISITED_1, NEVER, BUMPED]


def test_a_blind_robot_remembers_what_it_has_bumped_into() -> None:
    one = Walked("S#\n.E", [RIGHT, LEFT], [UP, DOWN], radius=0)
    assert one.marks(0) == [NEVER, BUMPED, NEVER, BUMPED]
    assert one.marks(1) == [BUMPED, BUMPED, NEVER, BUMPED]


def test_a_robot_without_memory_has_no_marks() -> None:
    one = Walked("S..\n.#E", [RIGHT, LEFT, RIGHT], memory="none", dreams=False)
    assert [one.marks(step) for step in range(3)] == [[NEVER] * 4] * 3


def test_an_explorer_dreams_of_the_nearest_new_cell_where_nothing_around_it_is_new() -> None:
    one = Walked("..S.E", [LEFT, LEFT, RIGHT, RIGHT, RIGHT])
    nothing: set[int] = set()
    assert one.dreams() == [
        (nothing, nothing, NO_EXIT),
        (nothing, nothing, NO_EXIT),
        (nothing, {RIGHT}, NO_EXIT),
        (nothing, {RIGHT}, NO_EXIT),
        (nothing, nothing, NO_EXIT),
    ]


def test_a_blind_explorer_dreams_anew_of_what_lies_beyond_when_it_has_bumped() -> None:
    """It hopes for the cell below the second, a wall; then it must hope for another, though it has not moved."""
    one = Walked("S.#\n.#.\n..E", [UP, LEFT, RIGHT, UP, RIGHT, DOWN, LEFT, DOWN], radius=0)
    assert one.dreams()[-2:] == [(set(), {LEFT}, NO_EXIT), (set(), set(), NO_EXIT)]


def test_to_a_blind_explorer_a_wall_is_news_though_it_has_been_nowhere_new() -> None:
    """In the dead end it hopes for the cell below the start; once that is a wall, for what lies on the left."""
    one = Walked("E..S.\n#####", [UP, LEFT, RIGHT, RIGHT, UP, RIGHT, DOWN, LEFT, DOWN, LEFT], radius=0)
    assert [hope for _, hope, _ in one.dreams()] == [set()] * 7 + [{LEFT}, set(), {LEFT}]


def test_a_robot_that_knows_an_exit_hopes_for_a_shorter_way_until_a_wall_disproves_it() -> None:
    text = "S.#.E\n.###.\n....."
    around = [DOWN, DOWN, RIGHT, RIGHT, RIGHT, RIGHT, UP, UP]
    one = Walked(text, around, [RIGHT, LEFT, DOWN])
    assert one.before.way_C[0] == 8  # and it has sensed all walls but the one in the first row
    assert one.dreams() == [({DOWN}, {RIGHT}, 4), (set(), {LEFT}, NO_WAY), ({DOWN}, set(), 0)]


def test_the_known_way_is_the_shortest_through_what_was_visited() -> None:
    text = "S..\n...\n..E"
    one = Walked(text, [RIGHT, RIGHT, DOWN, DOWN], [DOWN, DOWN, RIGHT, RIGHT], [RIGHT, DOWN])
    assert one.before.way_C.tolist() == [4, 3, 2, 3, FAR, 1, 2, 1, 0]
    assert one.dreams() == [({RIGHT, DOWN}, set(), 0), ({RIGHT}, set(), 0)]
