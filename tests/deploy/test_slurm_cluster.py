"""Learner and actors as jobs of a real Slurm of two nodes, submitted as the script's own comments say."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.deploy.test_slurm import SCRIPT, TEXT
from tests.parts.engine import BUILD_S, CHECKPOINT_EVERY, SMALL, Images, docker, run, until
from tests.parts.parties import page

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(2_700)]

IMAGE = "clew-slurm:test"
NO_MIRROR = re.compile(r"code: 75\b")  # as tests/parts/slurm/Dockerfile says it
METRICS_PORT = 7779
ELEMENTS = 3
SECONDS = 10.0  # "within seconds", on a machine that has other things to do as well
LEARNER, ELEMENT = "clew-learner", "clew-actor"


def commands() -> tuple[str, str]:
    """Returns the command for the array, and the one for the learner."""
    comments = re.sub("^# ?", "", TEXT, flags=re.MULTILINE)
    array, learner = re.findall(r"^  (sbatch (?:.*\\\n)*.*)$", comments, re.MULTILINE)
    return array.replace("1-64", f"1-{ELEMENTS}").replace("login1", "node1"), learner


class Cluster:
    """The cluster, as its users see it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._port = ""  # on this machine, of the learner's metrics

    def container(self, node: str) -> str:
        return f"{self._name}-{node}"

    def start(self, node: str, *options: object) -> None:
        names = ("--name", self.container(node), "--hostname", node, "--network", self._name)
        where = ("--network-alias", node, "--volume", f"{self._name}:/shared")
        docker("run", "-d", "--init", *names, *where, *options, IMAGE)

    def attempt(self, script: str, **settings: object) -> subprocess.CompletedProcess[str]:
        """What somebody without any rights enters on the first node."""
        given = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
        container = self.container("node1")
        return run("docker", "exec", "--user", "10001:10001", *given, container, "bash", "-euc", script)

    def enter(self, script: str, **settings: object) -> str:
        """The same; it must succeed."""
        result = self.attempt(script, **settings)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def submit(self, command: str, **settings: object) -> str:
        """The job's number."""
        return self.enter(command, **{**SMALL, **settings}).removeprefix("Submitted batch job ")

    def nodes(self, state: str) -> int:
        """So many nodes are in it. A node that answers nothing has a star behind its state."""
        return self.attempt("sinfo --noheader --Node --format=%T").stdout.split().count(state)

    def running(self, name: str = ELEMENT) -> dict[str, str]:
        """The node of every job or element of that name."""
        lines = self.enter(f"squeue --noheader --array --states=RUNNING --name={name} --format='%i %N'")
        return dict(line.split() for line in lines.splitlines())

    def outcome(self, job: str) -> tuple[str, str]:
        """Once it is over: its state, and EXITCODE:SIGNAL. Whom a signal has killed has 0:15, or 0:9."""
        until(lambda: job not in self.enter("squeue --noheader --array --format=%i").split())
        shown = self.enter(f"scontrol --oneliner show job {job}")
        return re.findall(r" JobState=(\w+)", shown)[0], re.findall(r" ExitCode=(\S+)", shown)[0]

    def metric(self, name: str) -> int:
        """Returns a metric of the learner; -1 where none answers."""
        self._port = self._port or docker("port", self.container("node1"), METRICS_PORT).split(":")[-1]
        try:
            _, text = page(f"127.0.0.1:{self._port}", "/metrics")
        except (OSError, http.client.HTTPException):
            return -1
        found = re.search(rf"^clew_learner_{name} (\S+)$", text, re.MULTILINE)
        return int(float(found[1])) if found else -1

    def trains(self, actors: int) -> None:
        """Waits until so many actors are there, and updates are made."""
        until(lambda: self.metric("actors") == actors)
        before = self.metric("update")
        until(lambda: self.metric("update") > before + 5)


@pytest.fixture(scope="module")
def image(images: Images) -> Iterator[str]:
    """Clew's, and Slurm."""
    base = f"CLEW_IMAGE={images.learner}"
    command = ("docker", "build", "--force-rm", "--build-arg", base, "-t", IMAGE, "tests/parts/slurm")
    result = run(*command, timeout_s=BUILD_S)
    if NO_MIRROR.search(result.stderr):
        pytest.skip("no mirror of Debian's packages can be reached from a build")
    assert result.returncode == 0, result.stdout + result.stderr
    yield IMAGE
    docker("rmi", IMAGE)


@pytest.fixture(scope="module")
def cluster(image: str) -> Iterator[Cluster]:
    """Makes a cluster with a learner on its first node, and actors on both."""
    name = f"clew-slurm-{secrets.token_hex(3)}"
    with ExitStack() as undo:
        for kind in ("network", "volume"):
            docker(kind, "create", name)
            undo.callback(docker, kind, "rm", name)
        system = Cluster(name)
        for node, options in (("node1", ("--publish", f"127.0.0.1::{METRICS_PORT}")), ("node2", ())):
            undo.callback(run, "docker", "rm", "--force", system.container(node))
            system.start(node, *options)
        until(lambda: system.nodes("idle") == 2)
        docker("cp", SCRIPT, f"{system.container('node1')}:/shared/actors.sbatch")
        system.enter("clew keys new keys")
        array, learner = commands()
        system.submit(learner)
        system.submit(array)
        yield system


def test_the_elements_join_from_both_nodes_and_updates_are_made(cluster: Cluster) -> None:
    cluster.trains(actors=ELEMENTS)
    assert set(cluster.running().values()) == {"node1", "node2"}
    assert list(cluster.running(LEARNER).values()) == ["node1"]


def test_what_slurm_takes_away_comes_back_under_its_name(cluster: Cluster) -> None:
    """The node of some is lost; then what is left is requeued, as for preemption."""
    cluster.trains(actors=ELEMENTS)
    elements = cluster.running()
    left = [element for element, node in elements.items() if node == "node1"]
    docker("kill", cluster.container("node2"))
    cluster.trains(actors=len(left))
    cluster.enter(f"scontrol requeue {','.join(left)}")
    until(lambda: cluster.metric("actors") == 0)
    cluster.trains(actors=ELEMENTS)
    assert cluster.running() == dict.fromkeys(elements, "node1")
    for element in elements:
        log = cluster.enter(f"cat clew-actor-{element}.log")
        assert len(re.findall(rf"actor=actor-{element} \| the actor works for the learner", log)) == 2
    docker("start", cluster.container("node2"))
    until(lambda: cluster.nodes("idle") == 1)


def test_an_element_that_is_cancelled_or_whose_time_is_up_ends_well_within_seconds(cluster: Cluster) -> None:
    """Slurm's --signal=B:… sends as `scancel --batch` does: to the script alone."""
    cluster.trains(actors=ELEMENTS)
    cancelled, timed_out, *_ = cluster.running()
    cluster.enter(f"scancel {cancelled}")
    until(lambda: cluster.metric("actors") == ELEMENTS - 1, SECONDS)
    cluster.enter(f"scancel --signal=TERM --batch {timed_out}")
    until(lambda: cluster.metric("actors") == ELEMENTS - 2, SECONDS)
    assert cluster.outcome(cancelled) == ("CANCELLED", "0:0")
    assert cluster.outcome(timed_out) == ("COMPLETED", "0:0")
    cluster.trains(actors=ELEMENTS - 2)


def test_a_learner_that_is_requeued_goes_on_from_its_checkpoint(cluster: Cluster) -> None:
    actors = len(cluster.running())
    cluster.trains(actors)
    before, [job] = cluster.metric("update"), cluster.running(LEARNER)
    cluster.enter(f"scontrol requeue {job}")
    until(lambda: cluster.metric("update") < 0)
    cluster.trains(actors)
    again = cluster.metric("update") - cluster.metric("updates_total")
    assert again > before - CHECKPOINT_EVERY
    assert len(re.findall("listening on", cluster.enter(f"cat slurm-{job}.out"))) == 2
    journal = cluster.enter("cat runs/clew/updates.jsonl").splitlines()[:again]
    assert [json.loads(line)["update"] for line in journal] == list(range(1, again + 1))


def test_at_the_end_of_a_run_every_job_has_completed(cluster: Cluster) -> None:
    [former], elements = cluster.running(LEARNER), cluster.running()
    cluster.enter(f"scancel {former}")
    assert cluster.outcome(former) == ("CANCELLED", "0:0")
    _, command = commands()
    job = cluster.submit(command.replace("runs/clew", "runs/short"), CLEW_RUN__UPDATES=50)
    for one in (job, *elements):
        assert cluster.outcome(one) == ("COMPLETED", "0:0")
    assert len(cluster.enter("cat runs/short/updates.jsonl").splitlines()) == 50
