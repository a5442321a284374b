"""Both ends of both ZeroMQ links, side by side: work (DEALER -> ROUTER) and theta (PUB -> SUB).

The ROUTER names each connection afresh, at random: an actor that reconnects is a new actor, nobody can speak
for another, and no half-dead connection can keep a living one out.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from protocol.config import ClewError
from protocol.wire import ACTOR_LIMITS, Limits

Frames = Sequence[bytes]
Socket = zmq.Socket[bytes]

HEARTBEAT_MS = 1_000  # ZMTP pings; they find a frozen or unreachable peer
DEAD_AFTER_MS = 3_000  # without an answer to one
# How many messages may wait, to send and to be read. A peer that stops reading must not stop the heartbeats, which
# come behind them: an actor may work on a lease for minutes while it is pinged.
LEARNER_WORK = (64, 64)  # per actor; it holds no more than a few leases
ACTOR_WORK = (4, 1_000)
LEARNER_THETA = (8, 1)  # versions, per actor; one that falls further behind fetches what it needs
ACTOR_THETA = (1, 64)
LINGER_MS = 500  # for the last Bye to get out
MAX_IPC_PATH = 107 - len(".theta")  # bytes, of a Unix socket's address


@dataclass(frozen=True)
class Address:
    """tcp://HOST:PORT or ipc://PATH."""

    scheme: str
    place: str  # host or path
    port: str  # "*": any free one; "" for ipc

    @staticmethod
    def of(text: str) -> Address:
        """The address that `text` says, or ClewError."""
        tcp = re.fullmatch(r"tcp://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5}|\*)", text)
        if tcp and (tcp[2] == "*" or int(tcp[2]) <= 65_535):
            return Address("tcp", tcp[1], "*" if tcp[2] == "0" else tcp[2])
        ipc = re.fullmatch(r"ipc://([^\0@][^\0]*)", text)
        if ipc and len(os.fsencode(ipc[1])) <= MAX_IPC_PATH:
            return Address("ipc", ipc[1], "")
        raise ClewError(
            f"{text!r} is no address; use tcp://HOST:PORT, or ipc://PATH of {MAX_IPC_PATH} bytes at most"
        )

    def __str__(self) -> str:
        return f"tcp://{self.place}:{self.port}" if self.scheme == "tcp" else f"ipc://{self.place}"

    def theta(self, port: int | str) -> Address:
        """Where theta is published: another port of the same host, or PATH.theta."""
        if self.scheme == "tcp":
            return Address("tcp", self.place, str(port))
        return Address("ipc", self.place + ".theta", "")

    @property
    def is_local(self) -> bool:
        """Whether nobody on another machine can reach it."""
        if self.scheme == "ipc" or self.place == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.place.strip("[]")).is_loopback
        except ValueError:
            return False


class LearnerLinks:
    """The learner's end: hears every actor, answers each, and publishes theta to all."""

    def __init__(self, bind: str, limits: Limits) -> None:
        address = Address.of(bind)
        if not address.is_local:
            raise ClewError(
                f"{address} can be reached from other machines, which clew does not allow without keys; "
                "bind tcp://127.0.0.1:PORT or ipc://PATH"
            )
        self._context = zmq.Context()
        self._work = _socket(self._context, zmq.ROUTER, address, limits.frame_bytes, LEARNER_WORK)
        self._work.set(zmq.ROUTER_MANDATORY, 1)
        self._theta = _socket(self._context, zmq.PUB, address, limits.frame_bytes, LEARNER_THETA)
        try:
            self.address = _bind(self._work, address)
            self.theta_address = _bind_beside(self._theta, self.address)
        except ClewError:
            self.close()
            raise

    @property
    def theta_port(self) -> int:
        """As Welcome says it."""
        return int(self.theta_address.port or 0)

    def receive(self, timeout_s: float) -> tuple[bytes, Frames] | None:
        """(actor, frames) of the next message, if one comes in time."""
        if not self._work.poll(int(timeout_s * 1000)):
            return None
        actor, *frames = self._work.recv_multipart(zmq.NOBLOCK)
        return actor, frames

    def send(self, actor: bytes, frames: Frames) -> bool:
        """Whether the actor is there to take it. Never blocks."""
        try:
            self._work.send_multipart([actor, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def publish(self, frames: Frames) -> None:
        """To every actor that keeps up."""
        self._theta.send_multipart(frames)

    def close(self) -> None:
        self._context.destroy(LINGER_MS)


class ActorLinks:
    """An actor's end. Connections are made, and made again, in the background."""

    def __init__(self, connect: str) -> None:
        self._address = Address.of(connect)
        if self._address.port == "*":
            raise ClewError(f"{connect} names no port; use the one that the learner printed")
        self._context = zmq.Context()
        self._work = _socket(self._context, zmq.DEALER, self._address, ACTOR_LIMITS.frame_bytes, ACTOR_WORK)
        self._events = self._work.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._work.connect(str(self._address))
        self._theta: Socket | None = None
        self._poller = zmq.Poller()
        for link in (self._work, self._events):
            self._poller.register(link, zmq.POLLIN)
        self._connections = 0
        self.connection = 0  # each has a number of its own; 0 while there is none

    def follow(self, theta_port: int) -> None:
        """Listen for theta where Welcome says that it is published, and nowhere else."""
        if self._theta:
            self._poller.unregister(self._theta)
            self._theta.close()
        self._theta = _socket(self._context, zmq.SUB, self._address, ACTOR_LIMITS.frame_bytes, ACTOR_THETA)
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
        return messages

    def send(self, frames: Frames) -> bool:
        """Whether it is on its way, or waits for a learner. Never blocks."""
        try:
            self._work.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        self._context.destroy(LINGER_MS)

    def _watch(self) -> None:
        """What became of the connection to the learner."""
        while self._events.poll(0):
            made = recv_monitor_message(self._events)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._connections += made
            self.connection = self._connections if made else 0


def _socket(
    context: zmq.Context[Socket], kind: int, address: Address, frame_bytes: int, queue: tuple[int, int]
) -> Socket:
    """What holds for every socket."""
    link = context.socket(kind)
    link.set(zmq.IPV6, int(address.place.startswith("[")))
    link.set(zmq.SNDHWM, queue[0])
    link.set(zmq.RCVHWM, queue[1])
    link.set(zmq.MAXMSGSIZE, frame_bytes)
    link.set(zmq.LINGER, LINGER_MS)
    link.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    link.set(zmq.HEARTBEAT_TIMEOUT, DEAD_AFTER_MS)
    link.set(zmq.HEARTBEAT_TTL, DEAD_AFTER_MS)
    link.set(zmq.HANDSHAKE_IVL, DEAD_AFTER_MS)
    link.set(zmq.RECONNECT_IVL, 100)
    link.set(zmq.RECONNECT_IVL_MAX, 1_000)
    return link


def _bind(link: Socket, address: Address) -> Address:
    """Where `link` is bound now; ClewError where it cannot be."""
    numeric = str(address).replace("//localhost:", "//127.0.0.1:")  # libzmq binds no names
    if address.scheme == "ipc" and _is_served(address.place):
        raise _occupied(address)
    try:
        link.bind(numeric)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise _occupied(address) from None
        raise ClewError(
            f"cannot bind {address}: {os.strerror(error.errno or 0)}; choose another address"
        ) from None
    return Address.of(link.getsockopt_string(zmq.LAST_ENDPOINT))


def _bind_beside(link: Socket, work: Address) -> Address:
    """Binds the theta link next to the work link: on the next port, or any free one where that is taken."""
    if work.scheme == "tcp" and int(work.port) < 65_535:
        try:
            return _bind(link, work.theta(int(work.port) + 1))
        except ClewError:
            pass
    return _bind(link, work.theta("*"))


def _occupied(address: Address) -> ClewError:
    return ClewError(f"{address} is in use; end the learner that holds it, or choose another address")


def _is_served(path: str) -> bool:
    """Whether somebody listens on a Unix socket. libzmq would take its place without a word."""
    with socket.socket(socket.AF_UNIX) as probe:
        return Path(path).exists() and probe.connect_ex(path) == 0
