"""`clew bench`: what it prints, on a setting small enough for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.bench import WINDOW, WINDOWS, figures
from protocol.config import Config

ROOT = Path(__file__).parent.parent
TINY = ("maze.side=5", "maze.min_distance=2", "run.mazes=4", "run.mazes_per_lease=2", "run.horizon_per_cell=1")


def test_bench_prints_one_json_object(tmp_path: Path) -> None:
    settings = [part for setting in TINY for part in ("--set", setting)]
    result = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "bench", "--json", "--rule", "meta-sgd", *settings],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")
    printed = json.loads(result.stdout)
    assert printed["steps_per_s"] > 0
    assert len(printed["windows"]) == WINDOWS
    assert printed["rule"] == "meta-sgd"
    assert {"gradient", "waiting", "publishing"} <= set(printed["learner_share"])
    assert {"sampling", "rollouts", "adaptation"} <= set(printed["actors_share"])
    assert list(tmp_path.iterdir()) == []


def test_the_median_window_counts() -> None:
    record = {
        "steps": 100,
        "attempts": 10,
        "phase_s": {"gradient": 0.5},
        "decoding_s": 0.1,
        "actor_s": {"rollouts": 1.0},
    }
    quick, slow = WINDOW * (WINDOWS - 2), WINDOW * 2  # updates
    records = [record | {"seconds": 4.0}] * slow + [record | {"seconds": 1.0}] * quick
    result = figures(records, Config(), actors=2)
    assert result["steps_per_s"] == 100
    assert result["steps_per_attempt"] == 10
    assert result["learner_share"]["gradient"] == pytest.approx(0.5 * len(records) / (4 * slow + quick))
