"""What a process says over HTTP: /metrics, /healthz and, the learner, /actors for Prometheus to find the actors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from protocol.config import ClewError

LOOPBACK = "127.0.0.1"
SILENCE_S = 10.0  # after which a client that says nothing is given up
TEXT, JSON = "text/plain; charset=utf-8", "application/json"
Page = Callable[[], tuple[int, str, bytes]]  # status, content type, content

log = logging.getLogger("clew")
disable_created_metrics()  # type: ignore[no-untyped-call]  # one series more for every counter, which nobody reads


@contextmanager
def serve(
    host: str,
    port: int | None,
    registry: CollectorRegistry,
    is_ready: Callable[[], bool],
    targets: Callable[[], list[str]] | None = None,
) -> Iterator[int]:
    """Serves in threads of its own until the block is left; gives the port, which is any free one for 0.

    Where `port` is None, nothing is served, and 0 given. `targets`: HOST:PORT of the metrics of actors.
    """
    if port is None:
        yield 0
        return
    try:
        server = Server((host, port), handler(pages(registry, is_ready, targets)))
    except OSError as error:
        where = f"cannot serve metrics on {host}:{port}"
        raise ClewError(f"{where}: {error.strerror}; choose another --metrics-port") from None
    thread = Thread(target=server.serve_forever, name="status", daemon=True, kwargs={"poll_interval": 0.1})
    thread.start()
    log.info("metrics on http://%s:%d/metrics", host, server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that dawdles holds nobody up
    request_queue_size = 64


def pages(
    registry: CollectorRegistry, is_ready: Callable[[], bool], targets: Callable[[], list[str]] | None
) -> dict[str, Page]:
    """By path."""

    def metrics() -> tuple[int, str, bytes]:
        return 200, CONTENT_TYPE_LATEST, generate_latest(registry)

    def health() -> tuple[int, str, bytes]:
        return (200, TEXT, b"ready\n") if is_ready() else (503, TEXT, b"not ready\n")

    def actors() -> tuple[int, str, bytes]:
        """Prometheus' format of HTTP service discovery."""
        found = targets() if targets else []
        groups = [{"targets": found, "labels": {"job": "clew-actor"}}] if found else []
        return 200, JSON, json.dumps(groups).encode()

    return {"/metrics": metrics, "/healthz": health} | ({"/actors": actors} if targets else {})


def handler(by_path: dict[str, Page]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = SILENCE_S

        def do_GET(self) -> None:
            page = by_path.get(self.path.partition("?")[0])
            code, kind, content = page() if page else (404, TEXT, f"try {', '.join(by_path)}\n".encode())
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: Prometheus asks every few seconds."""

    return Handler
