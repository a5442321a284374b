"""The learner's door: it tells ZAP whose key may come in (https://rfc.zeromq.org/spec/27), and the name of each.

The name, KEY/RANDOM, becomes that of the connection on the work link, instead of the name that its peer chose, where
ZAP's answer comes after libzmq has read the peer's own words. So nobody can have the name of another, nor a name that
libzmq would choose next, which would end the process; and every message says which key it came by.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

import zmq
from zmq.utils import z85

from protocol.wire.keys import Allowlist

DOMAIN = "clew"  # ZAP's name of our sockets
ENDPOINT = "inproc://zeromq.zap.01"
VERSION = b"1.0"
RANDOM_BYTES = 8  # random bytes in a name
LOOPBACK = "tcp://127.0.0.1"
AT_ONCE = 100  # questions that are answered together


class Door:
    """The door of all sockets of one context; it ends with the context."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], allowed: Allowlist, turned_away: SimpleQueue[str]
    ) -> None:
        """Opens the door, before any socket of the context is bound.

        Args:
          context: the context of the sockets.
          allowed: the keys that may come in.
          turned_away: takes the host of each connection that may not come in.
        """
        self._allowed, self._turned_away = allowed, turned_away
        # Sockets of a shadow are not closed with the context's others, but in the thread that uses them.
        mine: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(context)
        self._questions, self._near, self._far = (mine.socket(kind) for kind in (zmq.ROUTER, zmq.PAIR, zmq.PAIR))
        for link in (self._questions, self._near, self._far):
            link.set(zmq.LINGER, 0)
        self._questions.bind(ENDPOINT)
        port = self._near.bind_to_random_port(LOOPBACK)
        self._far.connect(f"{LOOPBACK}:{port}")
        self._let_libzmq_read_on()
        Thread(target=self._answer_all, name="door", daemon=True).start()

    def _answer_all(self) -> None:
        """Answers ZAP's questions until the context ends."""
        with self._questions, self._near, self._far, suppress(zmq.ContextTerminated):
            while True:
                asked = [self._questions.recv_multipart()]
                while len(asked) < AT_ONCE and self._questions.poll(0):
                    asked.append(self._questions.recv_multipart())
                self._let_libzmq_read_on()
                for question in asked:
                    self._answer(*question)

    def _let_libzmq_read_on(self) -> None:
        """Waits until libzmq's thread has done what it was doing when it asked.

        That thread alone takes a message from one of these sockets to the other, after what it was doing.
        """
        token = secrets.token_bytes(RANDOM_BYTES)
        self._near.send(token)
        while self._far.recv() != token:
            pass

    def _answer(
        self, asker: bytes, empty: bytes, _: bytes, number: bytes, domain: bytes, host: bytes, *rest: bytes
    ) -> None:
        """Answers one question."""
        _own_name, mechanism, *credentials = rest
        name = self._name_of(domain, mechanism, credentials)
        if not name:
            self._turned_away.put(host.decode(errors="replace"))
        status = (b"200", b"OK") if name else (b"400", b"the key is not allowed")
        metadata = _identity(name) if name else b""
        self._questions.send_multipart([asker, empty, VERSION, number, *status, name, metadata])

    def _name_of(self, domain: bytes, mechanism: bytes, credentials: list[bytes]) -> bytes:
        """Makes a name for a new connection; b"" where it may not come in."""
        if (domain, mechanism, len(credentials)) != (DOMAIN.encode(), b"CURVE", 1):
            return b""
        key = self._allowed.name_of(z85.encode(credentials[0]))
        return f"{key}/{secrets.token_hex(RANDOM_BYTES)}".encode() if key else b""


def key_in(name: bytes) -> str:
    """Returns the name of the key from that of a connection."""
    return name.rpartition(b"/")[0].decode()


def _identity(name: bytes) -> bytes:
    """Writes a name as metadata of ZMTP."""
    return b"\x08Identity" + len(name).to_bytes(4, "big") + name
