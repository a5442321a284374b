"""With keys nobody gets in, or reads along, who may not; whoever tries changes nothing."""

from __future__ import annotations

import os
import random
import shutil
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from deploy.command import keys as keyring
from protocol.wire.frames import Limits
from protocol.wire.learner_links import LearnerLinks
from tests.deploy.test_cli import TINY, assert_refused, clew, wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.parties import UPDATES, Pace, Party, Place, place, undisturbed
from tests.parts.proxy import Endpoint, Proxy
from tests.whole.test_network import HERE

__all__ = ["place", "undisturbed"]  # fixtures

REFUSED = 'clew_learner_refusals_total{reason="key"}'
ATTACKS = 200
SIGNATURE = b"\xff" + 7 * b"\0" + b"\x01\x7f"
GREETING = SIGNATURE + b"\x03\x00" + b"NULL".ljust(52, b"\0")  # of ZMTP 3.0, without keys
PROPERTIES = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0"
READY = b"\x04" + bytes([len(PROPERTIES)]) + PROPERTIES


class Tap(Proxy):
    """Listens in, and notes when somebody connects."""

    def __init__(self, listen: Endpoint, target: Endpoint) -> None:
        super().__init__(listen, target)
        self.heard = bytearray()
        self.accepted: list[float] = []  # monotonic times

    @property
    def pauses_s(self) -> list[float]:
        """Between two connections."""
        return [after - before for before, after in pairwise(self.accepted.copy())]

    async def _accept(self, near_reader: StreamReader, near: StreamWriter) -> None:
        self.accepted.append(time.monotonic())
        await super()._accept(near_reader, near)

    async def _deliver(self, content: bytes, writer: StreamWriter) -> None:
        self.heard += content
        await super()._deliver(content, writer)


@pytest.fixture
def keys(place: Place) -> Path:
    """Makes keys of a learner, and of actors named ann and bob."""
    made = place.folder / "keys"
    keyring.new(made)
    for name in ("ann", "bob"):
        keyring.add(name, made)
    return made


def test_with_keys_the_same_is_learned_and_nobody_can_read_along(
    place: Place, keys: Path, undisturbed: list[object]
) -> None:
    taps = place.between(Tap)
    for tap in taps:
        tap.delay_s = 0.1
    team = [
        place.actor("--keys", keys / "ann", connect=place.detour),
        place.actor("--keys", keys / "bob"),
    ]
    learner = place.learner("--keys", keys / "learner")
    wait_until(lambda: learner.metric("clew_learner_actors") == 2)
    for tap in taps:
        tap.delay_s = 0.0
    for party in (learner, *team):
        party.ends()
    assert place.hashes() == undisturbed
    assert all(len(tap.heard) > 1_000 for tap in taps)
    assert not any(word in tap.heard for tap in taps for word in (b"Welcome", b"Rollouts", b"Theta"))


def test_without_keys_anybody_can_read_along(place: Place, undisturbed: list[object]) -> None:
    work, theta = place.between(Tap)
    learner = place.learner()
    place.actor(connect=place.detour)
    learner.ends()
    assert place.hashes() == undisturbed
    assert all(word in work.heard for word in (b"Welcome", b"Rollouts"))
    assert b"Theta" in theta.heard


def unknown(keys: Path) -> list[object]:
    """A key that the learner has not heard of."""
    keyring.new(keys / "other")
    (keys / "other" / "actor" / "learner.key").write_bytes((keys / "ann" / "learner.key").read_bytes())
    return ["--keys", keys / "other" / "actor"]


def no_key(keys: Path) -> list[object]:
    return []


def another_learner(keys: Path) -> list[object]:
    """An allowed key, but the public key of another learner."""
    keyring.new(keys / "other")
    (keys / "ann" / "learner.key").write_bytes((keys / "other" / "actor" / "learner.key").read_bytes())
    return ["--keys", keys / "ann"]


@pytest.mark.parametrize(
    ("stranger", "why"),
    [
        (unknown, "the learner refused this actor's key; allow it there with `clew keys add`"),
        (no_key, "one side has keys and the other none, .*; start both with --keys or neither"),
        (another_learner, "the learner has another key than learner.key says, .*; compare the two"),
    ],
)
def test_who_is_not_allowed_gets_nowhere_says_why_and_tries_less_and_less(
    place: Place, keys: Path, stranger: Callable[[Path], list[object]], why: str
) -> None:
    tap, _ = place.between(Tap)
    learner = place.learner("--keys", keys / "learner")
    actor = place.actor(*stranger(keys), connect=place.detour)
    actor.says(why)
    wait_until(lambda: max(tap.pauses_s, default=0.0) > 2 * min(tap.pauses_s, default=1.0))
    assert len([line for line in actor.lines() if "WARNING" in line]) == 1
    assert not actor.works()
    assert learner.metric("clew_learner_actors") == 0
    if stranger is unknown:
        wait_until(lambda: learner.metric(REFUSED) >= 4)
    else:
        assert learner.metric(REFUSED) == 0
    assert actor.process.poll() is None


def test_an_actor_works_as_soon_as_its_key_is_allowed(place: Place, keys: Path, undisturbed: list[object]) -> None:
    learner = place.learner("--keys", keys / "learner")
    actor = place.actor(*unknown(keys))
    wait_until(lambda: learner.metric(REFUSED) >= 3)
    assert place.updates() == []
    other = keys / "other" / "learner" / "allowed" / "actor.key"
    other.rename(keys / "learner" / "allowed" / "carl.key")
    learner.ends()
    actor.ends()
    assert place.hashes() == undisturbed


def test_a_revoked_actor_is_out_before_the_run_is_over_and_the_others_go_on(
    place: Place, keys: Path, undisturbed: list[object]
) -> None:
    pace = Pace(place)
    ann, bob = (place.actor("--keys", keys / name, connect=place.detour) for name in ("ann", "bob"))
    learner = place.learner("--keys", keys / "learner")
    wait_until(lambda: all(actor.metric("clew_actor_leases_total") > 0 for actor in (ann, bob)))
    assert clew("keys", "revoke", "ann", folder=place.folder).returncode == 0
    ann.says("the learner refused this actor's key")
    assert len(place.updates()) < UPDATES
    pace.no_more()
    assert not ann.works()
    done = ann.metric("clew_actor_leases_total")
    learner.says("keys revoked: ann")
    learner.ends()
    bob.ends()
    assert ann.metric("clew_actor_leases_total") == done
    assert place.hashes() == undisturbed
    assert place.updates()[-1]["actors"] == 1


def test_without_the_list_of_who_may_connect_nobody_does_until_it_is_back(
    place: Place, keys: Path, undisturbed: list[object]
) -> None:
    pace = Pace(place)
    ann = place.actor("--keys", keys / "ann", connect=place.detour)
    learner = place.learner("--keys", keys / "learner")
    wait_until(lambda: ann.metric("clew_actor_leases_total") > 0)
    allowed = keys / "learner" / "allowed"
    shutil.copytree(allowed, place.folder / "kept")
    shutil.rmtree(allowed)
    ann.says("the learner refused this actor's key")
    learner.says("nobody may connect now: cannot read .*allowed.*: No such file or directory")
    learner.says("keys revoked: .*ann")
    (place.folder / "kept").rename(allowed)
    pace.no_more()
    learner.ends()
    ann.ends()
    assert place.hashes() == undisturbed


def test_an_address_that_others_can_reach_needs_keys(place: Place, keys: Path) -> None:
    actor = place.actor("--keys", keys / "ann")
    wanted = ("learner", *TINY, "--updates", 5, "--run-dir", "open", "--bind")
    for host in ("[::]", "0.0.0.0"):
        address = f"tcp://{host}:{place.port}"
        refused = clew(*wanted, address, folder=place.folder)
        assert refused.returncode == 2
        [line] = refused.stderr.splitlines()
        assert "make them with `clew keys new keys` and add --keys keys/learner" in line
    learner = place.start(*wanted, address, "--keys", keys / "learner")
    learner.ends()
    actor.ends()


def test_a_secret_that_others_may_read_is_not_used(place: Place, keys: Path) -> None:
    for role, name, address in (("learner", "learner", "--bind"), ("actor", "ann", "--connect")):
        secret = keys / name / f"{role}.key_secret"
        secret.chmod(0o644)
        result = clew(role, address, place.address, "--keys", keys / name, folder=place.folder)
        assert_refused(result, f"mode 0644.; run chmod 600 .*{role}.key_secret")


def test_a_peer_of_an_old_protocol_of_which_no_address_is_known_is_heard_like_any_other(place: Place) -> None:
    """ZMTP 2.0 has no handshake in which libzmq could note who it is."""
    greeting, message = SIGNATURE + b"\x01\x05\x00\x00", b"\x00\x05hello"
    with (
        closing(LearnerLinks(place.address, Limits(frame_bytes=10_000))) as learner,
        socket.create_connection((HERE, place.port)) as peer,
    ):
        peer.sendall(greeting + message)
        received = learner.receive(DEADLINE_S)
    assert received
    assert (received.frames, received.host) == ([b"hello"], "")


def noise(rng: random.Random) -> bytes:
    """Makes what strangers say first."""
    match rng.randrange(6):
        case 0:
            return rng.randbytes(rng.randrange(300))
        case 1:
            return GREETING[: rng.randrange(len(GREETING))]
        case 2:  # of another version
            return GREETING[:10] + bytes([rng.randrange(256), rng.randrange(256)]) + GREETING[12:]
        case 3:  # of another mechanism
            return GREETING[:12] + rng.choice([b"PLAIN", b"CURVE", rng.randbytes(5)]) + GREETING[17:]
        case 4:  # a frame that is longer than any
            return GREETING + READY + b"\x02" + 8 * b"\x7f" + rng.randbytes(50)
        case _:
            return GREETING + READY + rng.randbytes(rng.randrange(300))


def disturb(port: int, rng: random.Random, held: ExitStack) -> None:
    """A connection that says something, and hangs or ends."""
    stranger = held.enter_context(socket.create_connection((HERE, port)))
    with suppress(OSError):  # hung up on already
        stranger.sendall(noise(rng))
        match rng.randrange(3):
            case 0:
                stranger.close()
            case 1:
                stranger.shutdown(socket.SHUT_WR)


def files(party: Party) -> int:
    """Counts the files that a process has open."""
    return len(os.listdir(f"/proc/{party.process.pid}/fd"))


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True])
def test_strangers_who_speak_another_language_change_nothing_and_leave_nothing(
    place: Place, keys: Path, undisturbed: list[object], secure: bool
) -> None:
    rng, pace = random.Random(0), Pace(place)
    mine, theirs = (["--keys", keys / name] if secure else [] for name in ("learner", "ann"))
    learner = place.learner(*mine)
    actor = place.actor(*theirs, connect=place.detour)
    wait_until(lambda: len(place.updates()) > 2)
    before = files(learner)
    with ExitStack() as held:
        for number in range(ATTACKS):
            disturb(place.port + number % 2, rng, held)
        wait_until(lambda: files(learner) > before + 10)
        if secure:  # without keys, who has greeted as an actor does may stay
            wait_until(lambda: files(learner) <= before)
    wait_until(lambda: files(learner) <= before)
    assert len(place.updates()) < UPDATES
    pace.no_more()
    learner.ends()
    actor.ends()
    assert place.hashes() == undisturbed
