"""`python -m tests.bench_links`, with a few actors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.test_cli import ENVIRONMENT


@pytest.mark.soak  # it measures for two minutes
@pytest.mark.timeout(330)
def test_it_prints_one_json_object_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench_links", "20"]
    result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
    figures = json.loads(result.stdout)
    assert figures["actors"] == 20
    assert 15_000 < figures["lease_bytes"] < 25_000
    for mode in ("plain", "curve"):
        assert all(value > 0 for name, value in figures[mode].items() if name != "windows")
        assert figures[mode]["theta_p50_s"] <= figures[mode]["theta_p99_s"]
    assert list(tmp_path.iterdir()) == []
