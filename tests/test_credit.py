"""Credit of all steps at once against one attempt and one step at a time."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rollout import roll_out
from protocol.config import Config, InnerConfig, MazeConfig, RunConfig
from protocol.learning.credit import Steps, advantage, hindsight, leave_one_out, leaving_row, on_path
from protocol.learning.policy import Scene
from protocol.wire.messages import Attempts
from protocol.world.maze import MOVES, Mazes
from protocol.world.states import StateTable
from tests import stepwise
from tests.oracle import Drawing

UP, RIGHT, DOWN, LEFT = range(4)
ROOM = "S...\n....\n.#..\n...E"
PASSAGE = "S.##\n..##\n#.##\n#.E#"


def config(credit: str = "policy-gradient", **inner: Any) -> Config:
    return Config(
        maze=MazeConfig(side=5),
        inner=InnerConfig.model_validate({"credit": credit, "discount": 0.8, **inner}),
        run=RunConfig(horizon=40, discount=0.9),
    )


def wander(mazes: Mazes, attempts: int, seed: int, horizon: int = 40) -> tuple[Scene, Attempts]:
    """Attempts that draw every move alike, in float64."""
    table = StateTable.of(mazes, radius=1)
    even = np.full((*table.cell_MS.shape, len(MOVES)), math.log(1 / len(MOVES)), np.float32)
    made = roll_out(even, table, attempts, horizon, np.random.default_rng(seed))
    return Scene.of(table, torch.device("cpu"), torch.float64), made


def walk(text: str, moves: list[int]) -> tuple[Scene, Steps]:
    """One attempt that makes these moves."""
    drawing, table = Drawing(text), StateTable.of(Mazes.from_text(text), radius=1)
    states = drawing.states()
    state, visits = states[0], []
    for move in moves:
        visits.append(states.index(state) * len(MOVES) + move)
        after = drawing.follow(state, move)
        if after is not None:
            state = after
    scene = Scene.of(table, torch.device("cpu"), torch.float64)
    log_prob = np.zeros((*table.cell_MS.shape, len(MOVES)), np.float32)
    length = np.array([[len(moves)]], np.uint16)
    return scene, Steps.of(Attempts(length, np.array(visits, np.uint16), log_prob), scene, 0.9)


def both(count: int, attempts: int, seed: int) -> tuple[Scene, Steps, list[list[stepwise.Attempt]]]:
    """Attempts at ROOM and PASSAGE, as the tables have them and as lists [m][e]."""
    texts = [ROOM, PASSAGE][:count]
    scene, made = wander(Mazes.from_text("\n\n".join(texts)), attempts, seed)
    plain = [stepwise.attempts_at(Drawing(text), made, maze) for maze, text in enumerate(texts)]
    return scene, Steps.of(made, scene, 0.9), plain


def flat(rows: Any) -> Any:
    """[m][e][t] -> [N]"""
    return [value for maze in rows for attempt in maze for value in attempt]


def test_a_step_knows_its_attempt_its_time_and_what_is_left() -> None:
    _, steps, plain = both(2, attempts=3, seed=0)
    lengths = [len(attempt) for maze in plain for attempt in maze]
    assert steps.length_ME.tolist() == lengths
    assert steps.attempt_N.tolist() == [i for i, length in enumerate(lengths) for _ in range(length)]
    assert steps.maze_N.tolist() == [i // 3 for i, length in enumerate(lengths) for _ in range(length)]
    assert steps.time_N.tolist() == [t for length in lengths for t in range(length)]
    assert steps.left_N.tolist() == [length - t for length in lengths for t in range(length)]


def test_an_attempt_is_worth_the_discount_to_the_power_of_the_steps_before_its_last() -> None:
    _, steps, plain = both(2, attempts=20, seed=1)
    wanted = [stepwise.reward(attempt, 0.9) for maze in plain for attempt in maze]
    assert 0 < sum(value > 0 for value in wanted) < len(wanted)
    assert steps.found_ME.tolist() == [float(value > 0) for value in wanted]
    assert steps.return_ME.tolist() == pytest.approx(wanted, abs=1e-15)


def test_the_exit_on_the_last_step_before_the_horizon_counts() -> None:
    scene, made = wander(Mazes.from_text("S.\n#E"), attempts=200, seed=0, horizon=2)
    steps = Steps.of(made, scene, 0.9)
    right = made.visits[::2] % 4 == RIGHT
    down = made.visits[1::2] % 4 == DOWN
    assert steps.length_ME.tolist() == [2] * 200
    assert steps.return_ME.tolist() == pytest.approx((0.9 * (right & down)).tolist())


def test_each_attempt_is_measured_against_the_others_in_its_maze() -> None:
    returns = torch.tensor([1.0, 0.0, 0.5, 0.25, 0.25, 0.25], dtype=torch.float64)
    expected = [0.75, -0.75, 0.0, 0.0, 0.0, 0.0]
    assert leave_one_out(returns, 3).tolist() == pytest.approx(expected)
    assert leave_one_out(returns, 1).tolist() == returns.tolist()


@pytest.mark.parametrize("attempts", [1, 2, 7])
@pytest.mark.parametrize("kind", ["policy-gradient", "cell-advantage"])
def test_advantages_are_those_of_one_step_after_another(kind: str, attempts: int) -> None:
    scene, steps, plain = both(2, attempts, seed=2)
    wanted = flat([stepwise.advantage(maze, config(kind)) for maze in plain])
    assert advantage(steps, scene, config(kind)).tolist() == pytest.approx(wanted, abs=1e-14)


@pytest.mark.parametrize("attempts", [1, 4])
@pytest.mark.parametrize("kind", ["policy-gradient", "cell-advantage"])
def test_hindsight_is_that_of_one_step_after_another(kind: str, attempts: int) -> None:
    scene, steps, plain = both(2, attempts, seed=3)
    wanted = torch.tensor(
        flat([stepwise.hindsight(maze, config(kind)) for maze in plain]), dtype=torch.float64
    )
    *known, one_N = hindsight(steps, scene, config(kind))
    torch.testing.assert_close(torch.stack(known, dim=1), wanted, rtol=0, atol=1e-14)
    assert (one_N == 1).all()


def test_cell_advantages_at_a_cell_add_up_to_nothing() -> None:
    scene, steps, _ = both(2, attempts=5, seed=4)
    value_N = advantage(steps, scene, config("cell-advantage"))
    total = torch.zeros(scene.mazes * scene.cells, dtype=torch.float64)
    total.index_add_(0, scene.cell_MS[steps.state_N], value_N)
    assert total.abs().max() < 1e-12


def test_a_detour_is_cut_out_of_the_path_and_its_last_visits_are_kept() -> None:
    # right and back, a bump at the edge, down; right and back; right, down, down, right onto the exit
    moves = [RIGHT, LEFT, LEFT, DOWN, RIGHT, LEFT, RIGHT, DOWN, DOWN, RIGHT]
    scene, steps = walk(PASSAGE, moves)
    leaving_N = leaving_row(steps, scene)
    assert steps.found_ME.tolist() == [1]
    assert leaving_N.tolist() == [3, 1, 3, 3, 6, 7, 6, 7, 8, 9]
    assert on_path(steps, leaving_N).nonzero().flatten().tolist() == [3, 6, 7, 8, 9]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_the_path_is_what_chronological_loop_erasure_leaves(seed: int, attempts: int) -> None:
    scene, steps, plain = both(2, attempts, seed)
    leaving_N = leaving_row(steps, scene)
    wanted_path, wanted_leaving, begin = [], [], 0
    for attempt in (attempt for maze in plain for attempt in maze):
        path = stepwise.loop_erased(attempt)
        cells = [step.cell for step in attempt]
        wanted_path += [time in path for time in range(len(attempt))]
        wanted_leaving += [begin + max(t for t, c in enumerate(cells) if c == cell) for cell in cells]
        begin += len(attempt)
    assert leaving_N.tolist() == wanted_leaving
    assert on_path(steps, leaving_N).tolist() == wanted_path


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_a_path_leads_from_the_start_to_where_the_attempt_ended_without_meeting_a_cell_twice(
    seed: int,
) -> None:
    scene, steps, (attempts, _) = both(2, 1, seed)
    path = on_path(steps, leaving_row(steps, scene))[: len(attempts[0])]
    kept = [step for step, on in zip(attempts[0], path.tolist(), strict=True) if on]
    cells = [step.cell for step in kept]
    assert cells[0] == 0
    assert len(set(cells)) == len(cells)
    for step, following in pairwise(kept):
        assert step.after is not None
        assert step.after[0] == following.cell
    assert kept[-1] == attempts[0][-1]
