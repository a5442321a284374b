"""Both ends of both links, on real sockets."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from protocol.config import ClewError
from protocol.wire.actor_links import ActorLinks
from protocol.wire.address import MAX_IPC_PATH, Address, host_port
from protocol.wire.frames import Limits
from protocol.wire.learner_links import LearnerLinks
from protocol.wire.sockets import Frames
from tests.parts.deadline import DEADLINE_S

LIMITS = Limits(frame_bytes=10_000)


@contextmanager
def linked(bind: str) -> Iterator[tuple[LearnerLinks, ActorLinks, bytes]]:
    """Two ends that know of each other, and the actor's name."""
    with (
        closing(LearnerLinks(bind, LIMITS)) as learner,
        closing(ActorLinks(str(learner.address))) as actor,
    ):
        assert actor.send([b"hello"])
        received = learner.receive(DEADLINE_S)
        assert received
        assert received.frames == [b"hello"]
        until(lambda: actor.receive(0.01) or actor.connection)
        actor.follow(learner.theta_port)
        yield learner, actor, received.actor


def until(happens: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happens():
        assert time.monotonic() < deadline


def heard(actor: ActorLinks) -> Frames:
    """The next message."""
    deadline = time.monotonic() + DEADLINE_S
    while not (messages := actor.receive(0.1)):
        assert time.monotonic() < deadline
    return messages[0]


@pytest.fixture(params=["tcp", "ipc"])
def bind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "tcp://127.0.0.1:*" if request.param == "tcp" else f"ipc://{tmp_path}/learner"


def test_work_goes_both_ways(bind: str) -> None:
    with linked(bind) as (learner, actor, name):
        assert learner.send(name, [b"lease", b"array"])
        assert heard(actor) == [b"lease", b"array"]


def test_theta_reaches_whoever_follows(bind: str) -> None:
    with linked(bind) as (learner, actor, _):

        def arrives() -> bool:
            learner.publish([b"theta"])
            return actor.receive(0.01) == [[b"theta"]]

        until(arrives)


def test_an_actor_that_is_gone_is_noticed_at_the_next_message(bind: str) -> None:
    with linked(bind) as (learner, actor, name):
        actor.close()
        until(lambda: not learner.send(name, [b"ping"]))


def test_an_actor_that_reconnects_is_another_one(bind: str) -> None:
    with linked(bind) as (learner, _, name), closing(ActorLinks(str(learner.address))) as other:
        other.send([b"hello"])
        received = learner.receive(DEADLINE_S)
        assert received
        assert received[0] != name


def test_an_actor_waits_for_a_learner_that_comes_later(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/learner"
    with closing(ActorLinks(address)) as actor:
        assert actor.send([b"hello"])
        with closing(LearnerLinks(address, LIMITS)) as learner:
            assert learner.receive(DEADLINE_S)


def test_an_actor_notices_that_its_connection_is_gone_and_that_there_is_another(tmp_path: Path) -> None:
    with linked(f"ipc://{tmp_path}/learner") as (learner, actor, _):
        until(lambda: actor.receive(0.01) or actor.connection == 1)
        learner.close()
        until(lambda: actor.receive(0.01) or actor.connection == 0)
        with closing(LearnerLinks(f"ipc://{tmp_path}/learner", LIMITS)):
            until(lambda: actor.receive(0.01) or actor.connection == 2)


def test_what_waits_for_a_learner_is_bounded(tmp_path: Path) -> None:
    with closing(ActorLinks(f"ipc://{tmp_path}/learner")) as actor:
        assert sum(actor.send([b"hello"]) for _ in range(100)) < 10


def test_a_message_that_is_too_large_cuts_the_connection_not_the_learner(bind: str) -> None:
    with linked(bind) as (learner, actor, name):
        actor.send([b"x" * (2 * LIMITS.frame_bytes + 1)])
        until(lambda: not learner.send(name, [b"ping"]))
        assert learner.receive(0.0) is None


HOSTS = "127.0.0.1 localhost both\n::1 only6 both\n"
CONNECT = """
import sys, time
from protocol.wire.actor_links import ActorLinks
actor = ActorLinks(sys.argv[1])
while not actor.connection:
    actor.receive(0.1)
actor.send([b"hello"])
actor.follow(int(sys.argv[2]))
while not actor.receive(0.1):
    pass
actor.close()
"""


@pytest.mark.parametrize(
    ("bind", "name"), [("[::1]", "only6"), ("[::1]", "both"), ("127.0.0.1", "both"), ("[::1]", "[::1]")]
)
def test_a_name_may_have_ipv4_addresses_ipv6_addresses_or_both(bind: str, name: str, tmp_path: Path) -> None:
    """In a mount namespace with a list of hosts of its own."""
    (tmp_path / "hosts").write_text(HOSTS)
    apart = ["unshare", "--mount", "sh", "-c", f'mount --bind {tmp_path}/hosts /etc/hosts && exec "$@"', "sh"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("only root can have a list of hosts of its own, where that is allowed at all")
    with closing(LearnerLinks(f"tcp://{bind}:*", LIMITS)) as learner:
        address = f"tcp://{name}:{learner.address.port}"
        with subprocess.Popen([*apart, sys.executable, "-c", CONNECT, address, str(learner.theta_port)]) as actor:
            try:
                received = learner.receive(DEADLINE_S)
                assert received
                assert (received.frames, received.host) == ([b"hello"], bind.strip("[]"))
                deadline = time.monotonic() + DEADLINE_S
                while actor.poll() is None:
                    learner.publish([b"theta"])
                    learner.receive(0.05)
                    assert time.monotonic() < deadline
            finally:
                actor.kill()
        assert actor.returncode == 0


def test_an_ipc_path_may_be_as_long_as_its_address_says(tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/tmp") as folder:
        path = f"{folder}/{'x' * (MAX_IPC_PATH - len(folder) - 1)}"
        with linked(f"ipc://{path}") as (learner, actor, name):
            assert str(learner._theta.address) == f"ipc://{path}.theta"
            assert learner.send(name, [b"lease"])
            assert heard(actor) == [b"lease"]


def test_a_bye_arrives_although_the_learner_closes_at_once(bind: str) -> None:
    with linked(bind) as (learner, actor, name):
        assert learner.send(name, [b"bye"])
        learner.close()
        assert heard(actor) == [b"bye"]


def test_an_occupied_address_is_said(bind: str) -> None:
    with closing(LearnerLinks(bind, LIMITS)) as learner, pytest.raises(ClewError, match="is in use"):
        LearnerLinks(str(learner.address), LIMITS)


def test_a_socket_that_a_dead_learner_left_behind_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "learner").touch()
    with linked(f"ipc://{tmp_path}/learner"):
        pass


@pytest.mark.parametrize(
    "address",
    ["tcp://0.0.0.0:7777", "tcp://*:7777", "tcp://192.0.2.1:7777", "tcp://[::]:7777", "tcp://host:7777"],
)
def test_an_address_that_others_can_reach_is_refused(address: str) -> None:
    with pytest.raises(ClewError, match="without keys"):
        LearnerLinks(address, LIMITS)


@pytest.mark.parametrize("address", ["", "localhost", "tcp://host", "tcp://host:70000", "udp://host:1", "ipc://@x"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(ClewError, match="is no address"):
        Address.of(address)


def test_a_path_that_a_socket_cannot_have_is_said() -> None:
    with pytest.raises(ClewError, match="101 bytes"):
        Address.of("ipc:///" + "x" * 101)


def test_theta_is_found_beside_the_work_link() -> None:
    assert str(Address.of("tcp://host:7777").theta(7778)) == "tcp://host:7778"
    assert str(Address.of("ipc:///run/clew").theta(0)) == "ipc:///run/clew.theta"


def test_an_ipv6_address_has_brackets_where_a_port_follows() -> None:
    assert host_port("2001:db8::7", 9100) == "[2001:db8::7]:9100"
    assert host_port("192.0.2.7", "9100") == "192.0.2.7:9100"
    assert host_port("host", 9100) == "host:9100"
    assert Address.of("tcp://[fe80::1%eth0]:7777").host == "fe80::1%eth0"
    assert [Address.of(f"tcp://{host}:1").is_local for host in ("[::1]", "127.0.0.2", "[::]", "h")] == [1, 1, 0, 0]
    assert [Address.of(f"tcp://{host}:1").is_name for host in ("[::1]", "127.0.0.2", "localhost")] == [0, 0, 1]
