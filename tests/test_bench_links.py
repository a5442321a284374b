"""`clew bench --links`, with a few actors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_cli import clew


@pytest.mark.slow
def test_it_prints_one_json_object_and_leaves_nothing_behind(tmp_path: Path) -> None:
    result = clew("bench", "--links", "--actors", 20, "--json", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    figures = json.loads(result.stdout)
    assert figures["actors"] == 20
    assert 15_000 < figures["lease_bytes"] < 25_000
    for mode in ("plain", "curve"):
        assert all(value > 0 for name, value in figures[mode].items() if name != "windows")
        assert figures[mode]["theta_p50_s"] <= figures[mode]["theta_p99_s"]
    assert list(tmp_path.iterdir()) == []
