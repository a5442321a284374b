"""Metrics of learner and actors, as Prometheus sees them."""

from __future__ import annotations

import ast
import math
import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from actors.metrics import ActorMetrics
from deploy.process.status import serve
from learner.metrics import PHASES, REASONS, LearnerMetrics, Live
from tests import ROOT
from tests.parts.records import record_of

RECORD = replace(
    record_of(12),
    gradient_norm=None,  # not finite
    success_before=0.25,
    success_after=0.75,
    ratio_before=6.0,
    ratio_after=2.0,
)
LIVE = Live(
    version=12,
    planned=3000,
    actors=2,
    leases_out=4,
    leases_missing=5,
    batches_waiting=2,
    leases={"issued": 50, "reissued": 3, "doubled": 2, "expired": 1},
    refusals={"late": 7},
    bytes={"sent": 1000, "received": 9000},
    checkpoint_age_s=12.5,
    theta_norm=3.5,
    step_sizes={"cells": 5.0},
    record=RECORD,
    totals={"updates": 12, "attempts": 80, "steps": 900},
)
UNITS = {"ms", "us", "ns", "sec", "minutes", "hours", "milliseconds", "kb", "mb", "kilobytes", "percent"}
TYPES = {"counter", "gauge", "histogram", "summary"}


def scrape(registry: CollectorRegistry) -> list[Metric]:
    with serve(0, registry, lambda: True) as server:
        assert server
        response = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10)
        with response:
            content = response.read().decode()
        return list(text_string_to_metric_families(content))


def values(registry: CollectorRegistry) -> dict[str, float]:
    """Every sample by its name, with its label's value: `name{value}`."""
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in scrape(registry)
        for sample in family.samples
    }


def offences(family: Metric) -> list[str]:
    """What Prometheus' own linter, promtool, and https://prometheus.io/docs/practices/naming would object to."""
    name, words = family.name, set(family.name.split("_"))
    is_total = all(sample.name.endswith("_total") for sample in family.samples)
    labels = {label for sample in family.samples for label in sample.labels}
    found = {
        "no help": not family.documentation,
        "no samples": not family.samples,
        "not in snake case": not all(re.fullmatch(r"[a-z]+(_[a-z]+)*", word) for word in (name, *labels)),
        "no prefix": not name.startswith(("clew_actor_", "clew_learner_", "process_")),
        "not in base units": bool(words & UNITS),
        "its type in its name": bool(words & TYPES),
        "counter without _total": family.type == "counter" and not is_total,
        "_total without counter": family.type != "counter" and name.endswith("_total"),
        "a histogram's suffix": name.endswith(("_count", "_sum", "_bucket")),
        "time without _seconds": bool(words & {"age", "time", "duration", "phase"}) and not name.endswith("_seconds"),
        "bytes in the middle": "bytes" in words and not name.endswith("_bytes"),
    }
    return [f"{name}: {what}" for what, is_so in found.items() if is_so]


def idle_actor() -> ActorMetrics:
    return ActorMetrics(lambda: {"sent": 120, "received": 7})


def busy_actor() -> ActorMetrics:
    metrics = idle_actor()
    metrics.leases.inc()
    metrics.observe("sampling", 0.002)
    metrics.observe("waiting", 0.05)
    return metrics


def busy_learner() -> LearnerMetrics:
    metrics = LearnerMetrics(lambda: LIVE)
    metrics.observe("gradient", 0.5)
    return metrics


REGISTRIES: list[Callable[[], CollectorRegistry]] = [
    lambda: idle_actor().registry,
    lambda: busy_actor().registry,
    lambda: LearnerMetrics(lambda: replace(LIVE, record=None)).registry,
    lambda: busy_learner().registry,
]


@pytest.mark.parametrize("registry", REGISTRIES, ids=["actor", "busy actor", "learner", "busy learner"])
def test_names_are_as_prometheus_wants_them(registry: Callable[[], CollectorRegistry]) -> None:
    families = scrape(registry())
    assert len(families) > 10
    assert not [offence for family in families for offence in offences(family)]


@pytest.mark.parametrize(
    ("name", "kind", "offence"),
    [
        ("clew_actor_stepsTaken", "gauge", "not in snake case"),
        ("clew_actor_phase_ms", "histogram", "not in base units"),
        ("clew_actor_mazes_total", "gauge", "_total without counter"),
        ("clew_actor_mazes", "counter", "counter without _total"),
        ("clew_learner_checkpoint_age", "gauge", "time without _seconds"),
        ("mazes", "gauge", "no prefix"),
    ],
)
def test_a_bad_name_would_be_found(name: str, kind: str, offence: str) -> None:
    family = Metric(name, "Help.", kind)
    family.add_sample(name, {}, 1.0)
    assert f"{name}: {offence}" in offences(family)


def test_both_sides_export_everything_from_the_start() -> None:
    for idle, busy in (REGISTRIES[:2], REGISTRIES[2:]):
        assert values(idle()).keys() == values(busy()).keys()


def test_an_actor_tells_its_work_and_its_bytes() -> None:
    found = values(busy_actor().registry)
    assert found["clew_actor_leases_total"] == 1
    assert found["clew_actor_phase_seconds_count{sampling}"] == 1
    assert found["clew_actor_phase_seconds_sum{waiting}"] == pytest.approx(0.05)
    assert found["clew_actor_phase_seconds_count{adaptation}"] == 0
    assert found["clew_actor_wire_bytes_total{sent}"] == 120
    assert found["clew_actor_wire_bytes_total{received}"] == 7
    assert found["process_resident_memory_bytes"] > 0


def test_a_learner_is_read_at_each_scrape() -> None:
    live = LIVE
    metrics = LearnerMetrics(lambda: live)
    found = values(metrics.registry)
    expected = {
        "update": 12,
        "updates_planned": 3000,
        "updates_total": 12,
        "attempts_total": 80,
        "steps_total": 900,
        "actors": 2,
        "leases_out": 4,
        "leases_missing": 5,
        "leases_total{issued}": 50,
        "leases_total{doubled}": 2,
        "batches_waiting": 2,
        "wire_bytes_total{sent}": 1000,
        "wire_bytes_total{received}": 9000,
        "checkpoint_age_seconds": 12.5,
        "lag_updates": 1,
        "success_ratio{before}": 0.25,
        "success_ratio{after}": 0.75,
        "steps_ratio{after}": 2,
        "adaptation_gain": 0.5,
        "theta_norm": 3.5,
        "step_size{cells}": 5,
    }
    assert {name: found[f"clew_learner_{name}"] for name in expected} == expected
    assert math.isnan(found["clew_learner_gradient_norm"])
    live = replace(LIVE, actors=3, checkpoint_age_s=math.nan)
    found = values(metrics.registry)
    assert found["clew_learner_actors"] == 3
    assert math.isnan(found["clew_learner_checkpoint_age_seconds"])


def test_refusals_are_told_by_reason_the_known_ones_from_the_start() -> None:
    found = values(LearnerMetrics(lambda: LIVE).registry)
    refusals = {name for name in found if name.startswith("clew_learner_refusals_total")}
    assert refusals == {f"clew_learner_refusals_total{{{reason}}}" for reason in REASONS}
    assert found["clew_learner_refusals_total{late}"] == 7
    assert found["clew_learner_refusals_total{maze}"] == 0


def test_a_learner_times_its_phases_and_no_others() -> None:
    found = values(busy_learner().registry)
    assert {name for name in found if name.startswith("clew_learner_phase_seconds_count")} == {
        f"clew_learner_phase_seconds_count{{{phase}}}" for phase in PHASES
    }
    assert found["clew_learner_phase_seconds_sum{gradient}"] == 0.5


def test_every_word_that_the_code_refuses_with_is_known() -> None:
    sources = [path for package in ("protocol", "learner") for path in (ROOT / package).rglob("*.py")]
    words = {word for path in sources for word in refusal_words(ast.parse(path.read_text()))}
    assert len(words) > 10
    assert words <= set(REASONS)


def refusal_words(tree: ast.AST) -> Iterator[str]:
    """`WireError("header")`, `AdmissionError("shape")`, `self._refusals["late"]`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name("WireError" | "AdmissionError"), [ast.Constant(str(word)), *_]):
                yield word
            case ast.Subscript(ast.Attribute(attr="_refusals" | "refusals"), ast.Constant(str(word))):
                yield word
