"""Both ends of both ZeroMQ links, side by side: work (DEALER -> ROUTER) and theta (PUB -> SUB).

Each connection has a name of its own on the work link: an actor that reconnects is a new actor, and no half-dead
connection can keep a living one out. With keys `protocol.wire.door` makes the names, and what a peer would like to be
called counts for nothing. Without keys, where every peer is on this machine, ROUTER counts its connections from a
random number on, and a peer may choose a name that is not taken.
"""

from __future__ import annotations

import ctypes
import logging
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

import zmq
from zmq.utils.monitor import recv_monitor_message

from protocol.config import ClewError
from protocol.wire import descriptors
from protocol.wire.address import Address
from protocol.wire.binding import bind, bind_beside
from protocol.wire.door import DOMAIN, Door, key_in
from protocol.wire.frames import ACTOR_LIMITS, Limits
from protocol.wire.keys import ActorKeys, LearnerKeys

Frames = Sequence[bytes]
Socket = zmq.Socket[bytes]

HEARTBEAT_MS = 1_000  # ZMTP pings; they find a frozen or unreachable peer
DEAD_AFTER_MS = 3_000  # without an answer to one
# How many messages may wait, to send and to be read. A peer that stops reading must not stop the heartbeats, which
# come behind them: an actor may work on a lease for minutes while it is pinged.
LEARNER_WORK = (64, 64)  # per actor; it holds no more than a few leases
ACTOR_WORK = (4, 1_000)
# Versions, per actor; one that falls further behind fetches. Read: two subscriptions at a time; at one, libzmq hears
# no subscription at all on a link with keys.
LEARNER_THETA = (8, 2)
ACTOR_THETA = (1, 64)
# A subscription is kept for as long as its connection is, at 50 bytes of memory a byte. Actors subscribe to all, with
# none; so the theta link takes nothing larger than a handshake with keys, and is made anew after so many topics.
SUBSCRIPTION_BYTES = 512
TOPICS = 1_000
LINGER_MS = 500  # for the last Bye to get out
CONNECT_MS = 1_500  # else the system's own attempts, seconds apart after a cut, decide when it has healed
FAILURES = (  # of a handshake
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
NOT_ALLOWED = "the learner refused this actor's key; allow it there with `clew keys add`"
# A learner with other keys hangs up without a word; so does one that ends, and whoever is no learner.
OTHER_KEYS = (
    "the handshake fails: perhaps the learner has another key than learner.key says, or none; "
    "compare the two, and start both with --keys"
)
NO_KEYS = (
    "the handshake fails: perhaps one side has keys and the other none, or it is no learner; "
    "start both with --keys or neither, or change the address"
)
FIRST_PAUSE_S = 0.1  # after a handshake that failed; doubled with each further one
LONGEST_PAUSE_S = 2.0
RETRY_PAUSE_S = 1.0  # the longest, between two tries to connect to a name
REFUSED_PAUSE_S = 30.0
MORE, LAST = int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.NOBLOCK)  # flags

log = logging.getLogger("clew")


class Received(NamedTuple):
    """A message, and who sent it."""

    actor: bytes  # as the work link names its connection
    frames: Frames
    host: str  # its address as seen from here; "" where that is not known, as over ipc
    key: str  # the name of its key; "" without keys


class LearnerLinks:
    """The learner's end: hears every actor, answers each, and publishes theta to all. One thread's, but for `wake`."""

    def __init__(self, bind: str, limits: Limits, keys: LearnerKeys | None = None) -> None:
        self._asked = self.address = self.theta_address = Address.of(bind)
        if not (keys or self.address.is_local):
            raise ClewError(
                f"{self.address} can be reached from other machines, which clew does not allow without keys; make them "
                "with `clew keys new keys` and add --keys keys/learner, or bind tcp://127.0.0.1:PORT or ipc://PATH"
            )
        self._limits, self._keys = limits, keys
        self.sent_bytes = self.received_bytes = 0  # theta counts once, however many actors it goes to
        self._turned_away: SimpleQueue[str] = SimpleQueue()
        self._contexts: list[zmq.Context[Socket]] = []
        descriptors.raise_the_limit()
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        try:
            self._open()
        except ClewError:
            self.close()
            raise

    @property
    def theta_port(self) -> int:
        """As Welcome says it."""
        return int(self.theta_address.port or 0)

    @property
    def is_ipc(self) -> bool:
        """Whether all actors are on this machine, and none has an address."""
        return self.address.scheme == "ipc"

    def turned_away(self) -> Iterator[str]:
        """The hosts of those whose key is not allowed, once for each connection since the last call."""
        with suppress(Empty):
            while True:
                yield self._turned_away.get_nowait()

    def receive(self, timeout_s: float) -> Received | None:
        """The next message, if one comes in time and nobody calls `wake`."""
        try:
            actor = self._work.recv(zmq.NOBLOCK)
        except zmq.Again:
            if not self._waited(timeout_s):
                return None
            actor = self._work.recv(zmq.NOBLOCK)
        header = self._work.recv(zmq.NOBLOCK, copy=False)
        frames, part = [header.bytes], header
        while part.more:
            part = self._work.recv(zmq.NOBLOCK, copy=False)
            frames.append(part.bytes)
        self.received_bytes += sum(map(len, frames))
        host = _property(header, "Peer-Address") if not self.is_ipc else ""
        return Received(actor, frames, host, self.key_of(actor))

    def key_of(self, actor: bytes) -> str:
        """The name of the key that it came with; nothing without keys."""
        return key_in(actor) if self._keys else ""

    def _waited(self, timeout_s: float) -> bool:
        """Whether there is a message, after waiting for one or for the bell."""
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        with suppress(BlockingIOError):
            self._bell.recv(1_024)
        return self._work in ready

    def wake(self) -> None:
        """Ends the wait of `receive`, from any thread."""
        with suppress(BlockingIOError):  # where the bell has rung so often, it is heard
            self._rope.send(b"!")

    def send(self, actor: bytes, frames: Frames) -> bool:
        """Whether the actor is there to take it. Never blocks."""
        try:
            send_all(self._work, [actor, *frames])
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        self.sent_bytes += sum(map(len, frames))
        return True

    def publish(self, frames: Frames) -> None:
        """To every actor that keeps up."""
        self._hear_subscriptions()
        self._theta.send_multipart(frames)
        self.sent_bytes += sum(map(len, frames))

    def lock_out(self) -> set[str]:
        """Whose key has been revoked since the last call. They are out: every connection is made anew, and all names of
        actors are void. (libzmq cannot end a single one.)
        """
        revoked = self._keys.allowed.refresh() if self._keys else set()
        if revoked:
            self._close(linger_ms=0)
            self._open()
        return revoked

    def close(self) -> None:
        self._close(LINGER_MS)
        self._bell.close()
        self._rope.close()

    def _open(self) -> None:
        self._open_work()
        self._open_theta()

    def _open_work(self) -> None:
        # ROUTER counts from a number of libc's generator on, which is the same in every process that does not do this.
        # Whoever knew it could take the next connection's name, which ends this process: libzmq's socket_base.cpp
        ctypes.CDLL(None).srand(secrets.randbits(32))
        self._work = self._socket(zmq.ROUTER, 2 * self._limits.frame_bytes, LEARNER_WORK)
        self._work.set(zmq.ROUTER_MANDATORY, 1)
        self.address = bind(self._work, self.address)
        self._poller = zmq.Poller()
        self._poller.register(self._work, zmq.POLLIN)
        self._poller.register(self._bell, zmq.POLLIN)

    def _open_theta(self) -> None:
        self._topics = 0  # that nobody needs; those who subscribe to them cost memory
        self._theta = self._socket(zmq.XPUB, SUBSCRIPTION_BYTES, LEARNER_THETA)
        self._theta.set(zmq.XPUB_VERBOSE, 1)
        again = self.theta_address != self._asked
        self.theta_address = bind(self._theta, self.theta_address) if again else bind_beside(self._theta, self.address)

    def _socket(self, kind: int, largest_bytes: int, queue: tuple[int, int]) -> Socket:
        """In a context of its own, so that it can be closed, and its address is free at once."""
        context: zmq.Context[Socket] = zmq.Context()
        self._contexts.append(context)
        if self._keys:
            Door(context, self._keys.allowed, self._turned_away)
        return new_socket(context, kind, self.address, largest_bytes, queue, self._keys)

    def _hear_subscriptions(self) -> None:
        """Nobody needs to subscribe to anything but all; who does so again and again takes memory until it is ended."""
        while self._topics < TOPICS:
            try:
                frame = self._theta.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._topics += frame.bytes not in (b"\1", b"\0")
        host, key = _property(frame, "Peer-Address"), key_in(_property(frame, "User-Id").encode())
        log.warning(
            "an actor subscribes to %d topics that do not exist; all follow theta anew; revoke its key",
            self._topics,
            extra={"key": key, "host": host},
        )
        self._contexts.pop().destroy(0)
        self._open_theta()

    def _close(self, linger_ms: int) -> None:
        while self._contexts:
            self._contexts.pop().destroy(linger_ms)


class ActorLinks:
    """An actor's end. Connections are made, and made again, in the background."""

    def __init__(self, connect: str, keys: ActorKeys | None = None) -> None:
        self._address = Address.of(connect)
        if self._address.port == "*":
            raise ClewError(f"{connect} names no port; use the one that the learner printed")
        self._keys = keys
        self._context = zmq.Context()
        self._work = new_socket(self._context, zmq.DEALER, self._address, ACTOR_LIMITS.frame_bytes, ACTOR_WORK, keys)
        self._events = self._work.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | FAILURES | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED
        )
        self._work.connect(str(self._address))
        self._theta: Socket | None = None
        self._theta_port = -1
        self._poller = zmq.Poller()
        for link in (self._work, self._events):
            self._poller.register(link, zmq.POLLIN)
        self.connections = 0  # so far
        self.connection = 0  # each has a number of its own; 0 while there is none
        self.trouble = ""  # why there is none, where the last handshake failed
        self._failures, self._again_at = 0, 0.0  # handshakes in a row; when the next one begins
        self._retries = 0  # connections to a name in a row that were refused, or came to nothing
        self.sent_bytes = self.received_bytes = 0

    def follow(self, theta_port: int) -> None:
        """Listen for theta where Welcome says that it is published, and nowhere else."""
        if theta_port == self._theta_port:
            return
        self._unfollow()
        self._theta_port = theta_port
        self._theta = new_socket(
            self._context, zmq.SUB, self._address, ACTOR_LIMITS.frame_bytes, ACTOR_THETA, self._keys
        )
        self._theta.set(zmq.IPV6, self._work.get(zmq.IPV6))
        self._theta.set(zmq.SUBSCRIBE, b"")
        self._theta.connect(str(self._address.theta(theta_port)))
        self._poller.register(self._theta, zmq.POLLIN)

    def receive(self, timeout_s: float) -> list[Frames]:
        """All messages that are there, theta first; waits for one if there is none."""
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        self._watch()
        messages: list[Frames] = []
        for link in (self._theta, self._work):
            while link in ready and link and link.poll(0):
                messages.append(link.recv_multipart(zmq.NOBLOCK))
        self.received_bytes += sum(len(frame) for frames in messages for frame in frames)
        return messages

    def send(self, frames: Frames) -> bool:
        """Whether it is on its way, or waits for a learner. Never blocks."""
        try:
            send_all(self._work, frames)
        except zmq.Again:
            return False
        self.sent_bytes += sum(map(len, frames))
        return True

    def close(self) -> None:
        self._context.destroy(LINGER_MS)

    def _watch(self) -> None:
        """What became of the connection to the learner. After some failures libzmq would not try again, after others
        ten times a second: so the next try is made here."""
        retried = False
        while self._events.poll(0):
            event = recv_monitor_message(self._events)["event"]
            retried = event == zmq.EVENT_CONNECT_RETRIED
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connections += 1
                self.connection, self.trouble, self._failures, self._retries = self.connections, "", 0, 0
                self._unfollow()  # until the Welcome that comes over it
            elif event & FAILURES:
                self._fail(event)
            elif event == zmq.EVENT_DISCONNECTED:
                self.connection = 0
        if retried and self._address.is_name:
            self._try_the_other_family()
        if self._again_at and time.monotonic() >= self._again_at:
            self._again_at = 0.0
            self._work.connect(str(self._address))

    def _try_the_other_family(self) -> None:
        """A name may have IPv4 addresses, IPv6 addresses or both, and libzmq tries one kind alone."""
        with suppress(zmq.ZMQError):  # it has been disconnected already
            self._work.disconnect(str(self._address))
        self._work.set(zmq.IPV6, int(not self._work.get(zmq.IPV6)))
        self._again_at = time.monotonic() + min(FIRST_PAUSE_S * 2.0 ** min(self._retries, 10), RETRY_PAUSE_S)
        self._retries += 1

    def _fail(self, event: int) -> None:
        self.connection, self._failures = 0, self._failures + 1
        self._unfollow()
        with suppress(zmq.ZMQError):  # libzmq has given it up already
            self._work.disconnect(str(self._address))
        refused = event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
        longest_s = REFUSED_PAUSE_S if refused else LONGEST_PAUSE_S
        self._again_at = time.monotonic() + min(FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 10), longest_s)
        if refused:
            self.trouble = NOT_ALLOWED
        elif self._failures >= 3:  # a learner that ends looks alike
            self.trouble = OTHER_KEYS if self._keys else NO_KEYS

    def _unfollow(self) -> None:
        if self._theta:
            self._poller.unregister(self._theta)
            self._theta.close()
        self._theta, self._theta_port = None, -1


def new_socket(
    context: zmq.Context[Socket],
    kind: int,
    address: Address,
    largest_bytes: int,
    queue: tuple[int, int],
    keys: LearnerKeys | ActorKeys | None,
) -> Socket:
    """What holds for every socket."""
    link = context.socket(kind)
    if keys:
        link.set(zmq.CURVE_PUBLICKEY, keys.public)
        link.set(zmq.CURVE_SECRETKEY, keys.secret)
    if isinstance(keys, LearnerKeys):
        link.set(zmq.CURVE_SERVER, 1)
        link.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
    elif keys:
        link.set(zmq.CURVE_SERVERKEY, keys.learner)
    link.set(zmq.IPV6, int(address.place.startswith("[")))
    link.set(zmq.SNDHWM, queue[0])
    link.set(zmq.RCVHWM, queue[1])
    link.set(zmq.MAXMSGSIZE, largest_bytes)  # a frame that is larger ends its connection
    link.set(zmq.LINGER, LINGER_MS)
    # Only actors ping, and their pings say when the learner may take them for dead. A learner's own ping to an
    # actor that hung up while its messages found no room would abort the whole process (zeromq/libzmq #4364).
    link.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS if kind in (zmq.DEALER, zmq.SUB) else 0)
    link.set(zmq.HEARTBEAT_TIMEOUT, DEAD_AFTER_MS)
    link.set(zmq.HEARTBEAT_TTL, DEAD_AFTER_MS)
    link.set(zmq.HANDSHAKE_IVL, DEAD_AFTER_MS)
    link.set(zmq.CONNECT_TIMEOUT, CONNECT_MS)
    link.set(zmq.RECONNECT_IVL, 100)
    link.set(zmq.RECONNECT_IVL_MAX, 1_000)
    return link


def _property(frame: zmq.Frame, name: str) -> str:
    """What libzmq knows of who sent it; that is nothing of a peer that speaks an old ZMTP, or hung up at once."""
    try:
        return str(frame.get(name)).removeprefix("::ffff:")  # an IPv4 address, on a socket for both kinds
    except zmq.ZMQError:
        return ""


def send_all(link: Socket, frames: Frames) -> None:
    """One message, without waiting; twice as fast as `send_multipart`, whose flags are no plain numbers."""
    for frame in frames[:-1]:
        link.send(frame, MORE)
    link.send(frames[-1], LAST)
