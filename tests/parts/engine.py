"""A real Docker engine: the images of this checkout, and the composed system, brought up once for all tests."""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.whole.test_network import free_ports

CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
BUILD_S = 1_800.0  # for what runs longest: torch is fetched and unpacked
STEP_S = 120.0  # for anything else that an engine is told
CHECKPOINT_EVERY = 20
SMALL = {  # mazes, and no end to them
    "CLEW_MAZE__SIDE": "5",
    "CLEW_MAZE__MIN_DISTANCE": "2",
    "CLEW_INNER__STEPS": "1",
    "CLEW_RUN__HORIZON_PER_CELL": "1",
    "CLEW_RUN__MAZES": "4",
    "CLEW_RUN__MAZES_PER_LEASE": "2",
    "CLEW_RUN__UPDATES": "1000000",
    "CLEW_RUN__CHECKPOINT_EVERY": str(CHECKPOINT_EVERY),
}


def run(
    *command: object, env: dict[str, str] | None = None, timeout_s: float = STEP_S, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """A command, whatever comes of it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLEW_")}
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=clean | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def docker(*arguments: object, timeout_s: float = STEP_S) -> str:
    """Returns what `docker` prints; it must succeed."""
    result = run("docker", *arguments, timeout_s=timeout_s)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def inspect(thing: str) -> Any:
    """All that the engine knows of a container, an image, a network."""
    return json.loads(docker("inspect", thing))[0]


def bridge() -> str:
    """The address at which containers on the default network find this machine."""
    network = inspect("bridge")["IPAM"]["Config"][0]  # an engine that was started again names no gateway
    return str(network.get("Gateway") or ip_network(network["Subnet"])[1])


def until(holds: Callable[[], object], within_s: float = STEP_S) -> None:
    """Asks again and again, not so often that asking takes the cores away from what is waited for."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.3)


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine; without one the test is skipped."""
    if not shutil.which("docker"):
        pytest.skip("there is no `docker` command here")
    result = run("docker", "info", "--format", "{{.ServerVersion}}")
    if result.returncode:
        pytest.skip(f"no Docker engine answers: {result.stderr.strip() or result.stdout.strip()}")


@pytest.fixture(scope="session")
def torch_index() -> str:
    """Returns the index of torch's CPU wheels if it can be reached; else nothing, so that pip looks by itself."""
    try:
        urllib.request.urlopen(f"{CPU_WHEELS}/torch/", timeout=5).close()
    except OSError:
        return ""
    return CPU_WHEELS


def build(target: str, tag: str, torch_index: str, context: Path = ROOT) -> str:
    """The id of the image. Docker's own cache makes it quick."""
    file = context / "deploy" / "Dockerfile"
    index = f"TORCH_INDEX={torch_index}"
    command = ("build", "-f", file, "--target", target, "--build-arg", index, "-t", tag, context)
    docker(*command, timeout_s=BUILD_S)
    return str(inspect(tag)["Id"])


@dataclass(frozen=True)
class Images:
    """The tags of the images."""

    actor: str
    learner: str
    page: str


@pytest.fixture(scope="session")
def images(engine: None, torch_index: str) -> Images:
    """Builds the images of this checkout, which stay as a cache."""
    tags = Images("clew-actor:test", "clew-learner:test", "clew-page:test")
    build("actor", tags.actor, torch_index)
    build("learner", tags.learner, torch_index)
    build("page", tags.page, torch_index)
    return tags


@dataclass(frozen=True)
class Composed:
    """A project of Docker Compose."""

    project: str
    environment: dict[str, str]
    services: tuple[str, ...]
    files: tuple[str, ...] = ("compose.yaml",)

    def attempt(self, *arguments: object, timeout_s: float = STEP_S) -> subprocess.CompletedProcess[str]:
        """`docker compose …`, whatever comes of it."""
        files = [word for file in self.files for word in ("-f", file)]
        command = ("docker", "compose", *files, "-p", self.project, *arguments)
        return run(*command, env=self.environment, timeout_s=timeout_s)

    def compose(self, *arguments: object, timeout_s: float = STEP_S) -> str:
        """Returns what `docker compose …` prints; it must succeed."""
        result = self.attempt(*arguments, timeout_s=timeout_s)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def up(self, actors: int = 2) -> None:
        """All of it runs and is healthy when this returns."""
        self.compose("up", "-d", "--wait", "--scale", f"actor={actors}", *self.services, timeout_s=2 * STEP_S)

    def down(self, *arguments: object) -> None:
        self.compose("down", "--timeout", 30, *arguments)

    def containers(self, service: str) -> list[str]:
        """Lists the containers of a service that run."""
        return self.compose("ps", "-q", service).split()

    def logs(self, service: str) -> list[str]:
        return self.compose("logs", "--no-color", "--no-log-prefix", service).splitlines()

    def crash(self, container: str) -> None:
        """Kills clew in it, as the kernel does where memory is short. `docker kill` would count as the user's wish."""
        run("docker", "exec", container, "sh", "-c", "kill -9 -1")

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Prometheus' instant query: a metric and a value, [seconds, text], each."""
        port, wanted = self.environment["PROMETHEUS_PORT"], urllib.parse.urlencode({"query": promql})
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{wanted}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    @property
    def scraped(self) -> list[str]:
        """The jobs that Prometheus has scraped in the last 20 s, in order, one for each address.

        A plain `up` also counts whatever was there before `down` and `up`, for five minutes.
        """
        return sorted(one["metric"]["job"] for one in self.query("up == 1 and timestamp(up) > time() - 20"))

    def learner_metrics(self) -> dict[str, float]:
        """Returns the learner's metrics of this moment, by name: `name` or `name{label="value"}`."""
        fetch = "from urllib.request import urlopen as u; print(u('http://127.0.0.1:9100/metrics').read().decode())"
        page = self.compose("exec", "-T", "learner", "python", "-c", fetch)
        lines = (line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    @property
    def update(self) -> int:
        """The updates of the run that are done."""
        return int(self.learner_metrics()["clew_learner_update"])

    @property
    def actors(self) -> int:
        """Counts the actors, as the learner does."""
        return int(self.learner_metrics()["clew_learner_actors"])

    def trains(self) -> None:
        """Waits for updates to be made."""
        before = self.update
        until(lambda: self.update > before + 5)


def can_have(image: str) -> bool:
    """Says whether an image is here, or can be pulled."""
    if run("docker", "image", "inspect", image).returncode == 0:
        return True
    try:
        return run("docker", "pull", "-q", image).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def new_project(images: Images, torch_index: str) -> Composed:
    """One of its own, on ports that are free. Grafana is left out where its image cannot be had."""
    work, watch = free_ports(), free_ports()
    environment = SMALL | {
        "ACTOR_IMAGE": images.actor,
        "LEARNER_IMAGE": images.learner,
        "PAGE_IMAGE": images.page,
        "TORCH_INDEX": torch_index,
        "LEARNER_PORT": str(work),
        "THETA_PORT": str(work + 1),
        "PROMETHEUS_PORT": str(watch),
        "GRAFANA_PORT": str(watch + 1),
        "PAGE_PORT": str(watch + 2),
    }
    project = Composed(f"clew-test-{secrets.token_hex(3)}", environment, ())
    services = json.loads(project.compose("config", "--format", "json"))["services"]
    wanted = tuple(name for name in services if name != "grafana" or can_have(services[name]["image"]))
    return Composed(project.project, environment, wanted)


@pytest.fixture(scope="session")
def composed(images: Images, torch_index: str) -> Iterator[Composed]:
    """The whole of compose.yaml, healthy and training. Whoever changes it leaves it so."""
    project = new_project(images, torch_index)
    try:
        project.compose("build", timeout_s=BUILD_S)
        project.up()
        yield project
    finally:
        project.down("--volumes")
