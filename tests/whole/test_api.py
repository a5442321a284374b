"""`import clew`: the same numbers as the commands', under names that stay."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clew
from learner.record import Record
from protocol.learning.inner import initial_theta
from protocol.world.maze import held_out
from tests import ROOT
from tests.deploy.test_cli import ENVIRONMENT
from tests.deploy.test_cli import clew as command

SETTINGS: dict[str, Any] = {
    "maze": {"family": "perfect", "side": 5, "min_distance": 2},
    "inner": {"steps": 1},
    "outer": {"attempts": 2},
    "run": {"mazes": 4, "mazes_per_lease": 2, "horizon_per_cell": 1, "updates": 10},
}
DRAWN = """S..#
##.#
...E

S.......
.######.
......#E
"""
CONFIGS = {
    "dreams": {},
    "cells": {"policy": {"dreams": False}},
    "blind": {"policy": {"radius": 0}},
    "all": {"policy": {"dreams": False}, "inner": {"adapts": "all", "attempts": 2, "steps": 2}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run in runs/mine, and mazes in mazes.txt."""
    folder = tmp_path_factory.mktemp("api")
    settings = [f"{section}.{key}={value}" for section, keys in SETTINGS.items() for key, value in keys.items()]
    done = command(
        "train", *(part for one in settings for part in ("--set", one)), "--run-dir", "runs/mine", folder=folder
    )
    assert done.returncode == 0, done.stderr
    (folder / "mazes.txt").write_text(DRAWN)
    return folder


@pytest.fixture
def run(folder: Path) -> clew.Run:
    return clew.load(folder / "runs/mine")


def untrained(name: str) -> clew.Run:
    """A run of one of CONFIGS that is about to begin, with a step size that leaves traces."""
    config = clew.Config.model_validate(CONFIGS[name])
    return clew.Run(name, 0, config, initial_theta(config))


def evaluated(folder: Path, *arguments: object) -> dict[str, Any]:
    done = command("evaluate", "runs/mine", *arguments, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def ratios(points: list[dict[str, Any]]) -> list[float]:
    return [point["ratio"] for point in points]


# The same as the commands


def test_adapt_says_what_evaluate_says_of_the_same_mazes_and_seed(folder: Path, run: clew.Run) -> None:
    told = evaluated(folder, "--mazes", "mazes.txt", "--attempts", 4, "--seed", 7, "--robots", 1)
    mazes = clew.read_mazes(folder / "mazes.txt")
    trial = run.adapt(mazes, attempts=4, seed=7)
    assert trial.curve == pytest.approx(ratios(told["mean"]), rel=1e-12)
    for robot, maze in zip(trial.robots, told["mazes"], strict=True):
        assert robot.maze.name == maze["name"]
        assert robot.maze.shortest == maze["shortest"]
        assert robot.curve == pytest.approx(ratios(maze["curve"]), rel=1e-12)


def test_a_maze_several_times_stands_for_as_many_robots(folder: Path, run: clew.Run) -> None:
    told = evaluated(folder, "--mazes", "mazes.txt", "--attempts", 3, "--robots", 5)
    trial = run.adapt([maze for maze in clew.read_mazes(folder / "mazes.txt") for _ in range(5)], attempts=3)
    assert trial.curve == pytest.approx(ratios(told["mean"]), rel=1e-12)


def test_sample_draws_the_mazes_that_evaluate_draws(folder: Path, run: clew.Run) -> None:
    drawing = ("--family", "blocks", "--side", 6, "--count", 4, "--seed", 3)
    told = evaluated(folder, *drawing, "--attempts", 2, "--robots", 1)
    mazes = clew.sample("blocks", 6, 4, seed=3, min_distance=2)
    assert [maze.name for maze in mazes] == [maze["name"] for maze in told["mazes"]]
    assert run.adapt(mazes, 2, seed=3).curve == pytest.approx(ratios(told["mean"]), rel=1e-12)


def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(folder: Path, run: clew.Run) -> None:
    def stop(record: Record) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clew.train(SETTINGS, folder / "runs/again", actors=1, on_update=stop)
    again = clew.train(SETTINGS, folder / "runs/again", actors=1, resume=True)
    assert again.update == run.update == 10
    assert np.array_equal(again.theta, run.theta)


# What a robot did


@pytest.mark.parametrize("name", CONFIGS)
def test_the_policy_of_a_cell_and_an_observation_is_what_drew_the_moves(name: str) -> None:
    trial = untrained(name).adapt(clew.sample("braided", 7, 3) + clew.sample("blocks", 6), attempts=5)
    for robot in trial.robots:
        for attempt, walk in enumerate(robot.walks):
            policies = [
                robot.policy(cell, walk.observation(step), attempt) for step, cell in enumerate(walk.cells[:-1])
            ]
            assert np.allclose(np.sum(policies, axis=1), 1, atol=1e-6)
            drawn = np.log([policy[move] for policy, move in zip(policies, walk.moves.tolist(), strict=True)])
            assert np.allclose(drawn, walk.log_probs, atol=1e-5)


def test_a_walk_goes_from_the_start_by_its_moves_to_where_it_ended(run: clew.Run) -> None:
    mazes = clew.sample("blocks", 8, 5)
    for robot in run.adapt(mazes, attempts=3).robots:
        grid = np.array([list(line) for line in str(robot.maze).splitlines()])
        for walk in robot.walks:
            assert grid[tuple(walk.cells[0])] == "S"
            assert walk.found == (grid[tuple(walk.cells[-1])] == "E")
            assert not (grid[tuple(walk.cells.T)] == "#").any()
            steps = np.diff(walk.cells, axis=0)
            ahead = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])[walk.moves]
            assert ((steps == ahead).all(axis=1) | (steps == 0).all(axis=1)).all()
        assert [len(fast.shape) for fast in robot.fast_weights] == [3] * 3


def test_fast_weights_are_nothing_before_the_first_attempt_and_lie_where_the_robot_was() -> None:
    robots = untrained("cells").adapt(clew.sample("perfect", 9, 10), attempts=2).robots
    robot = max((one for one in robots if one.walks[0].found), key=lambda one: len(one.walks[0].moves))
    before, after = robot.fast_weights
    assert before.shape == (9, 9, 4)
    assert not before.any()
    visited = np.zeros((9, 9), bool)
    visited[tuple(robot.walks[0].cells[:-1].T)] = True
    assert after[visited].any()
    assert not after[~visited].any()


# Mazes


def test_mazes_of_either_side_of_the_split_never_meet() -> None:
    for side in (False, True):
        for maze in clew.sample("perfect", 7, 20, held_out=side):
            assert held_out(maze.grid).tolist() == [side]


@pytest.mark.parametrize("held_out", [True, False])
def test_of_a_list_each_family_and_each_side_has_an_equal_share(held_out: bool) -> None:
    mazes = clew.sample(["perfect", "blocks"], [7, 9], 8, held_out=held_out)
    kinds = [f"{family} {side}x{side}" for family in ("perfect", "blocks") for side in (7, 9)]
    assert [maze.name for maze in mazes] == [f"{kind}:{number}" for kind in kinds for number in (1, 2)]
    assert [maze.shape for maze in mazes] == [(7, 7), (7, 7), (9, 9), (9, 9)] * 2


def test_a_maze_is_its_text() -> None:
    maze = clew.Maze("S.\n#G")
    assert str(maze) == "S.\n#E"
    assert (maze.shape, maze.shortest) == ((2, 2), 2)
    assert clew.Maze(str(maze)) == clew.Maze("S.\n#E")


def outside() -> None:
    (robot,) = untrained("cells").adapt([clew.Maze("S.E")], attempts=1).robots
    robot.policy((0, 3), robot.walks[0].observation(0))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: clew.Maze("S.E\n\nS.E"), "the text holds 2 mazes"),
        (lambda: clew.Maze("S#E"), "no way leads from the start to an exit"),
        (lambda: clew.sample("perfect", 8), "maze side must be odd"),
        (lambda: clew.sample("perfect", 9, exti="corner"), r"unknown setting maze\.exti; did you mean maze\.exit\?"),
        (lambda: clew.train({"maze": {"side": 4}}, "never"), r"maze\.side must be greater than or equal to 5, got 4"),
        (lambda: clew.train("never.toml", "never"), "cannot read config never.toml"),
        (lambda: clew.load("never"), "never holds no checkpoint"),
        (lambda: clew.Maze(b"S.E"), r"a maze is drawn as text, got b'S\.E'; give lines such as"),  # type: ignore[arg-type]
        (lambda: clew.sample("perfect", 9, count=0), "count must be a whole number from 1 on, got 0; change count"),
        (lambda: clew.sample("perfect", 9, count=2.5), r"count must be .* got 2\.5"),  # type: ignore[arg-type]
        (lambda: clew.sample("perfect", 9, count=True), "count must be .* got True"),
        (lambda: clew.sample("perfect", 9, seed=-1), "seed must be a whole number from 0 on, got -1; change seed"),
        (lambda: clew.train({}, "never", actors=0), "actors must be a whole number from 1 on, got 0"),
        (lambda: clew.train(5, "never"), "a config must be a tree of settings, such as .*, got 5; change it"),  # type: ignore[arg-type]
        (lambda: untrained("cells").adapt([]), r"mazes must be a clew\.Maze or several, got \[\]; see clew\.Maze"),
        (lambda: untrained("cells").adapt(["S.E"]), r"mazes must be a clew\.Maze or several, got \['S\.E'\]"),  # type: ignore[list-item]
        (lambda: untrained("cells").adapt(clew.Maze("SE"), 0), "attempts must be a whole number from 1 on, got 0"),
        (lambda: untrained("cells").adapt(clew.Maze("SE"), "3"), "attempts must be .* got '3'"),  # type: ignore[arg-type]
        (lambda: untrained("cells").adapt(clew.Maze("SE"), seed=-1), "seed must be a whole number from 0 on, got -1"),
        (lambda: untrained("cells").adapt([clew.Maze("S.E")], 10**9), "1 mazes times 1000000000 attempts are more"),
        (outside, r"cell \(0, 3\) is not in the maze, which has 1 rows of 3 cells"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(wrong: Any, sentence: str) -> None:
    with pytest.raises(clew.ClewError, match=sentence):
        wrong()
    assert not Path("never").exists()


# Names


def test_the_names_are_these() -> None:
    """Whoever changes one writes it into CHANGELOG.md."""
    public = {
        name: sorted(member for member in {*vars(kind), *vars(kind).get("__annotations__", {})} if member[0] != "_")
        for name in clew.__all__
        if isinstance(kind := getattr(clew, name), type) and kind.__module__.startswith("clew")
    }
    assert public == {
        "Maze": ["grid", "name", "shape", "shortest", "text"],
        "Observation": ["features", "gain", "hope", "known"],
        "Robot": ["curve", "fast_weights", "maze", "policy", "walks"],
        "Run": ["adapt", "config", "name", "theta", "update"],
        "Trial": ["curve", "robots"],
        "Walk": ["cells", "found", "log_probs", "moves", "observation"],
    }
    assert set(clew.__all__) - set(public) == {
        *("ClewError", "Config", "Record"),
        *("from_gymnasium", "load", "read_mazes", "sample", "train"),
    }


def test_every_package_says_that_it_is_typed() -> None:
    assert all((ROOT / name / "py.typed").is_file() for name in ("clew", "protocol", "actors", "learner", "deploy"))


def python(*arguments: str, folder: Path, text: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        input=text,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_the_example_of_the_readme_runs(folder: Path) -> None:
    (example,) = re.findall(r"```python\n(import clew\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(example.splitlines()) <= 12
    assert python("-W", "error", "-c", example, folder=folder).count("\n") > 5


def test_a_session_runs_from_cell_to_cell(tmp_path: Path) -> None:
    said = python("-i", str(ROOT / "tests/notebook.py"), folder=tmp_path, text="print(len(trial.robots), 'robots')\n")
    assert "10 updates; steps ÷ shortest after adaptation" in said
    assert "11 robots" in said
