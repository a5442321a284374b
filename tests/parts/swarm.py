"""A second Docker engine, in a network namespace of its own: another machine, as far as a swarm sees."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.parts.network import ip

START_S = 60.0
LEAVE_S = 60.0


@dataclass(frozen=True)
class Engine:
    """One of the two."""

    host: str  # as docker wants it; "" is the one that everybody uses
    address: str  # for the other

    def docker(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """Returns what `docker …` prints; raises CalledProcessError, with what it said, where it fails."""
        command = ["docker", *(["--host", self.host] if self.host else []), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout.strip()


@contextmanager
def swarm_of_two() -> Iterator[tuple[Engine, Engine]]:
    """Manager and worker; in the end both have left, and the second is gone. Skips where that cannot be had."""
    if os.geteuid() or not shutil.which("dockerd"):
        pytest.skip("a second engine needs root, and dockerd on this machine")
    name = f"clew{secrets.token_hex(3)}"
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix=name, dir="/var/tmp"))  # not in memory, as /tmp may be
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        manager, worker = Engine("", "10.98.0.1"), Engine(f"unix://{folder}/socket", "10.98.0.2")
        if manager.docker("info", "--format", "{{.Swarm.LocalNodeState}}") != "inactive":
            pytest.skip("this machine's engine is part of a swarm already")
        lay_cable(name, manager, worker, undo)
        start_engine(name, folder, worker, undo)
        at = manager.address
        bridge = ["docker", "network", "rm", "docker_gwbridge"]  # which a swarm leaves behind
        undo.callback(subprocess.run, bridge, capture_output=True)
        manager.docker("swarm", "init", "--advertise-addr", at, "--listen-addr", f"{at}:2377")
        undo.callback(manager.docker, "swarm", "leave", "--force", timeout_s=LEAVE_S)
        token = manager.docker("swarm", "join-token", "--quiet", "worker")
        worker.docker("swarm", "join", "--token", token, f"{at}:2377")
        undo.callback(worker.docker, "swarm", "leave", "--force", timeout_s=LEAVE_S)
        yield manager, worker


def lay_cable(name: str, near: Engine, far: Engine, undo: ExitStack) -> None:
    """Between this machine and a new namespace, `name`."""
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces are not allowed here: {error}")
    undo.callback(ip, "netns", "del", name)  # and its end of the cable, and so the other
    ends = f"{name}1", f"{name}2"
    ip(*f"link add {ends[0]} type veth peer name {ends[1]} netns {name}".split())
    ip("address", "add", f"{near.address}/24", "dev", ends[0])
    ip("link", "set", ends[0], "up")
    ip("-n", name, "address", "add", f"{far.address}/24", "dev", ends[1])
    for link in ("lo", ends[1]):
        ip("-n", name, "link", "set", link, "up")
    ip("-n", name, "route", "add", "default", "via", near.address)


def start_engine(name: str, folder: Path, engine: Engine, undo: ExitStack) -> None:
    """Starts an engine in the namespace, with a /run of its own; /sys stays, for its control groups."""
    places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    options = " ".join(f"--{option} {folder}/{place}" for option, place in places.items())
    script = f"mount -t tmpfs tmpfs /run && exec dockerd {options} --host {engine.host}"
    command = ["nsenter", f"--net=/var/run/netns/{name}", "unshare", "--mount", "sh", "-c", script]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def stop() -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(LEAVE_S)
        finally:
            subprocess.run(["umount", "--recursive", "--lazy", str(folder)], capture_output=True)

    undo.callback(stop)
    wait = [
        "timeout",
        str(START_S),
        "sh",
        "-c",
        f"until docker --host {engine.host} info; do sleep 0.5; done",
    ]
    if subprocess.run(wait, capture_output=True).returncode:
        pytest.fail(f"the second engine does not start: {(folder / 'log').read_text()[-1_000:]}")
