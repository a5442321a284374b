"""The learner's door: ZAP asks whose key may come in (https://rfc.zeromq.org/spec/27), and is told each one's name.

The name, KEY/RANDOM, becomes the connection's on the work link, instead of the one that its peer chose, where ZAP's
answer comes after libzmq has read the peer's own words. So nobody can be called like another, nor like one that libzmq
would choose next, which would end the process; and every message says which key it came by.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

import zmq
from zmq.utils import z85

from protocol.wire.keys import Allowlist

DOMAIN = "clew"  # of our sockets, as ZAP calls it
ENDPOINT = "inproc://zeromq.zap.01"
VERSION = b"1.0"
RANDOM_BYTES = 8  # of a name
LOOPBACK = "tcp://127.0.0.1"
AT_ONCE = 100  # questions that are answered together


class Door:
    """Of the sockets of one context; ends with it."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], allowed: Allowlist, turned_away: SimpleQueue[str]
    ) -> None:
        """`turned_away`: takes the hosts of those who may not come in. Before any socket of the context is bound."""
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
        with self._questions, self._near, self._far, suppress(zmq.ContextTerminated):
            while True:
                asked = [self._questions.recv_multipart()]
                while len(asked) < AT_ONCE and self._questions.poll(0):
                    asked.append(self._questions.recv_multipart())
                self._let_libzmq_read_on()
                for question in asked:
                    self._answer(*question)

    def _let_libzmq_read_on(self) -> None:
        """Whatever libzmq was doing in its thread when it asked is done when this returns: that thread alone takes a
        message from one of these sockets to the other, after what it was doing.
        """
        token = secrets.token_bytes(RANDOM_BYTES)
        self._near.send(token)
        while self._far.recv() != token:
            pass

    def _answer(
        self, asker: bytes, empty: bytes, _: bytes, number: bytes, domain: bytes, host: bytes, *rest: bytes
    ) -> None:
        _own_name, mechanism, *credentials = rest
        name = self._name_of(domain, mechanism, credentials)
        if not name:
            self._turned_away.put(host.decode(errors="replace"))
        status = (b"200", b"OK") if name else (b"400", b"the key is not allowed")
        metadata = _identity(name) if name else b""
        self._questions.send_multipart([asker, empty, VERSION, number, *status, name, metadata])

    def _name_of(self, domain: bytes, mechanism: bytes, credentials: list[bytes]) -> bytes:
        """Of a new connection; nothing where it may not come in."""
        if (domain, mechanism, len(credentials)) != (DOMAIN.encode(), b"CURVE", 1):
            return b""
        key = self._allowed.name_of(z85.encode(credentials[0]))
        return f"{key}/{secrets.token_hex(RANDOM_BYTES)}".encode() if key else b""


def key_in(name: bytes) -> str:
    """The key's name in that of a connection."""
    return name.rpartition(b"/")[0].decode()


def _identity(name: bytes) -> bytes:
    """As metadata of ZMTP."""
    return b"\x08Identity" + len(name).to_bytes(4, "big") + name
