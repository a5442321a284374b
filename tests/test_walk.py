"""All walkers at once against one robot at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.config import PolicyConfig
from protocol.world.maze import Floats
from protocol.world.senses import Observations, Sight
from protocol.world.walk import Bytes, Here, Known, Walk, learned, walk
from protocol.world.ways import VISITED
from tests.robot import FAR, NO_EXIT, NO_WAY, VISITED_0, Drawing, Dream, Past, Robot, mazes_of, random_drawing

UP, RIGHT, DOWN, LEFT = range(4)


def members(moves: int) -> frozenset[int]:
    return frozenset(move for move in range(4) if moves >> move & 1)


class Wanderer:
    """Follows its hope now and then, the known way now and then, and moves anywhere else the rest of the time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def choose(self, here: Here) -> Bytes:
        moves = []
        nothing = np.zeros(len(here.at_W), np.uint8)
        for hope, known in zip(*(nothing if ways is None else ways for ways in (here.hope_W, here.known_W)), strict=True):
            wish = self.rng.random()
            ways = members(hope) if wish < 0.5 else members(known) if wish < 0.7 else frozenset()
            moves.append(int(self.rng.choice(sorted(ways or range(4)))))
        return np.array(moves, np.uint8)


class Given:
    """Makes the moves of a record: one list for every walker."""

    def __init__(self, moves: list[list[int]]) -> None:
        self.moves = moves

    def choose(self, here: Here) -> Bytes:
        moves = [self.moves[walker][here.time] for walker in here.walker_W]
        return np.array(moves, np.uint8)


def some_policy(rng: np.random.Generator, **settings: Any) -> PolicyConfig:
    drawn = {"radius": int(rng.integers(3)), "compass": bool(rng.integers(2))}
    remembers = rng.random() < 0.8
    drawn |= {"memory": "attempts" if remembers else "none", "dreams": remembers and rng.random() < 0.8}
    return PolicyConfig.model_validate(drawn | settings)


def assert_alike(made: Walk, met: Observations, drawings: list[Drawing], pasts: list[Past], policy: PolicyConfig,
                 horizons: list[int]) -> list[Past]:
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
                assert feature_UF[made.row_N[step]].tolist() == robot.features()
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
