"""The status server, over real sockets."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from deploy.process import status
from protocol.config import ClewError
from tests.parts.deadline import DEADLINE_S


class Reply(NamedTuple):
    status: int
    content_type: str
    length: int  # as the header says
    body: str


def ask(server: status.Server | None, path: str, method: str = "GET") -> Reply:
    assert server
    connection = HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        header = response.headers
        body = response.read().decode()
        return Reply(response.status, header["Content-Type"], int(header["Content-Length"]), body)
    finally:
        connection.close()


def silent(server: status.Server) -> socket.socket:
    """A client that connects and says nothing."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)


def until(happens: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happens():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.01)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "status"]


@contextmanager
def serving(registry: CollectorRegistry | None = None) -> Iterator[status.Server]:
    with status.serve(0, registry or CollectorRegistry(), lambda: True) as server:
        assert server
        yield server


def test_metrics_come_in_prometheus_own_format() -> None:
    registry = CollectorRegistry()
    Counter("clew_tries", "Tries.", registry=registry).inc(3)
    with serving(registry) as server:
        reply = ask(server, "/metrics?ignored=yes")
    assert (reply.status, reply.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    (family,) = text_string_to_metric_families(reply.body)
    assert [(sample.name, sample.value) for sample in family.samples] == [("clew_tries_total", 3)]


def test_health_follows_the_process() -> None:
    ready = threading.Event()
    with status.serve(0, CollectorRegistry(), ready.is_set) as server:
        assert ask(server, "/healthz")[::3] == (503, "not ready\n")
        ready.set()
        assert ask(server, "/healthz")[::3] == (200, "ok\n")
        ready.clear()
        assert ask(server, "/healthz").status == 503


def test_actors_are_listed_as_service_discovery_wants_them() -> None:
    targets: list[str] = []
    with status.serve(0, CollectorRegistry(), lambda: True, lambda: targets) as server:
        assert ask(server, "/actors").body == "[]"
        targets += ["10.0.0.2:9100", "10.0.0.3:9100"]
        reply = ask(server, "/actors")
    assert (reply.status, reply.content_type) == (200, "application/json")
    assert json.loads(reply.body) == [{"targets": targets, "labels": {"job": "clew-actor"}}]


@pytest.mark.parametrize("path", ["/", "/actors", "/metrics/", "/../healthz", "/%6detrics"])
def test_elsewhere_is_nothing_but_a_list_of_what_there_is(path: str) -> None:
    with serving() as server:
        reply = ask(server, path)
    assert (reply.status, reply.body) == (404, "there is no such page; there are /metrics, /healthz\n")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/elsewhere"])
def test_head_says_all_but_the_body(path: str) -> None:
    registry = CollectorRegistry()
    Counter("clew_tries", "Tries.", registry=registry)
    with serving(registry) as server:
        full, head = ask(server, path), ask(server, path, "HEAD")
    assert full.length == len(full.body) > 0
    assert head == full._replace(body="")


def test_fifty_scrapes_at_once_are_all_answered() -> None:
    registry = CollectorRegistry()
    Counter("clew_tries", "Tries.", registry=registry)
    with serving(registry) as server, ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda _: ask(server, "/metrics"), range(50)))
    assert {reply.status for reply in replies} == {200}


def test_a_silent_client_holds_up_nobody_and_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "CLIENT_S", 0.5)
    with serving() as server, silent(server) as client:
        assert ask(server, "/healthz").status == 200
        assert client.recv(1) == b""
        until(lambda: len(threads()) == 1)  # the one that accepts


def test_a_client_that_speaks_slowly_has_no_longer_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "CLIENT_S", 0.5)
    with serving() as server, silent(server) as client:
        client.settimeout(0.02)

        def is_hung_up() -> bool:
            try:
                client.send(b"G")
                return client.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        until(is_hung_up)
        until(lambda: len(threads()) == 1)


def test_a_crowd_of_silent_clients_starts_no_crowd_of_threads_and_keeps_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status, "CLIENTS", 3)
    with ExitStack() as stack:
        server = stack.enter_context(serving())
        crowd = [stack.enter_context(silent(server)) for _ in range(5)]
        assert [client.recv(1) for client in crowd[:2]] == [b"", b""]  # the oldest made room
        until(lambda: len(threads()) == 4)
        assert [ask(server, "/healthz").status for _ in range(10)] == [200] * 10
        for client in crowd:
            client.close()
        until(lambda: len(threads()) == 1)


def test_whoever_has_asked_is_not_hung_up_on_for_those_who_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "CLIENTS", 2)
    asked, go_on = threading.Event(), threading.Event()

    def ready() -> bool:
        asked.set()
        return go_on.wait(DEADLINE_S)

    with (
        ExitStack() as stack,
        status.serve(0, CollectorRegistry(), ready) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        reply = pool.submit(ask, server, "/healthz")
        assert asked.wait(DEADLINE_S)
        assert server
        crowd = [stack.enter_context(silent(server)) for _ in range(5)]
        assert [client.recv(1) for client in crowd[:-1]] == [b""] * 4
        go_on.set()
        assert reply.result().status == 200


def test_closing_leaves_no_thread_and_no_socket() -> None:
    with ExitStack() as stack:
        with serving() as server:
            client = stack.enter_context(silent(server))
            until(lambda: len(threads()) == 2)  # the silent client has one
        assert not threads()
        assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            silent(server)


def test_a_port_in_use_is_refused_with_the_remedy() -> None:
    with (
        serving() as server,
        pytest.raises(ClewError, match=rf"127.0.0.1:{server.port}: Address .* --metrics-port"),
        status.serve(server.port, CollectorRegistry(), lambda: True),
    ):
        pytest.fail("two servers on one port")


def test_a_port_is_free_again_at_once() -> None:
    with serving() as server:
        assert ask(server, "/healthz").status == 200
    with status.serve(server.port, CollectorRegistry(), lambda: True) as again:
        assert ask(again, "/healthz").status == 200


def test_without_being_asked_it_listens_on_loopback_alone() -> None:
    with serving() as server:
        assert server.server_address[0] == "127.0.0.1"


def test_nothing_is_printed_per_request(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        for path in ("/metrics", "/healthz", "/elsewhere"):
            ask(server, path)
        ask(server, "/metrics", "DELETE")
        with silent(server) as client:
            client.sendall(b"\x00 nonsense\r\n\r\n")
            assert client.recv(1)
    assert capfd.readouterr() == ("", "")


def test_a_figure_that_cannot_be_told_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Collector):
        def collect(self) -> Iterator[None]:  # type: ignore[override]
            raise KeyError("theta")

    registry = CollectorRegistry()
    registry.register(Broken())
    with serving(registry) as server:
        assert ask(server, "/metrics").status == 500
        assert ask(server, "/healthz").status == 200
    assert [record.message for record in caplog.records] == ["a request could not be answered"]
