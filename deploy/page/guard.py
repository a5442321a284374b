"""Refuses what no reader of the page sends: other hosts and origins, large bodies, connections that say nothing.

A page of another origin must not use this one through its visitor's browser. A request whose Host is another name than
this machine's comes from a page that had its own name resolve to this machine (DNS rebinding); one that bears another
Origin, or says that it is cross-site, comes from another page.
"""

from __future__ import annotations

import asyncio
import re
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_BYTES = 16_384  # of a request's body: the largest maze takes half of it
DRAINED_BYTES = 4 << 20  # of a body that is too large are read, so that the sender hears why it is refused
BODY_S = 10.0  # that a body may take
HEAD_S = 10.0  # that a connection may say nothing, or go on with one request's head
CONNECTIONS = 128  # at once; for one more, the oldest of those that have asked nothing is hung up on

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Answers requests of other hosts and origins with a refusal, and passes all others on."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        """Guards `app`, which is served on `host`: as `clew page --host` has it."""
        self._app, self._host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        fault = fault_of(scope["path"], Headers(scope=scope), self._host)
        app = JSONResponse({"error": fault}, 403) if fault else self._app
        await app(scope, receive, send_safely)


def fault_of(path: str, headers: Headers, host: str) -> str | None:
    """Says what is wrong with where a request comes from, if anything is."""
    if path == "/healthz":  # a health check names no host, and learns nothing
        return None
    named = headers.get("host", "")
    if not is_this_machine(named, host):
        return f"the request is for host {named!r}, and this is another; open the page by its IP address or localhost"
    origin = headers.get("origin")
    if origin not in (None, f"http://{named}"):
        return f"the request comes from a page of {origin}, which may not use this one"
    if path != "/" and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return "the request comes from a page of another site, which may not use this one"
    return None


def is_this_machine(named: str, host: str) -> bool:
    """Says whether a Host header can mean this machine: an IP address does, since no name had to be resolved."""
    name = re.sub(r":\d+$", "", named).strip("[]").lower()
    if name in ("localhost", host.lower()):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


async def body_of(request: Request) -> bytes:
    """Reads the JSON body of a request; raises HTTPException where it is none, too large or too slow."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send a JSON object, as application/json")
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MOST_BYTES:
                    body += chunk
                elif size > DRAINED_BYTES:
                    break
    except TimeoutError:
        raise HTTPException(408, f"the request took more than {BODY_S:g} s to arrive") from None
    except ClientDisconnect:
        raise HTTPException(400, "the request ended too early") from None
    if size > MOST_BYTES:
        raise HTTPException(
            413, f"the request is larger than {MOST_BYTES:,} bytes; a maze has 63 by 63 cells at most, which take less"
        )
    return bytes(body)


class Connection(H11Protocol):
    """A connection that is hung up on where it is silent for too long, or makes room for another one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to watch the connection."""
        super().connection_made(transport)
        self.since = self.loop.time()
        if len(self.connections) > CONNECTIONS:
            silent = [one for one in self.connections if isinstance(one, Connection) and one.is_silent]
            min(silent, key=lambda one: one.since).transport.close()
        self.loop.call_later(HEAD_S, self._watch, None)

    @property
    def is_silent(self) -> bool:
        """Says whether the connection waits for a request."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self, former: object) -> None:
        """Hangs up if it waits for a request and waited for the same one HEAD_S ago."""
        if self.is_silent and self.cycle is former:
            self.transport.close()
        elif not self.transport.is_closing():
            self.loop.call_later(HEAD_S, self._watch, self.cycle)
