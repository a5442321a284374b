"""`clew evaluate`: figures by hand, intervals that cover what they should, yardsticks against slow walks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections import deque
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from deploy.process.versions import context
from deploy.study import evaluate as study
from deploy.study import exam, plots, routes
from deploy.study.curves import Outcome, each_curve, mean_curve, ratios_of_sums
from deploy.study.exam import Exam
from deploy.study.explorer import explored
from learner import checkpoint
from learner.checkpoint import Checkpoint
from protocol.config import ClewError, Config, InnerConfig, MazeConfig, OuterConfig, PolicyConfig, RunConfig
from protocol.learning.inner import initial_theta
from protocol.world import families
from protocol.world.cells import EXIT, FREE
from protocol.world.maze import Mazes, held_out
from tests.deploy.test_cli import ENVIRONMENT
from tests.parts import forked
from tests.parts.records import record_of

TINY = Config(maze=MazeConfig(side=5, min_distance=2), run=RunConfig(mazes=4, mazes_per_lease=2))
MIXED = Config(
    maze=MazeConfig(family=("perfect", "braided", "blocks", "rooms"), side=9),
    inner=InnerConfig(steps=4),
    outer=OuterConfig(attempts=1),
    run=RunConfig(mazes=20, mazes_per_lease=10),
)
FAR_AND_NEAR = "S....E\n.####.\n......\n\nSE\n\nS.#\n.#.\n..E\n\nSE\n"  # in SE a robot has but one move


def drawn(text: str, folder: Path, horizon: int | None = None) -> Exam:
    """The mazes of a text as an exam."""
    file = folder / "drawn.txt"
    file.write_text(text)
    return exam.of_files([file], TINY, horizon)


# Curves


def test_the_mean_ratio_is_the_sum_of_steps_over_the_sum_of_shortest_ways() -> None:
    before = Outcome(np.array([[1.0, 0], [1, 1]]), np.array([[10.0, 30], [20, 20]]))
    after = Outcome(np.ones((2, 2)), np.array([[5.0, 5], [20, 22]]))
    shortest_M, rng = np.array([5.0, 20]), np.random.default_rng(0)
    first, second = mean_curve([before, after], shortest_M, [0, 3], rng)
    assert (first.attempts, second.attempts) == (0, 3)
    assert (first.success.value, first.steps.value, first.ratio.value) == (0.75, 20, 1.6)
    assert second.ratio.value == pytest.approx(26 / 25)
    one, other = each_curve([before, after], shortest_M, [0, 3], rng)
    assert (one[0].ratio.value, one[0].success.value, one[1].steps.value) == (4, 0.5, 5)
    assert [point.ratio.value for point in other] == pytest.approx([1, 1.05])


def test_an_interval_is_over_mazes_or_over_the_robots_in_the_only_one() -> None:
    rng = np.random.default_rng(0)
    steps_MZ = np.array([[10.0, 12, 14]])
    (point,) = mean_curve([Outcome(np.ones((1, 3)), steps_MZ)], np.array([5.0]), [0], rng)
    assert point.steps.interval == (10, 14)
    (point,) = mean_curve([Outcome(np.ones((3, 1)), steps_MZ.T)], np.array([5.0, 5, 5]), [0], rng)
    assert point.steps.interval == (10, 14)
    (curve, *_) = each_curve([Outcome(np.ones((3, 1)), steps_MZ.T)], np.array([5.0, 5, 5]), [0], rng)
    assert curve[0].steps.interval is None


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    bottom_GN = rng.uniform(5, 25, size=(400, 60))
    top_GN = bottom_GN * rng.uniform(1, 2, size=bottom_GN.shape)
    bounds = [estimate.interval for estimate in ratios_of_sums(top_GN, bottom_GN, rng)]
    assert 0.90 <= np.mean([bound[0] <= 1.5 <= bound[1] for bound in bounds if bound]) <= 0.99


def test_intervals_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    top_GN, bottom_GN = np.random.default_rng(1).uniform(1, 2, size=(2, 1, 50))
    whole = ratios_of_sums(top_GN, bottom_GN, np.random.default_rng(2))
    monkeypatch.setattr("deploy.study.curves.DRAWN_AT_ONCE", 700)
    parts = ratios_of_sums(top_GN, bottom_GN, np.random.default_rng(2))
    assert parts[0].interval == pytest.approx(whole[0].interval)


# Yardsticks


def explorers(mazes: Mazes, horizon: int, seed: int = 0) -> list[list[list[int]]]:
    """The cells of the two attempts of an explorer in each maze, counted in the maze."""
    ways: list[list[list[int]]] = [[] for _ in range(len(mazes))]
    for walk in explored(mazes, np.full(len(mazes), horizon), np.random.default_rng(seed)):
        begins = np.cumsum(walk.length_W) - walk.length_W
        for maze, (first, begin) in enumerate(zip(mazes.offset_M.tolist(), begins.tolist(), strict=True)):
            steps = slice(begin, begin + int(walk.length_W[maze]))
            ways[maze].append([*(walk.at_N[steps] - first).tolist(), int(walk.end_W[maze]) - first])
    return ways


def test_an_explorer_tries_either_branch_and_comes_back_on_foot() -> None:
    ways = explorers(Mazes.from_text("\n\n".join(["..S..E"] * 200)), 18)
    steps = [len(first) - 1 for first, _ in ways]
    assert set(steps) == {3, 7}
    assert 70 <= steps.count(3) <= 130
    assert {len(second) - 1 for _, second in ways} == {3}


def test_an_explorer_does_what_a_recursive_search_does() -> None:
    config = MazeConfig(family=("perfect", "braided", "blocks", "rooms"), side=9)
    mazes = families.sample(config, 80, np.random.default_rng(0), held_out=False)
    for row, (path, _) in enumerate(explorers(mazes, 10_000)):
        maze = mazes[row : row + 1]
        # The neighbours of each cell in the order in which the explorer stood in them first, the others last.
        order_CA = [sorted(near, key=[*path, *near].index) for near in maze.ahead_CA.tolist()]
        kind_C, start = maze.cell_C.tolist(), int(maze.start_M[0])
        assert path == recursive(order_CA, kind_C, start, {start})[0]
        assert kind_C[path[-1]] == EXIT


def recursive(order_CA: list[list[int]], kind_C: list[int], at: int, visited: set[int]) -> tuple[list[int], bool]:
    """The cells that a depth-first search stands in from `at` on, until it is back there or at an exit."""
    path = [at]
    if kind_C[at] == EXIT:
        return path, True
    for cell in order_CA[at]:
        if cell not in visited:
            visited.add(cell)
            further, found = recursive(order_CA, kind_C, cell, visited)
            path += further
            if found:
                return path, True
            path.append(at)
    return path, False


def test_the_second_attempt_of_an_explorer_is_the_shortest_way_through_the_cells_that_it_visited() -> None:
    mazes = families.sample(MazeConfig(family="rooms", side=13), 20, np.random.default_rng(3), held_out=False)
    for row, (first, second) in enumerate(explorers(mazes, 1000)):
        ahead_CA = mazes[row : row + 1].ahead_CA.tolist()
        assert len(second) - 1 == steps_within(set(first), ahead_CA, first[0], first[-1])
        assert second[-1] == first[-1]


def steps_within(cells: set[int], ahead_CA: list[list[int]], start: int, goal: int) -> int:
    """Breadth-first, a cell at a time."""
    steps, waiting = {start: 0}, deque([start])
    while goal not in steps:
        at = waiting.popleft()
        for cell in ahead_CA[at]:
            if cell in cells and cell not in steps:
                steps[cell] = steps[at] + 1
                waiting.append(cell)
    return steps[goal]


def test_an_explorer_fails_in_a_trap_which_it_avoids_from_then_on_and_at_the_horizon() -> None:
    ends = [(first[-1], second[-1]) for first, second in explorers(Mazes.from_text("\n\n".join(["HS..E"] * 40)), 15)]
    assert set(ends) == {(0, 4), (4, 4)}
    late = explorers(Mazes.from_text("\n\n".join(["....S..E"] * 40)), 5)  # 3 steps, or 11 past the end behind it
    assert {(len(first) - 1, first[-1]) for first, _ in late} == {(3, 7), (5, 1)}


# Which mazes


def test_every_family_and_side_has_an_equal_share_of_held_out_mazes() -> None:
    config = Config(maze=MazeConfig(family=("perfect", "blocks"), side=(5, 9), min_distance=2))
    of_run = exam.held_out(config, None, None, 10, seed=1)
    counts = {kind: of_run.kinds.count(kind) for kind in of_run.kinds}
    assert set(counts) == {"perfect 5x5", "perfect 9x9", "blocks 5x5", "blocks 9x9"}
    assert set(counts.values()) == {2, 3}
    assert held_out(of_run.mazes).all()
    assert of_run.names[:2] == ("perfect 5x5:1", "perfect 5x5:2")
    assert (of_run.horizon_M == 3 * of_run.mazes.count_M).all()


def test_any_family_and_side_can_be_tried_whatever_was_trained() -> None:
    far = Config(maze=MazeConfig(side=31, min_distance=40))
    other = exam.held_out(far, "mouse", 5, 3, seed=0)
    assert set(other.kinds) == {"mouse 5x5"}
    assert other.mazes.shape_M2.tolist() == [[5, 5]] * 3
    assert set(exam.held_out(far, "blocks", None, 3, seed=0).kinds) == {"blocks 31x31"}


@pytest.mark.parametrize(
    ("family", "side", "message"),
    [
        ("cave", None, "--family must be 'perfect'.*got 'cave'"),
        ("perfect", 10, "'perfect' have odd sides, got 10; give --side an odd number"),
        ("blocks", 128, "--side must be less than or equal to 127, got 128"),
        ("file", None, "no maze file to draw from; name files with --mazes"),
    ],
)
def test_mazes_that_no_family_has_are_refused(family: str, side: int | None, message: str) -> None:
    with pytest.raises(ClewError, match=message):
        exam.held_out(TINY, family, side, 3, seed=0)


def test_mazes_of_any_sizes_are_read_as_they_are(tmp_path: Path) -> None:
    of_file = drawn(FAR_AND_NEAR, tmp_path)
    assert of_file.names == ("drawn:1", "drawn:2", "drawn:3", "drawn:4")
    assert of_file.mazes.shape_M2.tolist() == [[3, 6], [1, 2], [3, 3], [1, 2]]
    assert of_file.shortest_M.tolist() == [5, 1, 4, 1]
    assert of_file.horizon_M.tolist() == [54, 6, 27, 6]


def test_a_horizon_below_a_shortest_way_is_refused_and_one_above_holds_for_all(tmp_path: Path) -> None:
    with pytest.raises(ClewError, match=r"--horizon 4 is too short.*drawn:1 takes 5 steps.*1 of 4.*give --horizon 5"):
        drawn(FAR_AND_NEAR, tmp_path, horizon=4)
    assert drawn(FAR_AND_NEAR, tmp_path, horizon=5).horizon_M.tolist() == [5, 5, 5, 5]


# Attempts


@pytest.mark.parametrize(
    ("trained", "attempts", "each", "labels"),
    [
        ((1, 1, 2), None, None, tuple(map(str, range(1, 11)))),
        ((11, 1, 1), None, None, tuple(map(str, range(1, 13)))),
        ((2, 5, 5), None, None, ("1 to 5", "6 to 10", "11 to 15")),
        ((2, 5, 5), 12, None, ("1 to 5", "6 to 10", "11 to 12")),
        ((2, 5, 5), 3, 1, ("1", "2", "3")),
        ((1, 1, 2), 1, None, ("1",)),
        ((1, 1, 2), 2, 4, ("1 to 2",)),
    ],
)
def test_ten_attempts_or_as_many_as_wanted(
    trained: tuple[int, int, int], attempts: int | None, each: int | None, labels: tuple[str, ...]
) -> None:
    steps, per_step, after = trained
    config = Config(inner=InnerConfig(steps=steps, attempts=per_step), outer=OuterConfig(attempts=after))
    assert study.labels(study.adapting(config, attempts, each)) == labels


def test_more_attempts_than_a_config_may_train_can_be_tried() -> None:
    config = study.adapting(TINY, 300, None)
    result = study.evaluate(initial_theta(TINY), config, exam.held_out(config, None, None, 2, seed=0), 1, seed=0)
    assert [point.attempts for point in result.total.curve] == list(range(300))


def test_evaluating_is_a_function_of_its_seed() -> None:
    config, theta_P = study.adapting(TINY, 4, None), initial_theta(TINY)
    tried = exam.held_out(TINY, None, None, 3, seed=5)
    first, again, other = (study.evaluate(theta_P, config, tried, 2, seed) for seed in (5, 5, 6))
    assert (first.total, first.mazes) == (again.total, again.mazes)
    assert first.total != other.total


@pytest.mark.parametrize("policy", [PolicyConfig(), PolicyConfig(radius=0, compass=True)])
@pytest.mark.parametrize("inner", [InnerConfig(), InnerConfig(rule="sgd", adapts="all", attempts=2)])
def test_mazes_tried_in_portions_keep_their_places(
    policy: PolicyConfig, inner: InnerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "MEMORY_CELLS", 200)
    monkeypatch.setattr(study, "NETWORKS", 3)
    config = study.adapting(Config(policy=policy, inner=inner), 6, None)
    tried = drawn(FAR_AND_NEAR, tmp_path)
    assert len(list(study.portions(tried, 3, config, seed=0))) > 2
    result = study.evaluate(initial_theta(config), config, tried, 3, seed=0)
    if policy.radius:  # whoever senses walls makes the only move
        assert [stage.steps_MZ[1].tolist() for stage in result.stages] == [[1, 1, 1]] * len(result.stages)
    for stage in result.stages:
        assert (stage.steps_MZ >= tried.shortest_M[:, None]).all()
        assert (stage.steps_MZ <= tried.horizon_M[:, None]).all()
    assert [maze.shortest for maze in result.mazes] == [5, 1, 4, 1]


def test_a_trap_counts_as_the_horizon(tmp_path: Path) -> None:
    config = study.adapting(TINY, 1, None)
    result = study.evaluate(initial_theta(TINY), config, drawn("HSE\n", tmp_path), 50, seed=0)
    (stage,) = result.stages
    assert set(zip(stage.success_MZ[0].tolist(), stage.steps_MZ[0].tolist(), strict=True)) == {(1, 1), (0, 9)}


def test_few_mazes_are_tried_by_many_robots_and_many_by_one(tmp_path: Path) -> None:
    assert study.enough_robots(drawn(FAR_AND_NEAR, tmp_path).mazes) == 25
    assert study.enough_robots(exam.held_out(TINY, None, None, 500, seed=0).mazes) == 1
    assert study.enough_robots(exam.held_out(TINY, "blocks", 127, 1, seed=0).mazes) == 12


# Routes


def test_the_routes_in_the_picture_are_those_that_were_scored(tmp_path: Path) -> None:
    config = study.adapting(MIXED, 5, None)
    theta_P = initial_theta(config)
    tried = exam.held_out(config, None, None, 40, seed=0)
    result = study.evaluate(theta_P, config, tried, 1, seed=0)
    stages = routes.stages_shown(result)
    assert stages == [0, 1, 2, 4]
    shown = routes.shown(result, theta_P, config, seed=0)
    assert len({one.name.split()[0] for one in shown[:3]}) == 3
    for one in shown:
        row = tried.names.index(one.name)
        assert len(one.shortest.cells) - 1 == tried.shortest_M[row]
        for route in (*one.routes, one.shortest):
            kind_T = one.maze.cell_C[route.cells]
            assert (kind_T[:-1] == FREE).all()
            assert (kind_T[-1] == EXIT) == route.found
            to_TA = one.maze.ahead_CA[route.cells[:-1]]
            assert (to_TA == route.cells[1:, None]).any(axis=1).all()
        for stage, route in zip(stages, one.routes, strict=True):
            assert len(route.cells) - 1 == result.stages[stage].steps_MZ[row, 0]
    assert (result.stages[0].success_MZ < 1).any()
    assert not shown[-1].routes[0].found


def test_a_failure_that_no_usual_column_has_gets_one(tmp_path: Path) -> None:
    config = study.adapting(TINY, 6, None)
    result = study.evaluate(initial_theta(TINY), config, drawn("SE\n", tmp_path), 2, seed=0)
    assert routes.stages_shown(result) == [0, 1, 2, 5]
    result.stages[3].success_MZ[0, 1] = 0
    assert routes.stages_shown(result) == [0, 1, 2, 3, 5]


# The command


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 updates with mazes of all families."""
    folder = tmp_path_factory.mktemp("mixed") / "run"
    settings = (
        "maze.side=9",
        "maze.family=perfect,braided,blocks,rooms",
        *("inner.steps=4", "outer.attempts=1", "run.mazes=20", "run.mazes_per_lease=10", "run.updates=30"),
    )
    result = clew("train", "--run-dir", folder, *(part for each in settings for part in ("--set", each)))
    assert result.returncode == 0, result.stderr
    return folder


def clew(*arguments: object) -> subprocess.CompletedProcess[str]:
    return forked.run([*map(str, arguments)], Path.cwd(), ENVIRONMENT, 100.0)


def test_later_attempts_are_not_worse_than_the_fifth(run_dir: Path) -> None:
    result = clew("evaluate", run_dir, "--count", 400, "--attempts", 20, "--json")
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    for kind in (figures, *figures["kinds"]):
        curve = kind["mean" if kind is figures else "curve"]
        fifth, tenth, twentieth = (curve[attempt - 1] for attempt in (5, 10, 20))
        for later in (tenth, twentieth):
            assert later["ratio"] <= fifth["intervals"]["ratio"][1] + 0.01
            assert later["success"] >= 0.995
        assert curve[0]["ratio"] > 1.1 > curve[2]["ratio"]


def test_the_object_names_all_that_the_figures_depend_on(run_dir: Path) -> None:
    result = clew("evaluate", run_dir, "--count", 8, "--seed", 3, "--robots", 3, "--json")
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    run = study.opened(run_dir)
    assert (figures["run"], figures["update"]) == (run.name, 30)
    assert figures["config"] == run.config.model_dump(mode="json")
    assert len(figures["theta_sha256"]) == len(figures["contract"]) == 64
    assert context().items() <= figures.items()
    named = {name: figures[name] for name in ("seed", "count", "robots", "attempts", "attempts_per_step", "horizon")}
    assert named == {"seed": 3, "count": 8, "robots": 3, "attempts": 10, "attempts_per_step": 1, "horizon": [243]}
    assert len(figures["mazes"]) == 8
    assert [kind["count"] for kind in figures["kinds"]] == [2, 2, 2, 2]
    for one in (*figures["mazes"], *figures["kinds"], {**figures, "curve": figures["mean"], "shortest": None}):
        yardsticks = one["yardsticks"]
        assert [point["attempts"] for point in one["curve"]] == list(range(10))
        for point in (*one["curve"], yardsticks["explorer"], yardsticks["known"]):
            assert set(point) == {"attempts", "success", "steps", "ratio", "intervals"}
            for name, (low, high) in point["intervals"].items():
                assert low - 1e-9 <= point[name] <= high + 1e-9
            assert point["ratio"] >= 1
        assert one["shortest"] in (None, yardsticks["shortest"])


def test_the_same_seed_gives_the_same_object_with_torch_and_without(run_dir: Path) -> None:
    arguments = ("evaluate", run_dir, "--count", 8, "--attempts", 3, "--json")
    script = "import sys; sys.modules['torch'] = None; from deploy.cli import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    again = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
    assert again.returncode == 0, again.stderr
    assert json.loads(clew(*arguments).stdout) == json.loads(again.stdout)


NAMES = ("a$x_1^2$ [bold]b[] :smile: $", "[red]", "$\\frac{a}$", "a\nb\x1b[2J", "\udcff", "迷路", "_" * 200)


def test_names_of_files_are_text_and_no_markup(run_dir: Path, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES, start=1):
        (tmp_path / f"{name}.txt").write_text("S" + "." * number + "E\n")
    shutil.copytree(run_dir, tmp_path / "run")
    files = [tmp_path / f"{name}.txt" for name in NAMES]
    result = clew("evaluate", tmp_path / "run", "--attempts", 2, "--pictures", "--mazes", *files)
    assert (result.returncode, result.stderr) == (0, "")
    listed = re.findall(r"^ (\S.*?) +\d+\.0  +\d\.\d{3}", result.stdout, re.MULTILINE)
    assert listed[:5] == ["a$x_1^2$ [bold]b[] :smile: $", "[red]", "$\\frac{a}$", "a\\nb\\x1b[2J", "\\udcff"]
    assert {path.name for path in (tmp_path / "run").glob("*.png")} >= {"adaptation.png", "curve.png"}
    for file, name, pictures in zip(files[1:3], NAMES[1:3], ([], ["--pictures"]), strict=True):  # in titles
        result = clew("evaluate", tmp_path / "run", "--attempts", 2, *pictures, "--mazes", file)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith(f"maze {name}, ")


GOOD = record_of(2).line


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        (GOOD.replace(b"2", b"3")[:40], 2),
        (b"[1]", 2),
        (b"null", 2),
        (b'{"update": 3}', 2),
        (b"[" * 20_000, 2),
        (b"\xff", 2),
        (GOOD.replace(b"0.5", b'"x"'), 2),
        (GOOD.replace(b'"update": 2', b'"update": 3').replace(b'"ratio_after": 1.5', b'"ratio_after": null'), 4),
    ],
)
def test_a_learning_curve_shows_the_updates_before_the_first_that_is_not_whole(
    line: bytes, whole: int, tmp_path: Path
) -> None:
    good = [record_of(update).line.rstrip() for update in (1, 2, 4)]
    (tmp_path / "updates.jsonl").write_bytes(b"\n".join([*good[:2], line.rstrip(), good[2]]))
    records = plots.history(tmp_path)
    assert [record.update for record in records] == [1, 2, 3, 4][:whole]
    plt.close(plots.learning_curve(records))


def test_a_history_that_is_no_file_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "updates.jsonl")
    assert plots.history(tmp_path) == []


def test_more_outcomes_than_memory_holds_are_refused(run_dir: Path) -> None:
    result = clew("evaluate", run_dir, "--count", 1_000, "--robots", 1_000_000)
    assert (result.returncode, result.stdout) == (2, "")
    assert "lower --count, --robots or --attempts" in result.stderr


def test_many_large_mazes_take_little_more_memory_than_their_cells() -> None:
    config = MazeConfig(family="blocks", side=63)
    one = families.sample(config, 1, np.random.default_rng(0), held_out=True)
    mazes = Mazes.concatenate([one, Mazes.from_text("SE"), *[one] * 998])
    tracemalloc.start()
    found = exam.of([""] * len(mazes), [""] * len(mazes), mazes, TINY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * mazes.cells  # in bytes: where each move leads takes twice as much
    assert found.shortest_M.tolist() == [ahead := int(exam.of([""], [""], one, TINY).shortest_M[0]), 1, *[ahead] * 998]


def test_a_checkpoint_of_another_design_is_refused(tmp_path: Path) -> None:
    theta_P = initial_theta(TINY)[:-1]
    checkpoint.save(tmp_path, Checkpoint(0, "old", TINY, {0: theta_P}, theta_P, theta_P, 0))
    with pytest.raises(ClewError, match=r"holds \d+ parameters, where this version of clew has \d+; .*train anew"):
        study.opened(tmp_path)
