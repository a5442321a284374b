"""What the pods run, on volumes that are laid out and changed as the kubelet does it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.command import keys as keyring
from tests.deploy.test_cli import ENDLESS, wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.manifests import PODS, Manifest, made_by_hand, one, pod
from tests.parts.parties import Party, Place, place
from tests.whole.test_network import HERE

__all__ = ["place"]  # a fixture

ACTORS = "clew_learner_actors"


def lay_out(volume: Path, files: Mapping[str, bytes]) -> None:
    """A Secret's or ConfigMap's volume. Its files change all at once: NAME -> ..data/NAME, ..data -> ..TIME, and the
    latter link is replaced (pkg/volume/util/atomic_writer.go of Kubernetes).
    """
    volume.mkdir(exist_ok=True)
    former = [path for path in volume.iterdir() if path.name.startswith("..") and not path.is_symlink()]
    new = volume / f"..{len(former) and int(former[0].name[2:]) + 1}"
    new.mkdir()
    for name, content in files.items():
        (new / name).write_bytes(content)
        (new / name).chmod(0o440)
    (volume / "..data_tmp").symlink_to(new.name)
    (volume / "..data_tmp").rename(volume / "..data")
    for name in files:
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    for path in volume.iterdir():
        if not path.name.startswith("..") and path.name not in files:
            path.unlink()
    for path in former:
        shutil.rmtree(path)


@dataclass(frozen=True)
class Pod:
    """A workload's pod. Its mounts are directories here, and its ports are free ones of this machine."""

    workload: Manifest
    place: Place
    name: str

    def start(self, *more: object) -> Party:
        """Init containers, then the container itself."""
        spec = pod(self.workload)
        for container in spec["initContainers"]:
            command = [self._here(word) for word in container["command"]]
            subprocess.run(command, check=True, timeout=DEADLINE_S)
        (container,) = spec["containers"]
        assert container["command"] == ["clew"]
        return self.place.start(*map(self._here, container["args"]), *more, name=self.name)

    def volume(self, name: str) -> Path:
        """Returns a volume of this pod, a directory that is empty at first."""
        path = self.place.folder / f"{self.name}-{name}"
        path.mkdir(exist_ok=True)
        return path

    def _here(self, text: str) -> str:
        """Translates a container's words to this machine."""
        spec, address = pod(self.workload), f"{HERE}:{self.place.port}"
        mounts = [mount for each in (*spec["initContainers"], *spec["containers"]) for mount in each["volumeMounts"]]
        here = {each["mountPath"]: str(self.volume(each["name"])) for each in mounts}
        here |= {
            "0.0.0.0:7777": address,
            "learner:7777": address,
            "0.0.0.0": HERE,
            "9100": "0",
            "$(POD_NAME)": self.name,
        }
        pattern = "|".join(rf"(?<!\w){re.escape(word)}" for word in here)
        return re.sub(pattern, lambda match: here[match[0]], text)

    def probe(self, party: Party, name: str) -> bool:
        """Says whether a probe succeeds."""
        (container,) = pod(self.workload)["containers"]
        return party.page(container[f"{name}Probe"]["httpGet"]["path"])[0] == 200


class Cluster:
    """Keys, and the volumes that are made of them."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.keys = place.folder / "keys"
        keyring.new(self.keys)
        self.learner = Pod(PODS["learner"], place, "learner-0")
        lay_out(self.learner.volume("secret"), self._made("learner-keys"))
        self.update_allowed()

    def _made(self, name: str) -> dict[str, bytes]:
        return made_by_hand(self._place.folder)[name]

    def update_allowed(self) -> None:
        lay_out(self.learner.volume("allowed"), self._made("allowed"))

    def actor(self, key: str) -> Pod:
        """Makes an actor whose Secret was made of that key."""
        one = Pod(PODS["actor"], self._place, f"actor-{key}")
        lay_out(one.volume("secret"), {path.name: path.read_bytes() for path in (self.keys / key).iterdir()})
        return one


@pytest.fixture
def cluster(place: Place) -> Cluster:
    return Cluster(place)


@pytest.mark.slow
def test_the_pods_work_together_and_a_learner_is_told_live_who_may_connect(cluster: Cluster) -> None:
    learner = cluster.learner.start(*ENDLESS)
    actor = cluster.actor("actor").start()
    wait_until(lambda: learner.metric(ACTORS) == 1)

    keyring.add("bob", cluster.keys)
    bob_pod = cluster.actor("bob")
    bob = bob_pod.start()
    bob.says("the learner refused this actor's key")
    cluster.update_allowed()
    wait_until(lambda: learner.metric(ACTORS) == 2)

    keyring.revoke("bob", cluster.keys)
    cluster.update_allowed()
    wait_until(lambda: learner.metric(ACTORS) == 1 and not bob.works())
    assert bob_pod.probe(bob, "liveness")
    wait_until(actor.works)
    assert not any("lets nobody in" in line or "cannot read" in line for line in learner.lines())


@pytest.mark.slow
def test_probes_restart_no_actor_for_its_learner_and_a_learner_goes_on_on_its_volume(
    cluster: Cluster,
) -> None:
    pod_ = cluster.actor("actor")
    actor = pod_.start()
    wait_until(lambda: not pod_.probe(actor, "readiness"))
    assert pod_.probe(actor, "liveness")

    learner = cluster.learner.start(*ENDLESS)
    learner.says("listening on")
    wait_until(lambda: all(cluster.learner.probe(learner, name) for name in ("startup", "readiness", "liveness")))
    wait_until(lambda: pod_.probe(actor, "readiness") and learner.metric("clew_learner_update") >= 3)
    learner.process.send_signal(signal.SIGTERM)
    learner.ends()
    wait_until(lambda: not pod_.probe(actor, "readiness"))
    assert pod_.probe(actor, "liveness")

    again = cluster.learner.start(*ENDLESS)  # as after an eviction, the volumes as they were
    again.says("listening on")
    wait_until(lambda: again.metric("clew_learner_updates_total") >= 1)
    assert again.metric("clew_learner_update") > again.metric("clew_learner_updates_total") >= 1
    actor.process.send_signal(signal.SIGTERM)
    actor.ends()


def test_the_key_files_are_closed_to_others_and_stand_where_clew_looks(cluster: Cluster) -> None:
    for pod_, names in (
        (cluster.learner, {"learner.key_secret"}),
        (cluster.actor("actor"), {"actor.key_secret", "learner.key"}),
    ):
        for _ in range(2):  # again where the node has restarted
            party = pod_.start()
            party.process.kill()
        files = [path for path in pod_.volume("keys").iterdir() if not path.is_symlink()]
        assert {path.name for path in files} == names
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    link = cluster.learner.volume("keys") / "allowed"
    assert os.listdir(link) == os.listdir(cluster.learner.volume("allowed"))


def test_the_learner_exports_all_that_the_autoscaler_asks_for(cluster: Cluster) -> None:
    learner = cluster.learner.start(*ENDLESS)
    (trigger,) = one("ScaledObject", "actor")["spec"]["triggers"]
    asked = re.findall(r'(clew_\w+)\{namespace="clew",?([^}]*)\}', trigger["metadata"]["query"])
    assert len(asked) == 2
    for name, labels in asked:
        assert learner.metric(f"{name}{{{labels}}}" if labels else name) >= 0
