"""A stack on a swarm of two engines: actors on both, and whatever is lost comes back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.command import keys as keyring
from tests import ROOT
from tests.parts.engine import CHECKPOINT_EVERY, SMALL, Images, until
from tests.parts.swarm import Engine, swarm_of_two

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(2_700)]

STACK = "clewtest"
COPY_S = 600.0  # for an image, from one engine to the other
FETCH = "from sys import argv; from urllib.request import urlopen; print(urlopen(argv[1], timeout=5).read().decode())"


class Stack:
    """The stack, as its users see it."""

    def __init__(self, manager: Engine, worker: Engine) -> None:
        self.manager, self.worker = manager, worker

    def containers(self, engine: Engine, service: str) -> list[str]:
        """Lists the containers of a service that run."""
        name = f"label=com.docker.swarm.service.name={STACK}_{service}"
        return engine.docker("ps", "--quiet", "--filter", name).split()

    def fetch(self, url: str) -> str:
        """Returns what the learner's container finds there; nothing where there is none, or nobody answers."""
        for container in self.containers(self.manager, "learner"):
            try:
                return self.manager.docker("exec", container, "python", "-c", FETCH, url)
            except AssertionError:  # it is on its way, or gone again
                continue
        return ""

    def metric(self, name: str) -> float:
        """Returns a metric of the learner; -1 where it does not answer."""
        page = self.fetch("http://127.0.0.1:9100/metrics")
        found = [line.split()[1] for line in page.splitlines() if line.startswith(f"{name} ")]
        return float(found[0]) if found else -1.0

    def trains(self, actors: int) -> None:
        """Waits until so many actors are there, and updates are made."""
        until(lambda: self.metric("clew_learner_actors") == actors)
        before = self.metric("clew_learner_update")
        until(lambda: self.metric("clew_learner_update") > before + 5)

    def query(self, promql: str) -> list[Any]:
        page = self.fetch(f"http://prometheus:9090/api/v1/query?query={promql}")
        return list(json.loads(page)["data"]["result"]) if page else []


@pytest.fixture(scope="module")
def stack(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    keys = tmp_path_factory.mktemp("stack") / "keys"
    keyring.new(keys)
    with swarm_of_two() as (manager, worker):
        node = manager.docker("info", "--format", "{{.Swarm.NodeID}}")
        manager.docker("node", "update", "--label-add", "clew=learner", node)
        copy(images.actor, worker)
        deploy(images, keys)
        try:
            yield Stack(manager, worker)
        finally:
            manager.docker("stack", "rm", STACK)
            volumes = [f"{STACK}_{name}" for name in ("runs", "prometheus", "grafana")]
            until(lambda: not manager.docker("ps", "--quiet", "--filter", f"name=^{STACK}_"))
            until(
                lambda: (
                    subprocess.run(["docker", "volume", "rm", "--force", *volumes], capture_output=True).returncode == 0
                )
            )


def copy(image: str, engine: Engine) -> None:
    """An image that no registry has."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
        load = ["docker", "--host", engine.host, "load", "--quiet"]
        subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True, timeout=COPY_S)


def deploy(images: Images, keys: Path) -> None:
    """Deploys the stack, as deploy/README.md says."""
    command = [
        "docker",
        "stack",
        "deploy",
        "--compose-file",
        "deploy/swarm.yaml",
        "--resolve-image",
        "never",
        STACK,
    ]
    settings = {"ACTOR_IMAGE": images.actor, "LEARNER_IMAGE": images.learner, "KEYS": str(keys), **SMALL}
    subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, check=True, capture_output=True, timeout=60)


def test_actors_on_both_nodes_work_for_the_learner(stack: Stack) -> None:
    stack.trains(actors=2)
    assert len(stack.containers(stack.manager, "actor")) == len(stack.containers(stack.worker, "actor")) == 1


def test_prometheus_sees_the_actors_of_both_nodes(stack: Stack) -> None:
    until(lambda: len(stack.query("up%7Bjob=%22clew-actor%22%7D==1")) == 2)


def test_a_killed_learner_comes_back_and_goes_on_from_its_checkpoint(stack: Stack) -> None:
    stack.trains(actors=2)
    [former] = stack.containers(stack.manager, "learner")
    update = stack.metric("clew_learner_update")
    stack.manager.docker("kill", former)
    until(lambda: stack.metric("clew_learner_update") >= 0)
    assert stack.containers(stack.manager, "learner") != [former]
    assert stack.metric("clew_learner_update") >= update - CHECKPOINT_EVERY
    stack.trains(actors=2)


def test_a_node_that_is_drained_hands_its_actor_to_another(stack: Stack) -> None:
    node = stack.worker.docker("info", "--format", "{{.Swarm.NodeID}}")
    stack.manager.docker("node", "update", "--availability", "drain", node)
    until(lambda: not stack.containers(stack.worker, "actor"))
    stack.trains(actors=2)
    assert len(stack.containers(stack.manager, "actor")) == 2
