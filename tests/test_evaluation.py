"""Adaptation curves: figures by hand, intervals that cover what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploy import evaluate
from learner.evaluation import Outcome, evaluation, ratio_of_sums
from protocol.config import ClewError, Config, InnerConfig, MazeConfig, RunConfig
from protocol.learning.inner import initial_theta
from protocol.wire.messages import Attempts
from protocol.world.maze import Mazes
from protocol.world.states import StateTable

CORRIDORS = """
S...E
#####
#####
#####
#####

S...#
###.#
###E#
#####
#####
"""
TINY = Config(maze=MazeConfig(side=5, min_distance=2), run=RunConfig(mazes=4, mazes_per_lease=2, horizon=30))


def walked(table: StateTable, moves: list[list[str]]) -> Attempts:
    """One attempt at each maze along given moves: u, r, d, l."""
    lengths, visits = [], []
    for maze, path in enumerate(moves):
        state = 0
        for move in ("urdl".index(letter) for letter in path):
            visits.append(state * 4 + move)
            state = int(table.next_MSA[maze, state, move])
        lengths.append([len(path)])
    log_prob = np.zeros(table.next_MSA.shape, np.float32)
    return Attempts(np.array(lengths, np.uint16), np.array(visits, np.uint16), log_prob)


def test_an_outcome_tells_an_exit_reached_at_the_last_moment_from_a_failure() -> None:
    table = StateTable.of(Mazes.from_text(CORRIDORS), 1)
    outcome = Outcome.of(walked(table, [list("rrrr"), list("rrrd")]), table)
    assert outcome.success_ME.tolist() == [[1], [0]]
    assert outcome.steps_ME.tolist() == [[4], [4]]
    assert outcome.shortest_M.tolist() == [4, 5]


def test_the_mean_ratio_is_the_sum_of_steps_over_the_sum_of_shortest_paths() -> None:
    before = Outcome(np.array([[1.0, 0], [1, 1]]), np.array([[10.0, 30], [20, 20]]), np.array([5.0, 20]))
    after = Outcome(np.ones((2, 2)), np.array([[5.0, 5], [20, 22]]), np.array([5.0, 20]))
    result = evaluation(["a", "b"], [before, after], 3, np.random.default_rng(0))
    first, second = result.mean
    assert (first.step, first.attempts, second.step, second.attempts) == (0, 0, 1, 3)
    assert (first.success.value, first.steps.value, first.ratio.value) == (0.75, 20, 1.6)
    assert second.ratio.value == pytest.approx(26 / 25)
    assert result.curves[0][0].ratio.value == 4
    assert result.figures()["mazes"][1] == {
        "name": "b",
        "shortest": 20,
        "curve": [
            {"step": 0, "attempts": 0, "success": 1.0, "steps": 20.0, "ratio": 1.0},
            {"step": 1, "attempts": 3, "success": 1.0, "steps": 21.0, "ratio": 1.05},
        ],
    }


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    bottom_GN = rng.uniform(5, 25, size=(400, 60))
    top_GN = bottom_GN * rng.uniform(1, 2, size=bottom_GN.shape)
    held = [estimate.low <= 1.5 <= estimate.high for estimate in ratio_of_sums(top_GN, bottom_GN, rng)]
    assert 0.90 <= np.mean(held) <= 0.99


def test_evaluating_is_a_function_of_its_seed() -> None:
    theta = initial_theta(TINY)
    names, mazes = evaluate.held_out(TINY, 3, seed=5)
    first, again, other = (evaluate.evaluate(theta, TINY, names, mazes, seed).figures() for seed in (5, 5, 6))
    assert first == again != other


def test_more_steps_and_attempts_than_were_trained_can_be_evaluated() -> None:
    config = evaluate.overridden(TINY, attempts_per_step=4, steps=3)
    assert config.inner == InnerConfig(attempts=4, steps=3)
    names, mazes = evaluate.held_out(config, 2, seed=0)
    result = evaluate.evaluate(initial_theta(TINY), config, names, mazes, seed=0)
    assert [point.attempts for point in result.mean] == [0, 4, 8, 12]


def test_mazes_larger_than_trained_are_refused_and_smaller_ones_padded(tmp_path: Path) -> None:
    drawing = tmp_path / "corridors.txt"
    drawing.write_text(CORRIDORS)
    names, mazes = evaluate.from_files([drawing], 7)
    assert (names, mazes.side, len(mazes)) == (["corridors:1", "corridors:2"], 7, 2)
    drawing.write_text(("." * 9 + "\n") * 7 + "S........\n........E\n")
    with pytest.raises(ClewError, match=r"corridors is 9x9, and the run was trained on 7x7"):
        evaluate.from_files([drawing], 7)
