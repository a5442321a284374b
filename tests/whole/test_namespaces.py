"""A learner and actors on machines of their own, as far as they see; and the cable between them."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Any

import pytest

from protocol.config import Config
from tests import ROOT
from tests.parts.deadline import DEADLINE_S
from tests.parts.network import Cable, Side, joined_namespaces
from tests.whole.test_processes import CONFIG, UPDATES, quiet

__all__ = ["quiet"]  # a fixture

PORT = 7777
CUT_S = 10.0
GOODBYE_S = 3.0  # for an actor that knows that the run is over
ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    with connection:
        while content := connection.recv(100):
            connection.sendall(content)
"""
SAY = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection, connection.makefile("rw") as file:
    for line in sys.stdin:
        file.write(line)
        file.flush()
        print(file.readline(), end="", flush=True)
"""

Start = Callable[..., "Talk"]


class Talk:
    """A process that says and hears lines."""

    def __init__(self, *command: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = Popen(command, stdin=PIPE, stdout=PIPE, env=environment, bufsize=0)

    def says(self, within_s: float = DEADLINE_S) -> str | None:
        """Returns the next line of the process, if it comes in time."""
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], within_s)
        return self.process.stdout.readline().decode().strip() if ready else None

    def hears(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")

    def ends(self) -> None:
        self.process.kill()
        with self.process:
            pass


@pytest.fixture
def cable() -> Iterator[Cable]:
    with joined_namespaces() as one:
        yield one


@pytest.fixture
def start() -> Iterator[Start]:
    """Processes that end with the test."""
    with ExitStack() as undo:

        def one(side: Side, *command: str) -> Talk:
            talk = Talk(*side.prefix, sys.executable, *command)
            undo.callback(talk.ends)
            return talk

        yield one


def test_nothing_passes_a_cable_that_is_cut_and_all_of_it_once_it_is_whole(cable: Cable, start: Start) -> None:
    place = [cable.near.address, str(PORT)]
    assert start(cable.near, "-c", ECHO, *place).says() == "listening"
    client = start(cable.far, "-c", SAY, *place)
    client.hears("one")
    assert client.says() == "one"
    cable.cut()
    client.hears("two")
    assert client.says(within_s=1.0) is None
    cable.heal()
    assert client.says() == "two"


@pytest.mark.slow
def test_after_ten_seconds_without_a_network_work_goes_on(
    tmp_path: Path, quiet: list[str], cable: Cable, start: Start
) -> None:
    keys, run_dir, config = tmp_path / "keys", tmp_path / "run", tmp_path / "config.toml"
    config.write_text(toml(CONFIG))
    clew = ["-m", "deploy.cli"]
    made = start(cable.near, *clew, "keys", "new", str(keys))
    assert made.process.wait(DEADLINE_S) == 0
    place = f"tcp://{cable.near.address}:{PORT}"
    given = ["--config", str(config), "--run-dir", str(run_dir), "--keys", str(keys / "learner")]
    learner = start(cable.near, *clew, "learner", "--bind", place, "--device", "cpu", *given)
    actors = [start(cable.far, *clew, "actor", "--connect", place, "--keys", str(keys / "actor")) for _ in range(2)]

    journal = Following(run_dir / "updates.jsonl")
    assert journal.grows_to(3, DEADLINE_S)
    cable.cut()
    assert not journal.grows_to(UPDATES, CUT_S), "the run was over before its cable was cut"
    done = len(journal.records)
    cable.heal()
    assert journal.grows_to(done + 1, DEADLINE_S)

    assert learner.process.wait(DEADLINE_S) == 0
    for actor in actors:
        with suppress(TimeoutExpired):
            actor.process.wait(GOODBYE_S)
        if actor.process.poll() is None:
            actor.process.terminate()  # it was away when the learner said that the run is over
        assert actor.process.wait(DEADLINE_S) == 0
    assert journal.grows_to(UPDATES, 0)
    assert [record["theta_sha256"] for record in journal.records] == quiet


class Following:
    """A run's journal, as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: list[dict[str, Any]] = []

    def grows_to(self, update: int, within_s: float) -> bool:
        """Says whether that update happens in time."""
        deadline = time.monotonic() + within_s
        while True:
            if self._path.exists():
                self.records = [json.loads(line) for line in self._path.read_bytes().split(b"\n")[:-1]]
            if len(self.records) >= update or time.monotonic() >= deadline:
                return len(self.records) >= update
            time.sleep(0.01)  # between two looks


def toml(config: Config) -> str:
    """Writes sections, which are tables of numbers and words, as TOML."""
    return "\n".join(
        f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in section.items()) + "\n"
        for name, section in config.model_dump(mode="json").items()
    )
