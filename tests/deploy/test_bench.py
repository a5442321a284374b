"""`clew bench` and `clew bench --target`: what they print, on settings small enough for a test."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from deploy.command import bench_target
from deploy.command.bench_speed import WINDOW, WINDOWS, figures
from deploy.command.bench_target import EVERY, TARGET
from protocol.config import Config
from tests.deploy.test_cli import clew
from tests.parts.records import record_of

TINY = ("maze.side=5", "maze.min_distance=2", "run.mazes=4", "run.mazes_per_lease=2", "run.horizon_per_cell=1")


def bench(*arguments: str, folder: Path) -> dict[str, Any]:
    """What `clew bench --json` prints, on small mazes."""
    settings = [part for setting in TINY for part in ("--set", setting)]
    result = clew("bench", "--json", *arguments, *settings, folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


def test_bench_prints_one_json_object(tmp_path: Path) -> None:
    printed = bench("--rule", "meta-sgd", folder=tmp_path)
    assert printed["steps_per_s"] > 0
    assert len(printed["windows"]) == WINDOWS
    assert printed["rule"] == "meta-sgd"
    assert {"gradient", "waiting", "publishing"} <= set(printed["learner_share"])
    assert {"sampling", "rollouts", "adaptation"} <= set(printed["actors_share"])
    assert list(tmp_path.iterdir()) == []


def test_the_seconds_to_the_target_are_those_of_the_first_theta_that_reaches_it(tmp_path: Path) -> None:
    printed = bench("--target", "--set", f"run.updates={2 * EVERY}", folder=tmp_path)
    assert printed["target"] == TARGET
    updates, seconds, ratios = ([point[key] for point in printed["curve"]] for key in ("update", "seconds", "ratio"))
    assert updates == [EVERY, 2 * EVERY][: len(updates)]
    assert seconds == sorted(seconds)
    assert all(ratio >= 1 for ratio in ratios)
    assert all(ratio > TARGET for ratio in ratios[:-1])
    if ratios[-1] <= TARGET:
        assert (printed["seconds_to_target"], printed["update"]) == (seconds[-1], updates[-1])
    else:
        assert (printed["seconds_to_target"], printed["update"], len(updates)) == (None, None, 2)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_reached_is_said() -> None:
    curve = [{"update": 10, "seconds": 3.25, "ratio": 1.5}]
    figures = {"seconds_to_target": None, "update": None, "target": 1.02, "mazes": 500, "actors": 2, "curve": curve}
    assert "not reached" in shown(bench_target.report(figures))
    assert "3.2" in shown(bench_target.report(figures | {"seconds_to_target": 3.25, "update": 10}))


def shown(table: Table) -> str:
    console = Console(width=100, file=StringIO(), force_terminal=False)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_median_window_counts() -> None:
    record = replace(record_of(1), steps=100, attempts=10)
    quick, slow = WINDOW * (WINDOWS - 2), WINDOW * 2  # updates
    records = [replace(record, seconds=4.0)] * slow + [replace(record, seconds=1.0)] * quick
    result = figures(records, Config(), actors=2)
    assert result["steps_per_s"] == 100
    assert result["steps_per_attempt"] == 10
    assert result["learner_share"]["gradient"] == pytest.approx(0.5 * len(records) / (4 * slow + quick))
