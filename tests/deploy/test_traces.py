"""Traces: an update is one trace over all processes, which names a stalled actor; without a collector it is off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from deploy.process.traces import ENDPOINTS, telling
from learner.traces import Trail
from protocol.wire.messages import Lease
from protocol.wire.traces import Span, lease_of, trace_of, update_of
from tests import ROOT
from tests.deploy.test_cli import ENDLESS, ENVIRONMENT, TINY, children, wait_until
from tests.parts import forked
from tests.parts.deadline import DEADLINE_S
from tests.parts.forked import Process


class Collector:
    """A collector of OpenTelemetry, which keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def environment(self) -> dict[str, str]:
        endpoint = f"http://127.0.0.1:{self.server.server_port}"
        return {**ENVIRONMENT, ENDPOINTS[0]: endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}

    def take(self, content: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(content).resource_spans:
            (service,) = [one.value.string_value for one in resource.resource.attributes if one.key == "service.name"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                kinds = {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}
                self.spans.append({"service": service, "span": span, **kinds})


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


def test_an_update_is_one_trace_over_learner_and_actors(collector: Collector, tmp_path: Path) -> None:
    arguments = ["train", *TINY, "--updates", "5", "--actors", "2", "--run-dir", "run"]
    done = forked.run(arguments, tmp_path, collector.environment, DEADLINE_S)
    assert (done.returncode, done.stderr) == (0, "")
    traces: dict[bytes, list[dict[str, Any]]] = defaultdict(list)
    for one in collector.spans:
        traces[one["span"].trace_id].append(one)
    updates = []
    for spans in traces.values():
        by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in spans:
            by_name[one["span"].name].append(one)
        if "update" not in by_name:  # of a batch that was begun when the run was over
            continue
        (root,) = by_name["update"]
        updates.append(root["clew.update"])
        leases = {one["span"].span_id: one for one in by_name["lease"] if one["clew.outcome"] == "answered"}
        assert {one["clew.chunk"] for one in leases.values()} == {0, 1}
        works = {one["span"].parent_span_id: one for one in by_name["work"]}
        for number, lease in leases.items():
            assert lease["span"].parent_span_id == root["span"].span_id
            assert (works[number]["service"], works[number]["clew.actor"]) == ("clew-actor", lease["clew.actor"])
            assert works[number]["clew.rollouts_s"] > 0
            begin, end = works[number]["span"].start_time_unix_nano, works[number]["span"].end_time_unix_nano
            assert root["span"].start_time_unix_nano <= lease["span"].start_time_unix_nano <= begin <= end
        for phase in ("gradient", "publishing"):
            (own,) = by_name[phase]
            assert (own["service"], own["span"].parent_span_id) == ("clew-learner", root["span"].span_id)
    assert sorted(updates) == [1, 2, 3, 4, 5]


def test_a_stalled_actor_is_named(collector: Collector, tmp_path: Path) -> None:
    arguments = ["train", *ENDLESS, "--set", "run.lease_timeout_s=1", "--actors", "2", "--run-dir", "run"]

    def idle() -> set[object]:
        """The actors whose leases were not answered, with no work below them, since one was stopped."""
        spans = list(collector.spans)
        works = {one["span"].parent_span_id for one in spans if one["span"].name == "work"}
        ended = [one for one in spans if one["span"].end_time_unix_nano > stopped_ns]
        lost = [one for one in ended if one.get("clew.outcome") == "unanswered" and one["span"].span_id not in works]
        return {one["clew.actor"] for one in lost}

    stopped_ns = 0
    with Process(arguments, tmp_path, collector.environment) as process:
        wait_until(lambda: {"actor-0", "actor-1"} <= {one.get("clew.actor") for one in list(collector.spans)})
        stalled = children(process.pid)["actor-1"]
        os.kill(stalled, signal.SIGSTOP)
        stopped_ns = time.time_ns()
        wait_until(lambda: "actor-1" in idle())
        os.kill(stalled, signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        process.wait()


def test_without_a_collector_nothing_is_noted_and_nothing_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    with telling("learner") as tell:
        assert tell is None
    trail = Trail("session")
    for issue in range(10):
        trail.handed_out(Lease(0, issue, issue, 0, (0,), 1.0), "actor")
    assert not vars(trail)["_open"]
    program = "import sys, deploy.cli, deploy.process.roles, learner.learner; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr


def test_a_collector_that_is_not_there_holds_up_nobody(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, ENDPOINTS[0]: "http://127.0.0.1:9"}
    arguments = ["train", *TINY, "--updates", "3", "--actors", "1", "--run-dir", "run"]
    began = time.monotonic()
    done = forked.run(arguments, tmp_path, environment, DEADLINE_S)
    assert done.returncode == 0, done.stderr
    print(f"{time.monotonic() - began:.1f} s", done.stderr)


def test_a_trail_tells_of_what_was_answered_and_of_what_was_not() -> None:
    told: list[Span] = []
    trail = Trail("session")
    trail.tell = told.append
    for issue, batch, actor in ((7, 0, "one"), (8, 0, "two"), (9, 1, "one")):
        trail.handed_out(Lease(batch, issue, issue, 0, (0,), 1.0), actor)
    trail.answered(7)
    trail.answered(7)
    trail.updated(0)
    assert [(span.name, span.facts.get("actor"), span.facts.get("outcome")) for span in told] == [
        ("lease", "one", "answered"),
        ("lease", "two", "unanswered"),
        ("update", None, None),
    ]
    assert [span.number for span in told] == [
        lease_of("session", 7),
        lease_of("session", 8),
        update_of("session", 0),
    ]
    assert {span.trace for span in told} == {trace_of("session", 0)} != {trace_of("session", 1)}
    assert [span.parent for span in told] == [told[2].number, told[2].number, None]
    trail.updated(1)
    assert [span.facts.get("actor") for span in told[3:]] == ["one", None]
