"""`clew` processes as people start them. What they say is kept, and can be read while they run."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.deploy.test_cli import ENVIRONMENT, TINY, wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.forked import Process
from tests.parts.proxy import Proxy
from tests.whole.test_network import HERE, THERE, free_ports

UPDATES = 60
RUN = [*TINY, "--updates", str(UPDATES), "--device", "cpu", "--run-dir", "run"]
P = TypeVar("P", bound=Proxy)
PACE_S = 0.1  # each way: with an actor that is so far away, a run lasts long enough for something to happen in it


@dataclass(frozen=True)
class Party:
    """A process, and what it says on standard error."""

    process: Process | subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def says(self, pattern: str) -> re.Match[str]:
        """Waits until it has."""
        wait_until(lambda: bool(re.search(pattern, self.log.read_text())) or self.process.poll() is not None)
        match = re.search(pattern, self.log.read_text())
        assert match, f"ended without a line like {pattern!r}: {self.log.read_text()}"
        return match

    def ends(self, code: int = 0) -> None:
        assert self.process.wait(DEADLINE_S) == code, self.log.read_text()

    @property
    def port(self) -> int:
        """Returns the port of the process's metrics."""
        return int(self.says(r"metrics are served on http://[^ ]+:(\d+)/metrics")[1])

    def page(self, path: str) -> tuple[int, str]:
        return page(f"{HERE}:{self.port}", path)

    def metric(self, name: str) -> float:
        return metric(f"{HERE}:{self.port}", name)

    def works(self) -> bool:
        return self.page("/healthz")[0] == 200


def page(place: str, path: str) -> tuple[int, str]:
    """The status and the text of http://HOST:PORT/path."""
    with closing(http.client.HTTPConnection(place, timeout=DEADLINE_S)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def metric(place: str, name: str) -> float:
    match = re.search(rf"^{re.escape(name)} (\S+)$", page(place, "/metrics")[1], re.MULTILINE)
    assert match, f"no {name}"
    return float(match[1])


@dataclass(frozen=True)
class Place:
    """A directory where they live, and a port that is free, as are the next two."""

    folder: Path
    port: int
    undo: ExitStack

    @property
    def address(self) -> str:
        return f"tcp://{HERE}:{self.port}"

    @property
    def detour(self) -> str:
        """The learner's address for whoever comes by proxies."""
        return f"tcp://{THERE}:{self.port}"

    def start(self, *arguments: object, name: str = "", variables: dict[str, str] | None = None) -> Party:
        log = self.folder / f"{name or arguments[0]}-{len(list(self.folder.glob('*.log')))}.log"
        with log.open("w") as errors:
            words = [*map(str, arguments)]
            environment = ENVIRONMENT | (variables or {})
            process = Process(words, self.folder, environment, stdout=subprocess.DEVNULL, stderr=errors.fileno())
        self.undo.enter_context(process)
        self.undo.callback(process.kill)
        return Party(process, log)

    def learner(self, *arguments: object, bind: str = "") -> Party:
        """Starts a learner, which listens when this returns."""
        where = ("--bind", bind or self.address, "--metrics-port", 0)
        learner = self.start("learner", *RUN, *where, *arguments)
        learner.says("listening on")
        return learner

    def actor(self, *arguments: object, connect: str = "") -> Party:
        return self.start("actor", "--connect", connect or self.address, "--metrics-port", 0, *arguments)

    def between(self, kind: type[P]) -> tuple[P, P]:
        """Proxies of the work link and of the theta link; `detour` leads through them."""
        work, theta = (kind((THERE, port), (HERE, port)) for port in (self.port, self.port + 1))
        for proxy in (work, theta):
            self.undo.enter_context(proxy)
        return work, theta

    def updates(self) -> list[dict[str, object]]:
        """Returns the records that the run's journal holds by now."""
        path = self.folder / "run" / "updates.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def hashes(self, updates: int = UPDATES) -> list[object]:
        """Returns the hash of theta after every update of a run that is over."""
        records = self.updates()
        assert [record["update"] for record in records] == list(range(1, updates + 1))
        return [record["theta_sha256"] for record in records]


@contextmanager
def new_place(folder: Path) -> Iterator[Place]:
    with ExitStack() as undo:
        yield Place(folder, free_ports(), undo)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with new_place(tmp_path) as one:
        yield one


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Theta after every update of a run without keys that nothing happened to, with one actor."""
    with new_place(tmp_path_factory.mktemp("undisturbed")) as one:
        actor = one.actor()
        one.learner().ends()
        actor.ends()
        return one.hashes()


class Pace:
    """Proxies of both links that keep a run from being over too early."""

    def __init__(self, place: Place) -> None:
        self._proxies = place.between(Proxy)
        self._delay(PACE_S)

    def _delay(self, seconds: float) -> None:
        for proxy in self._proxies:
            proxy.delay_s = seconds

    def no_more(self) -> None:
        self._delay(0.0)
