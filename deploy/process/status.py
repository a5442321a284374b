"""Serves the state of a process over HTTP: /metrics for Prometheus, /healthz for whoever restarts it, and /actors.

/actors lists where the actors' own metrics are, in the form of Prometheus' HTTP service discovery:
https://prometheus.io/docs/prometheus/latest/http_sd/
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from threading import Thread
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from protocol.config import ClewError
from protocol.wire import descriptors
from protocol.wire.address import host_port

LOOPBACK = "127.0.0.1"
CLIENT_S = 10.0  # that a client may take, from its first byte to the last that it gets
CLIENTS = 64  # at once; for one more, the oldest of those who have not asked yet is hung up on
POLL_S = 0.1  # the longest wait for a client, before it is seen who takes too long

log = logging.getLogger("clew")


class Answer(NamedTuple):
    """The answer to one HTTP request."""

    status: int
    content_type: str
    body: bytes


Page = Callable[[str], Answer]  # its argument: the formats that the client accepts


@contextmanager
def serve(
    port: int | None,
    registry: CollectorRegistry,
    is_ready: Callable[[], bool],
    targets: Callable[[], list[str]] | None = None,
    host: str = LOOPBACK,
) -> Iterator[Server | None]:
    """Answers in the background, while the process works. Port 0 is any free one, see `Server.port`; None starts none.

    `is_ready`, `targets` ("HOST:PORT" of each actor's metrics) and the registry's collectors are called in
    other threads than the caller's.
    """
    if port is None:
        yield None
        return
    host = host.strip("[]")
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a time of birth beside every counter
    pages = {"/metrics": lambda accept: _metrics(registry, accept), "/healthz": lambda _: _health(is_ready())}
    if targets:
        pages["/actors"] = lambda _: _actors(targets())
    try:
        server = Server(host, port, pages)
    except (OSError, UnicodeError) as error:  # the latter: no host can have such a name
        reason = error.strerror if isinstance(error, OSError) else "no host has such a name"
        where = host_port(host, port)
        raise ClewError(
            f"cannot serve metrics on {where}: {reason}; choose another --metrics-port or --metrics-host"
        ) from None
    thread = Thread(target=server.serve_forever, args=(POLL_S,), name="status", daemon=True)
    thread.start()
    log.info("metrics are served on http://%s/metrics", host_port(host, server.port))
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _metrics(registry: CollectorRegistry, accept: str) -> Answer:
    encode, content_type = choose_encoder(accept)
    return Answer(200, content_type, encode(registry))


def _health(ready: bool) -> Answer:
    return _text(200, "ok") if ready else _text(503, "not ready")


def _actors(targets: list[str]) -> Answer:
    groups = [{"targets": targets, "labels": {"job": "clew-actor"}}] if targets else []
    return Answer(200, "application/json", json.dumps(groups).encode())


def _text(status: int, line: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{line}\n".encode())


class Client:
    """A connection, and the thread that answers it."""

    def __init__(self, connection: socket.socket, answer: Callable[[Client], None]) -> None:
        self.connection = connection
        self.deadline = time.monotonic() + CLIENT_S
        self.has_asked = False  # set by its thread once its request is there
        self.thread = Thread(target=answer, args=(self,), name="status", daemon=True)

    def hang_up(self) -> None:
        """Ends whatever the thread waits for."""
        with suppress(OSError):  # it is closed by now
            self.connection.shutdown(socket.SHUT_RDWR)


class Server(TCPServer):
    """An HTTP server with a thread and a deadline for every client, so that a slow client holds no thread for ever."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, pages: dict[str, Page]) -> None:
        address: Any
        self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.pages = pages
        self._clients: list[Client] = []  # touched by the thread that accepts them alone
        super().__init__(address, BaseHTTPRequestHandler)  # `_answer` makes the handlers
        self.socket.setblocking(False)  # a client that has gone again is not waited for

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self.server_address[1])

    def get_request(self) -> tuple[Any, Any]:
        """Accepts a connection, even where strangers on the links have taken all of their own descriptors."""
        return descriptors.opened(super().get_request)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Makes room for a new client: clients that send nothing must not keep out those that ask."""
        self._clients = [client for client in self._clients if client.thread.is_alive()]
        if len(self._clients) >= CLIENTS:
            oldest = next((client for client in self._clients if not client.has_asked), None)
            if not oldest:
                return False
            oldest.hang_up()
            self._clients.remove(oldest)
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a client's thread."""
        client = Client(request, self._answer)
        client.thread.start()
        self._clients.append(client)

    def service_actions(self) -> None:
        """Hangs up on clients that take too long. It is called after every client, and every POLL_S."""
        now = time.monotonic()
        for client in self._clients:
            if now > client.deadline:
                client.hang_up()

    def server_close(self) -> None:
        """Closes all sockets and ends all threads."""
        super().server_close()
        for client in self._clients:
            client.hang_up()
            client.thread.join(CLIENT_S)

    def _answer(self, client: Client) -> None:
        try:
            Handler(client, self)
        except OSError:
            pass  # the client went away in the middle, or was hung up on
        finally:
            self.shutdown_request(client.connection)


class Handler(BaseHTTPRequestHandler):
    """Answers one HTTP request."""

    server: Server

    def __init__(self, client: Client, server: Server) -> None:
        self._client = client
        super().__init__(client.connection, "", server)

    def do_GET(self) -> None:
        self._client.has_asked = True
        answer = self._page()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET

    def _page(self) -> Answer:
        pages, path = self.server.pages, self.path.partition("?")[0]
        if path not in pages:
            return _text(404, f"there is no such page; there are {', '.join(pages)}")
        try:
            return pages[path](self.headers.get("Accept", ""))
        except Exception as error:  # a figure that cannot be computed ends no training
            log.error("a request could not be answered", extra={"path": path, "error": repr(error)})
            return _text(500, "the process failed to answer; its log says why")

    def version_string(self) -> str:
        return "clew"

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing, since requests are not events."""
