"""A run over IPv6 alone: work, theta, metrics, the doctor and an image's health check."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys

import pytest

from tests.deploy.test_cli import ENVIRONMENT, clew, wait_until
from tests.parts.parties import Place, page, place

__all__ = ["place"]  # a fixture

HOST = "::1"


@pytest.fixture(autouse=True)
def has_ipv6() -> None:
    try:
        socket.create_server((HOST, 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"there is no IPv6 here: {error}")


def test_a_run_over_ipv6(place: Place) -> None:
    learner = place.learner("--updates", 1_000_000, "--metrics-host", HOST, bind=f"tcp://[{HOST}]:0")
    address = learner.says(r"listening on (tcp://\[::1\]:\d+)")[1]
    actor = place.actor("--metrics-host", f"[{HOST}]", connect=address)  # with brackets, as people write it
    metrics = [party.says(r"metrics are served on http://(\[::1\]:\d+)/metrics")[1] for party in (learner, actor)]
    wait_until(lambda: page(metrics[1], "/healthz")[0] == 200)
    wait_until(lambda: page(metrics[0], "/actors")[1] != "[]")
    targets = json.loads(page(metrics[0], "/actors")[1])
    assert targets[0]["targets"] == [metrics[1]]
    health = [sys.executable, "-m", "deploy.process.health", metrics[1].rpartition(":")[2]]
    assert subprocess.run(health, env=ENVIRONMENT, timeout=60).returncode == 0
    examined = clew("doctor", "--connect", address, folder=place.folder)
    assert examined.returncode == 0, examined.stdout
    assert re.search(r"published at tcp://\[::1\]:\d+", examined.stdout)


def test_a_refused_port_is_named_with_brackets(place: Place) -> None:
    with socket.create_server((HOST, 0), family=socket.AF_INET6) as holder:
        port = holder.getsockname()[1]
        metrics = ("--metrics-host", HOST, "--metrics-port", port)
        result = clew("actor", "--connect", "ipc:///nobody", *metrics, folder=place.folder)
    assert result.returncode == 2
    assert f"cannot serve metrics on [::1]:{port}: Address already in use" in result.stderr
