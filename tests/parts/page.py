"""`clew page` as a process, and requests to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

from tests.deploy.test_cli import first_line, running
from tests.parts.deadline import DEADLINE_S
from tests.parts.forked import Process

JSON = {"content-type": "application/json"}


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.content)


class Served(NamedTuple):
    """A page, and where it is."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    def get(self, path: str, **headers: str) -> Reply:
        return self._asked("GET", path, None, {name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, body: object, headers: Mapping[str, str] = JSON) -> Reply:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._asked("POST", path, content, headers)

    def _asked(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        with closing(self.connect()) as connection:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())  # type: ignore[arg-type]


@contextmanager
def serving(*arguments: object, folder: Path) -> Iterator[Served]:
    """`clew page` on a port that was free."""
    with running("page", *arguments, "--port", 0, folder=folder) as process:
        port = first_line(process.stdout, r"the page is on http://127\.0\.0\.1:(\d+)$")[1]
        yield Served(process, int(port))


def events(lines: Iterator[bytes]) -> Iterator[tuple[str, Any]]:
    """Server-sent events: the name and the data of each."""
    name = ""
    for line in lines:
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)
