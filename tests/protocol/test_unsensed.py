"""Nothing that a robot has not sensed enters: not what it observes, not its dreams, not what it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.config import Config
from protocol.learning.credit import Steps, hindsight
from protocol.world.memory import Known
from tests.parts.batches import Given, Walked, Wanderer, make_config, random_theta
from tests.parts.robot import Drawing, Past, mazes_of, random_drawing, square

STAGES, MAZES = 3, 4


def config_of(rng: np.random.Generator) -> Config:
    remembers = rng.random() < 0.8
    policy = {
        "radius": int(rng.choice([0, 1, 1, 2])),
        "compass": bool(rng.integers(2)),
        "memory": "attempts" if remembers else "none",
        "dreams": bool(remembers and rng.random() < 0.8),
    }
    inner = {
        "rule": str(rng.choice(["sgd", "learned"])),
        "adapts": str(rng.choice(["cells", "all"])),
        "attempts": int(rng.integers(1, 3)),
        "steps": STAGES - 1,
        "cell_step_size": 1.0,
    }
    return make_config(MAZES, policy=policy, inner=inner)


def pasts_of(drawings: list[Drawing], walked: Walked) -> list[Past]:
    """Returns, of each maze, where robots have stood and what they have bumped into."""
    places = [(maze, cell) for maze, drawing in enumerate(drawings) for cell in drawing.cells]
    visited: list[set[Any]] = [set() for _ in drawings]
    bumps: list[set[Any]] = [set() for _ in drawings]
    for done in walked.walks:
        for row in (*done.at_N.tolist(), *done.end_W.tolist()):
            maze, cell = places[row]
            visited[maze].add(cell)
        for row, move in zip(done.at_N.tolist(), done.move_N.tolist(), strict=True):
            maze, cell = places[row]
            if drawings[maze].ahead(cell, move) == cell:
                bumps[maze].add((cell, move))
    return [Past(frozenset(one), frozenset(other)) for one, other in zip(visited, bumps, strict=True)]


def altered(drawing: Drawing, past: Past, config: Config, rng: np.random.Generator) -> Drawing:
    """The same as far as the robots have sensed it.

    Of a cell where they have stood, they know all; of one that they have seen or bumped into, whether it is a wall;
    with a compass, of every cell whether it is an exit.
    """
    radius = config.policy.radius
    known_walls = {there for cell, move in past.bumps if (there := drawing.beside(cell, move)) is not None}
    if radius:
        known_walls |= {(i + down, j + right) for i, j in past.visited for down, right in square(radius)}
    marks = drawing.mark.copy()
    for cell, mark in drawing.mark.items():
        if cell in past.visited or (config.policy.compass and mark == "E"):
            continue
        could = [".", "H", "#"] if config.policy.compass else [".", "H", "E", "#"]
        if cell in known_walls:
            could = ["#"] if mark == "#" else could[:-1]
        marks[cell] = str(rng.choice(could))
    rows = ["".join(marks[i, j] for j in range(drawing.columns)) for i in range(drawing.rows)]
    return Drawing("\n".join(rows))


def all_that_is_known(walked: Walked, config: Config) -> list[npt.NDArray[Any]]:
    """Whatever a robot has before it or learns from, bit by bit."""
    arrays: list[npt.NDArray[Any]] = [walked.met.features()]
    for k, done in enumerate(walked.walks):
        known: Known = walked.knowns[k + 1]
        steps = Steps.of(done, walked.mazes, walked.horizon_M)
        arrays += [done.at_N, done.seen_N, done.length_W, done.end_W, done.known_N, done.hope_N, done.gain_N]
        arrays += [known.visited_C, known.way_C, hindsight(steps, known.way_C, 1, config)]
    for phi, log_prob_AN in walked.policies(random_theta(config)):
        arrays += [log_prob_AN, phi.delta_AC, phi.dream_DG, *phi.net.values()]
    return arrays


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32))
def test_mazes_that_differ_in_what_no_robot_has_sensed_are_the_same_to_robots_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    config, drawings = config_of(rng), [random_drawing(rng, most=10, least=6) for _ in range(MAZES)]
    horizon_M = rng.integers(5, 40, MAZES).astype(np.int32)  # most is left unsensed
    walked = Walked.by([Wanderer(seed + k).choose for k in range(STAGES)], mazes_of(drawings), config, horizon_M)
    pasts = pasts_of(drawings, walked)
    others = [altered(drawing, past, config, rng) for drawing, past in zip(drawings, pasts, strict=True)]
    again = Walked.by([Given(moves).choose for moves in walked.moves()], mazes_of(others), config, horizon_M)
    for mine, other in zip(all_that_is_known(walked, config), all_that_is_known(again, config), strict=True):
        assert mine.dtype == other.dtype
        assert np.array_equal(mine, other)


@pytest.mark.parametrize(
    ("radius", "change"), [(1, "S.#..\n.....\n....E"), (1, "SH...\n.....\n....E"), (0, "S#...\n.....\n....E")]
)
def test_what_was_sensed_does_make_a_difference(radius: int, change: str) -> None:
    """So the property above would fail if it altered what is sensed: here one cell that the robot sees or enters."""
    drawing, moves = Drawing("S....\n.....\n....E"), [1, 1, 3, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1]
    config = make_config(1, policy={"radius": radius}, inner={"steps": STAGES - 1}, outer={"attempts": 1})
    told = []
    for each in (drawing, Drawing(change)):
        chooses = [Given([moves]).choose for _ in range(STAGES)]
        told.append(all_that_is_known(Walked.by(chooses, mazes_of([each]), config), config))
    assert any(not np.array_equal(mine, other) for mine, other in zip(*told, strict=True))
