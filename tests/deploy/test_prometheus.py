"""deploy/prometheus: what Prometheus' own tool says of it, and whether it speaks of metrics that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from functools import cache
from typing import Any, Protocol

import pytest

from tests import ROOT
from tests.deploy.test_metrics import busy_actor, busy_learner, scrape

FOLDER = ROOT / "deploy/prometheus"
ALERTS = (FOLDER / "alerts.yml").read_text()
CASES = (FOLDER / "alerts.test.yml").read_text()
IMAGE = "prom/prometheus:v2.53.0"
NAMES = re.findall(r"^ *- alert: (\w+)$", ALERTS, re.MULTILINE)
OURS = re.compile(r"\b((?:clew|process)_\w+)(?:\{([^}]*)\})?")  # a metric, and its labels
LABEL = re.compile(r'(\w+) *(?:=|!=|=~|!~) *"([^"]*)"')
ELSEWHERE = {"job", "instance"}  # labels that Prometheus adds


class Composed(Protocol):
    """The composed system, as `docker compose up` starts it."""

    environment: dict[str, str]  # of compose.yaml

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Returns what its Prometheus answers."""


@cache
def has_engine() -> bool:
    command = ["docker", "info"]
    return bool(shutil.which("docker")) and not subprocess.run(command, capture_output=True).returncode


def promtool(*arguments: str) -> str:
    """Returns what promtool says of the files in FOLDER, which are under /p; fails where it does."""
    if not has_engine():
        pytest.skip("`docker info` fails: there is no Docker engine")
    command = ["docker", "run", "--rm", "-v", f"{FOLDER}:/p:ro", "--entrypoint", "promtool", IMAGE]
    tool = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=100)
    assert tool.returncode == 0, tool.stdout + tool.stderr
    return tool.stdout


def exported() -> dict[str, dict[str, set[str]]]:
    """The values of each label of every metric that a learner and an actor export from the start."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for metrics in (busy_learner(), busy_actor()):
        for family in scrape(metrics.registry):
            for sample in family.samples:
                found[sample.name]["__name__"].add(sample.name)
                for label, value in sample.labels.items():
                    found[sample.name][label].add(value)
    return found


def unknown(text: str) -> set[str]:
    """Metrics, labels and values of labels in queries that nobody exports."""
    known = exported()
    wrong = set()
    for name, labels in OURS.findall(text):
        if name not in known:
            wrong.add(name)
            continue
        for label, values in LABEL.findall(labels):
            if label not in ELSEWHERE:
                wrong |= {
                    f"{name}{{{label}={value}}}" for value in values.split("|") if value not in known[name][label]
                }
    return wrong


def expressions() -> dict[str, str]:
    """Returns the expression of each alert, by its name."""
    found = re.findall(r"- alert: (\w+)\n +expr: (?:\|\n((?: {10}.*\n)+)|(.*\n))", ALERTS)
    return {name: lines or line for name, lines, line in found}


@pytest.mark.parametrize("text", [ALERTS, CASES], ids=["alerts", "their tests"])
def test_alerts_speak_of_metrics_that_there_are(text: str) -> None:
    assert len(OURS.findall(text)) > 10
    assert not unknown(text)


@pytest.mark.parametrize(
    "query",
    [
        "clew_learner_updates",
        'clew_learner_refusals_total{reason!~"late|lame"}',
        'clew_actor_steps_total{phase="a"}',
    ],
)
def test_a_metric_that_nobody_exports_would_be_found(query: str) -> None:
    assert unknown(query)


def test_every_alert_is_shown_firing_and_silent() -> None:
    shown = {(name, bool(fires)) for name, fires in re.findall(r"alertname: (\w+)\n(?: +(exp_alerts):)?", CASES)}
    assert len(NAMES) == len(set(NAMES)) > 10
    assert shown == {(name, fires) for name in NAMES for fires in (True, False)}


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    rules = ALERTS.split("- alert: ")[1:]
    wanted = r"severity: (critical|warning|info)\}[^-]*summary: .+\n +description: >-\n"
    assert [name for name, rule in zip(NAMES, rules, strict=True) if not re.search(wanted, rule)] == []
    guide = (ROOT / "deploy/WATCHING.md").read_text()
    assert [name for name in NAMES if f"| `{name}`" not in guide] == []


@pytest.mark.docker
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "/p/prometheus.yml"),
        ("check", "rules", "--lint=all", "--lint-fatal", "/p/alerts.yml"),
        ("test", "rules", "/p/alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    assert "SUCCESS" in promtool(*arguments)


@pytest.mark.docker
@pytest.mark.timeout(2_700)
@pytest.mark.parametrize("alert", NAMES)
def test_the_expression_of_every_alert_can_be_evaluated(composed: Composed, alert: str) -> None:
    """It raises where it cannot; most are empty, since nothing is wrong."""
    assert composed.query(f"count({expressions()[alert]}) or vector(0)")
