"""deploy/grafana: the dashboard is laid out as Grafana wants it, and every query of it has an answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from deploy.grafana.picture import Prometheus, draw
from tests import ROOT
from tests.deploy.test_cli import wait_until
from tests.deploy.test_prometheus import Composed, unknown

FOLDER = ROOT / "deploy/grafana"
DASHBOARD = json.loads((FOLDER / "dashboards/clew.json").read_text())
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
RATE_INTERVAL = "20s"  # as Grafana has it: four scrapes
MAY_BE_EMPTY = "Which alerts are firing?"  # where no alert fires


def test_the_rows_answer_the_four_questions_in_order() -> None:
    rows = sorted(ROWS, key=lambda row: int(row["gridPos"]["y"]))
    questions = ["Is it learning?", "Is it running?", "What limits it?", "What is wrong?"]
    assert [row["title"] for row in rows] == questions


def test_every_panel_has_a_place_of_its_own() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        assert 0 <= panel["gridPos"]["x"] < panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in everything), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"].endswith("?")
    assert len(panel["description"]) > 20
    assert "unit" in panel["fieldConfig"]["defaults"] or panel["type"] == "table"
    assert all(target.get("legendFormat") or target.get("format") == "table" for target in panel["targets"])


def test_every_panel_asks_the_prometheus_that_is_provisioned() -> None:
    assert "uid: prometheus " in (FOLDER / "provisioning/datasources/clew.yml").read_text()
    assert all(panel["datasource"] == {"type": "prometheus", "uid": "prometheus"} for panel in PANELS)


def test_grafana_looks_for_dashboards_where_they_are_mounted() -> None:
    found = re.search(r"path: (\S+)", (FOLDER / "provisioning/dashboards/clew.yml").read_text())
    assert found
    assert f"./grafana/dashboards:{found[1]}:ro" in (FOLDER.parent / "compose.yaml").read_text()


def test_every_query_speaks_of_metrics_that_there_are() -> None:
    assert len(QUERIES) > 20
    assert {query: wrong for _, query in QUERIES if (wrong := unknown(query))} == {}


@pytest.mark.sdk
def test_grafanas_own_types_know_every_field() -> None:
    reason = "Grafana's types of a dashboard are in the extra clew[test-deploy]"
    dashboard = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason=reason)
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    pytest.importorskip("grafana_foundation_sdk.cog.plugins").register_default_plugins()
    copy = json.loads(json.dumps(DASHBOARD))  # reading takes it apart
    read = json.loads(encoder.JSONEncoder().encode(dashboard.Dashboard.from_json(copy)))
    assert list(lost(DASHBOARD, read)) == []


def lost(given: Any, read: Any, where: str = "") -> Iterator[str]:
    """What of `given` is not in `read`."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            yield from lost(value, read.get(key), f"{where}.{key}")
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for number, (one, other) in enumerate(zip(given, read, strict=True)):
            yield from lost(one, other, f"{where}[{number}]")
    elif given != read:
        yield f"{where}: {given!r} became {read!r}"


@pytest.mark.docker
@pytest.mark.timeout(2_700)
@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_every_query_has_data_in_the_composed_system(composed: Composed, title: str, query: str) -> None:
    """Counts of zero are data, too; but not what is not a number."""
    asked = query.replace("$__rate_interval", RATE_INTERVAL)
    assert "$" not in asked
    if title == MAY_BE_EMPTY:
        composed.query(asked)  # it raises where it cannot be evaluated
        wait_until(lambda: bool(composed.query("clew:run_over")))  # so the rules are evaluated
    else:
        wait_until(lambda: any(is_number(series) for series in composed.query(asked)))


@pytest.mark.docker
@pytest.mark.timeout(2_700)
def test_the_dashboard_can_be_drawn_without_a_grafana(composed: Composed, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{composed.environment['PROMETHEUS_PORT']}"
    draw(Prometheus(address, minutes=1.0), tmp_path / "dashboard.png")
    height, width, _ = imread(tmp_path / "dashboard.png").shape
    assert height > width > 1_000


def is_number(series: dict[str, Any]) -> bool:
    """Whether an instant query's result is one."""
    return not math.isnan(float(series["value"][1]))
