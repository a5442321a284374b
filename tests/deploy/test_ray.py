"""Actors on a real Ray cluster of two nodes, on this machine: whatever becomes of a node, theta comes out the same."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deploy.command import keys as keyring
from protocol.config import Config
from protocol.wire.frames import Limits, encode
from protocol.wire.learner_links import LearnerLinks
from protocol.wire.messages import Bye
from tests import ROOT
from tests.deploy.test_cli import ENVIRONMENT, assert_refused, clew, wait_until
from tests.parts.parties import RUN, Party, Place, metric, new_place, place
from tests.parts.proxy import Proxy
from tests.whole.test_network import HERE
from tests.whole.test_operations import targets

__all__ = ["place"]  # a fixture

DEADLINE_S = 200.0  # Ray's processes take seconds to start and as long to be missed, on busy cores minutes
STOPPED_S = 10.0  # from the signal until no actor works any more
PACE_S = 0.2  # each way: the run is not over before another actor has taken a lost one's place
UPDATES = 300  # for the same reason
WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from deploy.cli import main; main()"
NODE = {"num_cpus": 2, "object_store_memory": 80 << 20}  # logical ones: a node can hold both actors


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without work, and two nodes."""
    from ray import cluster_utils as utils

    with (
        # Its name is short: sockets are in it.
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("PYTHONPATH", str(ROOT))
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_TMPDIR", folder)  # else, for some of its files, /tmp/ray, which need not be there
        head = NODE | {"num_cpus": 0, "include_dashboard": False}
        one = utils.Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                one.add_node(**NODE)
            yield one
        finally:
            one.shutdown()


def ends(party: Party, code: int = 0) -> None:
    assert party.process.wait(DEADLINE_S) == code, party.lines()


def launch(place: Place, cluster: Any, *arguments: object) -> Party:
    """`clew ray` with two actors, by way of the proxies where there are some."""
    return place.start("ray", "--address", cluster.address, "--actors", 2, *arguments)


def nodes_at_work(cluster: Any) -> list[str]:
    """The node of every actor that lives."""
    actors = cluster.global_state.actor_table(None, None, "ALIVE").values()
    return [actor["Address"]["NodeID"] for actor in actors]


def actors_of(learner: Party) -> float:
    return learner.metric("clew_learner_actors")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Theta after every update of the same run with `clew train`."""
    with new_place(tmp_path_factory.mktemp("quiet")) as one:
        ends(one.start("train", *RUN, "--updates", UPDATES, "--actors", 2))
        return one.hashes(UPDATES)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_node_that_is_lost_costs_nothing_but_time(cluster: Any, place: Place, quiet: list[object]) -> None:
    keys = place.folder / "keys"
    keyring.new(keys)
    links = place.between(Proxy)
    for link in links:
        link.delay_s = PACE_S
    learner = place.learner("--updates", UPDATES, "--keys", keys / "learner")
    launcher = launch(place, cluster, "--connect", place.detour, "--keys", keys / "actor")
    wait_until(lambda: actors_of(learner) == 2 and len(place.updates()) >= 2, DEADLINE_S)

    lost, other = nodes_at_work(cluster)
    assert lost != other
    [node] = [one for one in cluster.worker_nodes if one.node_id == lost]
    cluster.remove_node(node, allow_graceful=False)
    wait_until(lambda: actors_of(learner) < 2, DEADLINE_S)
    wait_until(lambda: actors_of(learner) == 2, DEADLINE_S)
    wait_until(lambda: nodes_at_work(cluster) == [other, other], DEADLINE_S)
    before = len(place.updates())
    wait_until(lambda: len(place.updates()) > before + 1, DEADLINE_S)
    assert learner.process.poll() is None

    for link in links:
        link.delay_s = 0.0
    ends(learner)
    ends(launcher)
    assert place.hashes(UPDATES) == quiet


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_its_actors_are_found_like_any_others_and_stop_with_it(cluster: Any, place: Place) -> None:
    learner = place.learner("--updates", 1_000_000)
    launcher = launch(place, cluster, "--connect", place.address, "--metrics-host", HERE)
    wait_until(lambda: actors_of(learner) == 2, DEADLINE_S)
    for target in targets(f"{HERE}:{learner.port}"):
        wait_until(lambda target=target: metric(target, "clew_actor_leases_total") > 0, DEADLINE_S)  # type: ignore[misc]
    wait_until(lambda: len(targets(f"{HERE}:{learner.port}")) == 2, DEADLINE_S)  # not if one starts over just now
    launcher.process.terminate()
    wait_until(lambda: actors_of(learner) == 0, STOPPED_S)
    ends(launcher)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_refusal_of_one_actor_ends_it_with_that_sentence(cluster: Any, place: Place) -> None:
    limits = Limits.of(Config())
    with closing(LearnerLinks(place.address, limits)) as links:
        launcher = launch(place, cluster, "--connect", place.address)
        received = links.receive(DEADLINE_S)
        assert received
        links.send(received[0], encode(Bye("refused", "no")))
        ends(launcher, 2)
    assert launcher.lines()[-1] == "clew: the learner refused this actor: no"


def test_where_ray_cannot_be_used_one_line_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_RAY, *("ray", "--connect", "ipc://nobody", "--actors", "2")]
    result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert_refused(result, re.escape("pip install 'clew[ray]'"))


@pytest.mark.ray
@pytest.mark.parametrize("address", ["nonsense", f"{HERE}:1", f"ray://{HERE}:1"])
def test_where_no_cluster_is_one_line_says_how_to_start_one_at_once(tmp_path: Path, address: str) -> None:
    """Ray itself tries an address where nobody listens for minutes."""
    arguments = ("ray", "--connect", "ipc://nobody", "--actors", 2, "--address", address)
    assert_refused(clew(*arguments, folder=tmp_path), f"{re.escape(repr(address))}.*ray start --head")
