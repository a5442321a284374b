"""Credit of all steps at once against one attempt and one step at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.config import Config
from protocol.learning.credit import (
    ADVANTAGE,
    HINDSIGHT,
    Steps,
    advantage,
    hindsight,
    horizons,
    leave_one_out,
    leaving_row,
    on_path,
)
from protocol.world.maze import Mazes
from tests.parts import stepwise
from tests.parts.batches import Given, Walked, Wanderer, make_config
from tests.parts.robot import Drawing, Past, mazes_of, random_drawing
from tests.parts.stepwise import Attempt

UP, RIGHT, DOWN, LEFT = range(4)
PASSAGE = "S.##\n..##\n#.##\n#.E#"


def config_of(mazes: int = 3, kind: str = "cell-advantage", attempts: int = 2, **run: Any) -> Config:
    inner = {"credit": kind, "discount": 0.8, "attempts": attempts}
    settings = {"discount": 0.9, "horizon_per_cell": 2.0} | run
    return make_config(mazes, inner=inner, outer={"attempts": attempts}, run=settings)


def both(config: Config, seed: int) -> tuple[Walked, list[Steps], list[list[tuple[list[Attempt], Past, Drawing]]]]:
    """Two stages of attempts at random mazes of mixed sizes: as arrays, and [k][m] as lists with what is known then."""
    rng = np.random.default_rng(seed)
    drawings = [random_drawing(rng, most=5) for _ in range(config.run.mazes)]
    walked = Walked.by([Wanderer(seed).choose, Wanderer(seed + 1).choose], mazes_of(drawings), config)
    pasts, plain = [Past()] * len(drawings), []
    for done in walked.walks:
        nothing_N = np.zeros(len(done.move_N), np.float32)
        told = list(stepwise.attempts_at(drawings, done, nothing_N, pasts, walked.horizon_M.tolist(), config))
        pasts = [past for _, past in told]
        plain.append([(*each, drawing) for each, drawing in zip(told, drawings, strict=True)])
    return walked, [Steps.of(done, walked.mazes, walked.horizon_M) for done in walked.walks], plain


def steps_of(text: str, moves: list[int]) -> Steps:
    """One attempt that makes these moves."""
    config = make_config(1, outer={"attempts": 1})
    walked = Walked.by([Given([moves]).choose], Mazes.from_text(text), config)
    return Steps.of(walked.walks[0], walked.mazes, walked.horizon_M)


def test_a_step_knows_its_attempt_its_time_and_what_is_left() -> None:
    _, (steps, _), (plain, _) = both(config_of(attempts=3), seed=0)
    lengths = [len(attempt) for attempts, _, _ in plain for attempt in attempts]
    assert steps.attempts == 3
    assert steps.maze_W.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert steps.attempt_N.tolist() == [i for i, length in enumerate(lengths) for _ in range(length)]
    assert steps.time_N.tolist() == [t for length in lengths for t in range(length)]
    assert steps.left_N.tolist() == [length - t for length in lengths for t in range(length)]
    assert steps.horizon_W.tolist() == [attempt.horizon for attempts, _, _ in plain for attempt in attempts]


def test_an_attempt_is_worth_the_discount_to_the_power_of_the_steps_before_its_last() -> None:
    _, (steps, _), (plain, _) = both(config_of(mazes=10, attempts=10), seed=1)
    attempts = [attempt for each, _, _ in plain for attempt in each]
    wanted = [stepwise.reward(attempt, 0.9) for attempt in attempts]
    assert 0 < sum(value > 0 for value in wanted) < len(wanted)
    assert steps.found_W.tolist() == [value > 0 for value in wanted]
    assert steps.returns(0.9).tolist() == pytest.approx(wanted, rel=1e-6)
    togo = [stepwise.to_go(attempt, time, 0.9) for attempt in attempts for time in range(len(attempt))]
    assert steps.returns_to_go(0.9).tolist() == pytest.approx(togo, rel=1e-6)


@pytest.mark.parametrize(
    ("moves", "worth"),
    [([RIGHT, LEFT, RIGHT, DOWN], 0.9**3), ([RIGHT, LEFT, RIGHT, LEFT], 0.0), ([DOWN], 0.0)],
    ids=["exit", "horizon", "trap"],
)
def test_an_exit_alone_is_worth_something_also_on_the_last_step_before_the_horizon(
    moves: list[int], worth: float
) -> None:
    steps = steps_of("S.\nHE", moves)
    assert steps.horizon_W.tolist() == [4]
    assert steps.returns(0.9).tolist() == pytest.approx([worth])


def test_the_horizon_grows_with_the_maze_and_is_rounded_up() -> None:
    mazes = Mazes.from_text("S.E\n\nS..\n...\n..E")
    assert horizons(mazes, config_of(horizon_per_cell=1.1)).tolist() == [4, 10]


def test_each_attempt_is_measured_against_the_others_in_its_maze() -> None:
    returns = np.array([1.0, 0.0, 0.5, 0.25, 0.25, 0.25], np.float32)
    expected = [0.75, -0.75, 0.0, 0.0, 0.0, 0.0]
    assert leave_one_out(returns, 3).tolist() == pytest.approx(expected)
    assert leave_one_out(returns, 1).tolist() == returns.tolist()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from(["policy-gradient", "cell-advantage"]), st.integers(1, 3))
def test_hindsight_is_that_of_one_step_after_another(seed: int, kind: str, attempts: int) -> None:
    config = config_of(kind=kind, attempts=attempts)
    walked, stages, plain = both(config, seed)
    for k, (steps, mazes) in enumerate(zip(stages, plain, strict=True)):
        wanted = [
            known
            for each, past, drawing in mazes
            for row in stepwise.hindsight(each, past.known_way(drawing), 1 - k, config)
            for known in row
        ]
        known_JN = hindsight(steps, walked.knowns[k + 1].way_C, 1 - k, config)
        assert known_JN.shape[0] == HINDSIGHT
        np.testing.assert_allclose(known_JN.T, np.array(wanted), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(known_JN[ADVANTAGE], advantage(steps, config))


def test_cell_advantages_at_a_cell_add_up_to_nothing() -> None:
    config = config_of(mazes=6, attempts=5)
    walked, (steps, _), _ = both(config, seed=4)
    value_N = advantage(steps, config)
    assert np.abs(value_N).max() > 0.1
    assert np.abs(np.bincount(walked.walks[0].at_N, value_N)).max() < 1e-6


def test_toward_the_exit_and_away_are_told_by_the_way_that_was_found_since() -> None:
    config = make_config(1, outer={"attempts": 1})
    walked = Walked.by([Given([[RIGHT, LEFT, DOWN, RIGHT, RIGHT]]).choose], Mazes.from_text("S.#\n..E"), config)
    steps = Steps.of(walked.walks[0], walked.mazes, walked.horizon_M)
    nearer_N, farther_N = hindsight(steps, walked.knowns[1].way_C, 0, config)[7:9]
    assert nearer_N.tolist() == [1, 0, 1, 1, 1]  # both ways around lead there in three steps
    assert farther_N.tolist() == [0, 1, 0, 0, 0]


def test_loops_are_erased_as_they_close() -> None:
    # out and back, a bump at the edge, down; right and back; right, down, down, right onto the exit
    steps = steps_of(PASSAGE, [RIGHT, LEFT, LEFT, DOWN, RIGHT, LEFT, RIGHT, DOWN, DOWN, RIGHT])
    leaving_N = leaving_row(steps)
    assert steps.found_W.tolist() == [True]
    assert leaving_N.tolist() == [3, 1, 3, 3, 6, 7, 6, 7, 8, 9]
    assert on_path(steps, leaving_N).nonzero()[0].tolist() == [3, 6, 7, 8, 9]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_the_path_is_what_chronological_loop_erasure_leaves(seed: int, attempts: int) -> None:
    _, stages, plain = both(config_of(attempts=attempts), seed)
    for steps, mazes in zip(stages, plain, strict=True):
        leaving_N = leaving_row(steps)
        wanted_path, wanted_leaving, begin = [], [], 0
        for attempt in (attempt for each, _, _ in mazes for attempt in each):
            path = stepwise.loop_erased(attempt)
            cells = [step.cell for step in attempt.steps]
            kept = [attempt.steps[time] for time in sorted(path)]
            assert all(step.after == following.cell for step, following in pairwise(kept))
            assert len({step.cell for step in kept}) == len(kept)
            assert kept[-1] == attempt.steps[-1]
            wanted_path += [time in path for time in range(len(attempt))]
            wanted_leaving += [begin + max(t for t, c in enumerate(cells) if c == cell) for cell in cells]
            begin += len(attempt)
        assert leaving_N.tolist() == wanted_leaving
        assert on_path(steps, leaving_N).tolist() == wanted_path
