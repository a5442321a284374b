"""Nobody stops the learner: peers that name themselves, flood, hoard, or come in crowds, on real sockets."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import numpy as np
import pytest

from deploy.command import keys as keyring
from learner.clerk import Clerk
from learner.reception import LINES_AT_ONCE
from protocol.learning.inner import initial_theta
from protocol.wire import descriptors
from protocol.wire.actor_links import ActorLinks
from protocol.wire.address import metrics_target
from protocol.wire.frames import Limits, encode
from protocol.wire.keys import ActorKeys, LearnerKeys
from protocol.wire.learner_links import TOPICS, LearnerLinks
from protocol.wire.messages import CONTRACT, Bye, Hello
from tests import ROOT
from tests.deploy.test_cli import ENDLESS, wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.parties import RUN, Party, Place, page, place
from tests.protocol.test_links import until
from tests.whole.test_network import HERE
from tests.whole.test_processes import House, Impostor, house, impostor, with_run
from tests.whole.test_security import GREETING, files

__all__ = ["house", "impostor", "place"]  # fixtures

LIMITS = Limits(frame_bytes=10_000)
GROWTH_MB = 150.0  # of a process that a crowd does its worst to
LIARS = 24


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    keyring.new(folder)
    keyring.add("ann", folder)
    return folder


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


# Names

NEXT_NAME = """
import sys, zmq
from pathlib import Path
from contextlib import closing
from protocol.wire.frames import Limits
from protocol.wire.keys import ActorKeys, LearnerKeys
from protocol.wire.learner_links import LearnerLinks
keys = Path(sys.argv[1])
mine = ActorKeys.of(keys / "ann")
def peer(name=b""):
    link = zmq.Context.instance().socket(zmq.DEALER)
    link.set(zmq.LINGER, 0)
    link.set(zmq.CURVE_PUBLICKEY, mine.public)
    link.set(zmq.CURVE_SECRETKEY, mine.secret)
    link.set(zmq.CURVE_SERVERKEY, mine.learner)
    if name:
        link.set(zmq.ROUTING_ID, name)
    link.connect(str(learner.address))
    link.send(b"hello")
    return link
with closing(LearnerLinks("tcp://127.0.0.1:*", Limits(10_000), LearnerKeys.of(keys / "learner"))) as learner:
    first = peer()
    name = learner.receive(30.0).actor
    number = int.from_bytes(name[1:5], "big")
    thieves = [peer(b"\\0" + (number + ahead).to_bytes(4, "big")) for ahead in range(1, 4)]
    named = [learner.receive(30.0) for thief in thieves]
    honest = [peer() for _ in range(5)]
    named += [learner.receive(30.0) for one in honest]
    assert len({one.actor for one in named}) == 8, named
    print(*[one.actor.decode() for one in named])
zmq.Context.instance().destroy(0)
"""


def python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_peer_that_takes_the_name_of_the_next_connection_ends_nobody(keys: Path) -> None:
    result = python(NEXT_NAME, keys)
    assert result.returncode == 0, result.stderr  # -6: aborted by libzmq
    assert all(name.startswith("ann/") for name in result.stdout.split())


FIRST_NAME = """
from contextlib import closing
from protocol.wire.frames import Limits
from protocol.wire.actor_links import ActorLinks
from protocol.wire.learner_links import LearnerLinks
with closing(LearnerLinks("tcp://127.0.0.1:*", Limits(10_000))) as learner:
    with closing(ActorLinks(str(learner.address))) as actor:
        actor.send([b"hello"])
        print(learner.receive(30.0).actor.hex())
"""


def test_without_keys_the_names_of_connections_begin_at_another_number_in_every_process() -> None:
    names = {python(FIRST_NAME).stdout for _ in range(2)}
    assert len(names) == 2


def test_a_connection_has_the_name_of_its_key_however_busy_the_machine_is(keys: Path) -> None:
    """libzmq takes the last name that it is told: the door's must come after the peer's own."""
    over = threading.Event()
    busy = [threading.Thread(target=lambda: [None for _ in iter(over.is_set, True)]) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        with closing(LearnerLinks(f"tcp://{HERE}:*", LIMITS, LearnerKeys.of(keys / "learner"))) as learner:
            for _ in range(20):
                with closing(ActorLinks(str(learner.address), ActorKeys.of(keys / "ann"))) as actor:
                    assert actor.send([b"hello"])
                    received = learner.receive(60.0)
                    assert received
                    assert received.key == "ann"
    finally:
        over.set()
        for thread in busy:
            thread.join()


def test_a_refusal_names_actor_key_and_host(place: Place, keys: Path) -> None:
    learner = place.learner(*ENDLESS, "--keys", keys / "learner")
    with closing(ActorLinks(place.address, ActorKeys.of(keys / "ann"))) as liar:
        assert liar.send(encode(Hello(CONTRACT, "mallory", 0, "")))
        assert liar.send([b"\xc1"])
        learner.says(r"message refused reason=header count=1 actor=mallory key=ann host=127.0.0.1")
    other = keys / "other"
    keyring.new(other)
    shutil.copy(keys / "ann" / "learner.key", other / "actor" / "learner.key")
    with closing(ActorLinks(place.address, ActorKeys.of(other / "actor"))) as stranger:
        until(lambda: stranger.receive(0.01) or stranger.trouble)
    learner.says(r"message refused reason=key count=1 host=127.0.0.1")


# Floods


def test_with_keys_theta_reaches_whoever_follows(tmp_path: Path) -> None:
    keyring.new(tmp_path / "keys")
    mine, theirs = LearnerKeys.of(tmp_path / "keys" / "learner"), ActorKeys.of(tmp_path / "keys" / "actor")
    with (
        closing(LearnerLinks(f"tcp://{HERE}:*", LIMITS, mine)) as learner,
        closing(ActorLinks(str(learner.address), theirs)) as actor,
    ):
        actor.send([b"hello"])
        until(lambda: actor.receive(0.01) or actor.connection)
        actor.follow(learner.theta_port)

        def arrives() -> bool:
            learner.publish([b"theta"])
            return [b"theta"] in actor.receive(0.01)

        until(arrives)


@pytest.mark.parametrize("topic_bytes", [20, 240])
def test_a_flood_of_topics_takes_no_memory_and_theta_still_reaches_whoever_follows(
    topic_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    properties = b"\x05READY\x0bSocket-Type\0\0\0\x03SUB"
    ready = b"\x04" + bytes([len(properties)]) + properties

    def flood(port: int, stop: threading.Event) -> None:
        rng = np.random.default_rng(0)
        while not stop.is_set():
            with suppress(OSError), socket.create_connection((HERE, port)) as peer:  # hung up on, or not read from
                peer.settimeout(0.5)
                peer.sendall(GREETING + ready)
                while not stop.is_set():
                    head = bytes([0, topic_bytes + 1, 1])
                    peer.sendall(b"".join(head + rng.bytes(topic_bytes) for _ in range(1_000)))

    stop = threading.Event()
    with (
        closing(LearnerLinks(f"tcp://{HERE}:*", LIMITS)) as learner,
        closing(ActorLinks(str(learner.address))) as actor,
    ):
        flooder = threading.Thread(target=flood, args=(learner.theta_port, stop))
        before_mb = resident_mb()
        flooder.start()
        try:
            actor.send([b"hello"])
            until(lambda: actor.receive(0.01) or actor.connection)
            actor.follow(learner.theta_port)
            with caplog.at_level("WARNING", "clew"):
                while not caplog.messages:
                    learner.publish([b"theta"])
                    assert learner._theta.topics <= TOPICS

            def arrives() -> bool:
                learner.publish([b"theta"])
                return [b"theta"] in actor.receive(0.01)

            until(arrives)
        finally:
            stop.set()
            flooder.join()
    assert resident_mb() < before_mb + GROWTH_MB
    assert "topics that do not exist" in caplog.messages[0]


def sends(peer: ActorLinks, frames: Sequence[bytes]) -> None:
    """Sends a message as soon as there is room for it, and hears what comes meanwhile."""
    deadline = time.monotonic() + DEADLINE_S
    while not peer.send(frames):
        peer.receive(0.01)
        assert time.monotonic() < deadline


def test_hello_and_bye_in_turn_do_not_fill_the_log(place: Place) -> None:
    learner = place.learner(*ENDLESS)
    with closing(ActorLinks(place.address)) as peer:
        for _ in range(5 * LINES_AT_ONCE):
            for message in (Hello(CONTRACT, "peer", 0, ""), Bye("retry", "again")):
                sends(peer, encode(message))
            peer.receive(0.0)
        sends(peer, [b"\xc1"])
        learner.says("message refused reason=header")
    assert LINES_AT_ONCE <= learner.log.read_text().count("somebody looks in") < 2 * LINES_AT_ONCE


# Hoarders


def seconds(house: House, config: object, liars: list[Impostor], updates: int) -> float:
    """How long the second half of a run takes while liars say Hello again and again."""
    learner = house.learner(config)  # type: ignore[arg-type]
    for _ in range(2):
        house.actor()
    learner.until(updates // 3)
    taken = 0.0
    for update in range(updates // 3 + 1, updates + 1):
        for liar in liars:
            while liar.links.receive(0.0):
                pass
            if update % 10 == 0:
                liar.links.send(encode(Hello(CONTRACT, "liar", 2, "")))
        taken += learner.until(update).seconds
    learner.process.terminate()
    learner.ends()
    return taken


def test_a_crowd_that_takes_leases_and_never_answers_stops_nothing(
    house: House, impostor: Callable[..., Impostor]
) -> None:
    """The updates are done long before the first of the crowd's deadlines, which used to decide."""
    patient = with_run(updates=10_000, lease_timeout_s=120.0)
    crowd = [impostor() for _ in range(LIARS)]
    took_s = seconds(house, patient, crowd, updates=60)
    assert took_s < patient.run.lease_timeout_s


# Crowds of connections


def limited(place: Place, soft: int, hard: int) -> Party:
    """A learner that may have so many files open."""
    log = place.folder / "limited.log"
    run = [*RUN, *ENDLESS, "--bind", place.address, "--metrics-port", "0", "--set", "run.checkpoint_every=5"]
    command = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    with log.open("w") as errors:
        process = subprocess.Popen(
            ["bash", "-c", command, "bash", sys.executable, "-m", "deploy.cli", "learner", *map(str, run)],
            cwd=place.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    place.undo.enter_context(process)
    place.undo.callback(process.kill)
    party = Party(process, log)
    party.says("listening on")
    return party


def test_a_learner_may_open_as_many_files_as_the_system_allows(place: Place) -> None:
    learner = limited(place, soft=256, hard=4_096)
    limits = Path(f"/proc/{learner.process.pid}/limits").read_text()
    assert int(limits.partition("Max open files")[2].split()[0]) > 3_900


REHEARSED = """
import resource, sys
import numpy as np
import torch
from learner.admission import admit
from learner.outer import meta_gradient
from learner.stages import Batch
from learner.rehearsal import rehearse
from protocol.config import Config
from protocol.learning.inner import initial_theta
from protocol.learning.trial import lease_trial
from tests.parts.batches import rollouts_of
tiny = {"maze": {"family": "perfect", "side": 5, "min_distance": 2}, "inner": {"steps": 1}, "outer": {"attempts": 2}}
config = Config.model_validate({**tiny, "run": {"mazes": 8, "mazes_per_lease": 8, "horizon_per_cell": 1}})
theta_P, cpu = initial_theta(config), torch.device("cpu")
theta_P += np.linspace(-0.2, 0.2, len(theta_P), dtype=np.float32)  # with all zeros, less is needed
if sys.argv[1] == "rehearsed":
    rehearse(config, cpu)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
mazes, trial = lease_trial(theta_P, (3,), config)
told = rollouts_of(mazes, trial.walks, trial.log_probs)
meta_gradient(torch.from_numpy(theta_P), Batch.of([admit(told, config)], config, cpu), config)
"""


def test_where_no_file_can_be_opened_any_more_a_learner_goes_on_with_what_it_has_rehearsed() -> None:
    result = python(REHEARSED, "rehearsed")
    assert result.returncode == 0, result.stderr
    assert "Too many open files" in python(REHEARSED, "").stderr


def test_strangers_who_take_every_descriptor_keep_nobody_from_saving_and_from_asking(place: Place) -> None:
    learner = limited(place, soft=700, hard=700)
    place.actor()
    wait_until(lambda: len(place.updates()) > 2)
    with ExitStack() as held:

        def crowd() -> None:
            for number in range(1_000):
                peer = held.enter_context(socket.socket())
                peer.setblocking(False)
                peer.connect_ex((HERE, place.port + number % 2))

        crowd()
        wait_until(lambda: files(learner) > 700 - descriptors.SPARE - 20)
        before = learner.metric("clew_learner_updates_total")
        for goal in (before + 5, before + 10, before + 15):
            crowd()
            assert page(f"{HERE}:{learner.port}", "/healthz")[0] == 200
            wait_until(lambda goal=goal: learner.metric("clew_learner_updates_total") > goal)  # type: ignore[misc]
    assert "cannot write" not in learner.log.read_text()
    newest = sorted((place.folder / "run" / "checkpoints").glob("*.json"))[-1]
    assert int(newest.stem) > before + 5
    late = place.actor()
    wait_until(late.works)


# What other threads read


def test_a_thread_that_reads_where_the_clerk_stands_never_meets_it_half_way(tmp_path: Path) -> None:
    config = with_run(lag=0, updates=1_000_000)
    address = f"ipc://{tmp_path}/learner"
    links, theta = LearnerLinks(address, Limits.of(config)), initial_theta(config)
    clerk = Clerk(config, links, "run", 0, {0: theta})
    usual, over, seen = sys.getswitchinterval(), threading.Event(), []

    def read() -> None:
        while not over.is_set():
            standing = clerk.standing
            seen.append(sum(standing.refusals.values()) + standing.leases_missing + len(standing.targets))

    reader = threading.Thread(target=read)
    sys.setswitchinterval(1e-6)
    clerk.start()
    reader.start()
    try:
        with ExitStack() as undo:
            peers = [undo.enter_context(closing(ActorLinks(address))) for _ in range(20)]
            for port in range(1, 40):
                for number, peer in enumerate(peers):
                    peer.send(encode(Hello(CONTRACT, "peer", 1, f":{100 * port + number}")))
                    peer.receive(0.0)
                    if port % 3 == 0:
                        peer.send(encode(Bye("retry", "")))

            def some_are_there() -> bool:
                for peer in peers:
                    peer.receive(0.0)
                return len(clerk.standing.targets) > 0

            until(some_are_there)
    finally:
        over.set()
        reader.join()
        sys.setswitchinterval(usual)
        clerk.close(Bye("retry", "the test is over"))
    assert seen
    with pytest.raises(AttributeError):
        clerk.standing.actors = 0  # type: ignore[misc]


# Where Prometheus is sent


@pytest.mark.parametrize(
    ("told", "seen", "allowed", "expected"),
    [
        (":9100", "10.0.0.7", (), ("10.0.0.7:9100", False)),
        ("10.0.0.7:9100", "10.0.0.7", (), ("10.0.0.7:9100", False)),
        ("169.254.169.254:80", "10.0.0.7", (), ("10.0.0.7:80", True)),
        ("node.example:9100", "10.0.0.7", ("node.example",), ("node.example:9100", False)),
        (":9100", "fe80::1", (), ("[fe80::1]:9100", False)),
        ("[fe80::1]:9100", "fe80::1", (), ("[fe80::1]:9100", False)),
        ("[fe80::2]:9100", "fe80::1", ("[fe80::2]",), ("[fe80::2]:9100", False)),
        (":9100", "", (), ("", False)),
        (":70000", "10.0.0.7", (), ("", False)),
        (":0", "10.0.0.7", (), ("", False)),
        ("", "10.0.0.7", (), ("", False)),
    ],
)
def test_metrics_are_where_the_actor_is_seen(
    told: str, seen: str, allowed: tuple[str, ...], expected: tuple[str, bool]
) -> None:
    assert metrics_target(told, seen, False, allowed) == expected


def test_metrics_of_this_machines_actors_are_on_loopback() -> None:
    assert metrics_target(":9100", "", is_ipc=True) == ("127.0.0.1:9100", False)
