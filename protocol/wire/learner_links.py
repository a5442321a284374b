"""The learner's ends of the two links: work, on which it hears and answers every actor, and theta, which it publishes.

Each connection has a name of its own on the work link: an actor that reconnects is a new actor, and no half-dead
connection can keep a living one out. With keys `protocol.wire.door` makes the names, and the name that a peer chose
counts for nothing. Without keys, where every peer is on this machine, ROUTER counts its connections from a random
number on, and a peer may choose a name that is not taken.
"""

from __future__ import annotations

import ctypes
import logging
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

import zmq

from protocol.config import ClewError
from protocol.wire import descriptors
from protocol.wire.address import Address
from protocol.wire.binding import bind, bind_beside
from protocol.wire.door import Door, key_in
from protocol.wire.frames import Limits
from protocol.wire.keys import LearnerKeys
from protocol.wire.sockets import LEARNER_THETA, LEARNER_WORK, LINGER_MS, Frames, Socket, new_socket, send_all

# A subscription is kept for as long as its connection is, at 50 bytes of memory a byte. Actors subscribe to all
# messages, with an empty topic; so the theta link takes nothing larger than a handshake with keys, and is made anew
# after so many other topics.
SUBSCRIPTION_BYTES = 512
TOPICS = 1_000

log = logging.getLogger("clew")


class Received(NamedTuple):
    """A message, and who sent it."""

    actor: bytes  # the name of its connection on the work link
    frames: Frames
    host: str  # the sender's address as seen from here; "" where it is not known, as over ipc
    key: str  # the name of the sender's key; "" without keys


class LearnerLinks:
    """Both links of a learner. One thread owns them; only `wake` may be called from others."""

    def __init__(self, bind: str, limits: Limits, keys: LearnerKeys | None = None) -> None:
        """Binds both links; raises ClewError where the address is of no use, or needs keys and there are none."""
        self.address = Address.of(bind)
        if not (keys or self.address.is_local):
            raise ClewError(
                f"{self.address} can be reached from other machines, which clew does not allow without keys; make them "
                "with `clew keys new keys` and add --keys keys/learner, or bind tcp://127.0.0.1:PORT or ipc://PATH"
            )
        self._limits, self._keys = limits, keys
        self._work_bytes = self.received_bytes = 0  # sent and received on the work link
        self._turned_away: SimpleQueue[str] = SimpleQueue()
        self._context: zmq.Context[Socket] | None = None
        self._theta = ThetaLink(keys, self._turned_away)
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
    def sent_bytes(self) -> int:
        """Counts the bytes sent so far; theta counts once, however many actors it goes to."""
        return self._work_bytes + self._theta.sent_bytes

    @property
    def theta_port(self) -> int:
        """Says on which port theta is published, as Welcome does; 0 for ipc."""
        return int(self._theta.address.port or 0)

    @property
    def is_ipc(self) -> bool:
        """Says whether all actors are on this machine, so that none has an address."""
        return self.address.scheme == "ipc"

    def turned_away(self) -> Iterator[str]:
        """Yields the host of each connection since the last call whose key is not allowed."""
        with suppress(Empty):
            while True:
                yield self._turned_away.get_nowait()

    def receive(self, timeout_s: float) -> Received | None:
        """Returns the next message; None if none comes in time, or `wake` is called."""
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
        host = peer_property(header, "Peer-Address") if not self.is_ipc else ""
        return Received(actor, frames, host, self.key_of(actor))

    def key_of(self, actor: bytes) -> str:
        """Returns the name of the key that an actor came with; "" without keys."""
        return key_in(actor) if self._keys else ""

    def _waited(self, timeout_s: float) -> bool:
        """Waits for a message or for the bell, and says whether there is a message."""
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        with suppress(BlockingIOError):
            self._bell.recv(1_024)
        return self._work in ready

    def wake(self) -> None:
        """Ends the wait of `receive`, from any thread."""
        with suppress(BlockingIOError):  # the bell has rung so often that it is sure to be heard
            self._rope.send(b"!")

    def send(self, actor: bytes, frames: Frames) -> bool:
        """Sends a message to an actor without blocking, and says whether the actor is there to take it."""
        try:
            send_all(self._work, [actor, *frames])
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        self._work_bytes += sum(map(len, frames))
        return True

    def publish(self, frames: Frames) -> None:
        """Sends a message to every actor that keeps up."""
        self._theta.publish(frames)

    def lock_out(self) -> set[str]:
        """Returns the names of the keys revoked since the last call, and ends all connections where there are any.

        libzmq cannot end a single connection, so every actor connects anew, under another name.
        """
        revoked = self._keys.allowed.refresh() if self._keys else set()
        if revoked:
            self._close(linger_ms=0)
            self._open()
        return revoked

    def close(self) -> None:
        """Ends both links, after a moment for what is still to be sent."""
        self._close(LINGER_MS)
        self._bell.close()
        self._rope.close()

    def _open(self) -> None:
        """Binds both links where they were bound before, or for the first time."""
        # ROUTER counts from a number of libc's generator on, which is the same in every process that does not do this.
        # Whoever knew it could take the next connection's name, which ends this process: libzmq's socket_base.cpp
        ctypes.CDLL(None).srand(secrets.randbits(32))
        self._context = guarded_context(self._keys, self._turned_away)
        largest_bytes = 2 * self._limits.frame_bytes
        self._work = new_socket(self._context, zmq.ROUTER, self.address, largest_bytes, LEARNER_WORK, self._keys)
        self._work.set(zmq.ROUTER_MANDATORY, 1)
        self.address = bind(self._work, self.address)
        self._poller = zmq.Poller()
        self._poller.register(self._work, zmq.POLLIN)
        self._poller.register(self._bell, zmq.POLLIN)
        self._theta.open(self.address)

    def _close(self, linger_ms: int) -> None:
        """Ends both links."""
        self._theta.close(linger_ms)
        if self._context:
            self._context.destroy(linger_ms)
            self._context = None


class ThetaLink:
    """The link on which theta is published."""

    def __init__(self, keys: LearnerKeys | None, turned_away: SimpleQueue[str]) -> None:
        """Prepares the link, which `open` binds. `turned_away` takes the hosts of those whose key is not allowed."""
        self._keys, self._turned_away = keys, turned_away
        self._context: zmq.Context[Socket] | None = None
        self._address: Address | None = None
        self.sent_bytes = 0  # sent so far, counting each message once
        self.topics = 0  # topics subscribed to that nobody needs; each costs memory

    @property
    def address(self) -> Address:
        """Says where the link is, once it has been opened."""
        assert self._address is not None
        return self._address

    def open(self, work: Address) -> None:
        """Binds the link where it was before, or beside the work link; raises ClewError where it cannot be bound."""
        self._context, self.topics = guarded_context(self._keys, self._turned_away), 0
        self._socket = new_socket(self._context, zmq.XPUB, work, SUBSCRIPTION_BYTES, LEARNER_THETA, self._keys)
        self._socket.set(zmq.XPUB_VERBOSE, 1)
        self._address = bind(self._socket, self._address) if self._address else bind_beside(self._socket, work)

    def publish(self, frames: Frames) -> None:
        """Sends a message to every actor that keeps up."""
        self._hear_subscriptions()
        self._socket.send_multipart(frames)
        self.sent_bytes += sum(map(len, frames))

    def close(self, linger_ms: int) -> None:
        """Ends the link."""
        if self._context:
            self._context.destroy(linger_ms)
            self._context = None

    def _hear_subscriptions(self) -> None:
        """Counts topics that nobody needs, and makes the link anew when they are too many: only that frees memory."""
        while self.topics < TOPICS:
            try:
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self.topics += frame.bytes not in (b"\1", b"\0")
        host, key = peer_property(frame, "Peer-Address"), key_in(peer_property(frame, "User-Id").encode())
        log.warning(
            "an actor subscribes to %d topics that do not exist; all follow theta anew; revoke its key",
            self.topics,
            extra={"key": key, "host": host},
        )
        self.close(linger_ms=0)
        self.open(self.address)


def guarded_context(keys: LearnerKeys | None, turned_away: SimpleQueue[str]) -> zmq.Context[Socket]:
    """Makes a context for one socket, with a door where there are keys.

    A socket with a context of its own can be closed, and its address is free at once.
    """
    context: zmq.Context[Socket] = zmq.Context()
    if keys:
        Door(context, keys.allowed, turned_away)
    return context


def peer_property(frame: zmq.Frame, name: str) -> str:
    """Returns what libzmq knows of a frame's sender; "" if the peer speaks an old ZMTP, or hung up at once."""
    try:
        return str(frame.get(name)).removeprefix("::ffff:")  # stands before an IPv4 address on a socket for both kinds
    except zmq.ZMQError:
        return ""
