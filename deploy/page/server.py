"""The server of `clew page`: the page's files, mazes to draw and to try, and a run's figures as they come.

It reads a run's records and its newest checkpoint, and writes nothing: the learner does not know of it.
"""

# M mazes

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from deploy.page import shipped
from deploy.page.guard import Connection, Guard, body_of
from deploy.page.history import History
from deploy.page.trying import MOST_ATTEMPTS, MOST_SIDE, Shown, attempts_of, one_maze, tried
from deploy.study import exam
from deploy.study.evaluate import Run, adapting, opened
from learner import checkpoint
from protocol.config import ClewError
from protocol.world.maze import Mazes, shortest_M

FOLDER = Path(__file__).parent
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
WAITING = 8  # pieces of work that wait for the one thread or are done by it; for one more, the page is busy
WATCHERS = 16  # streams at once
POLL_S = 0.5  # between two looks at a run's records
QUIET_S = 10.0  # after which a stream that has nothing to say shows that it lives

Family = Literal["perfect", "braided", "blocks", "rooms", "mouse"]
Seed = Annotated[int, Field(ge=0, lt=2**53)]  # JavaScript's numbers are exact up to there


class Wanted(BaseModel):
    """A request of the page."""

    model_config = ConfigDict(extra="forbid")


T = TypeVar("T")
W = TypeVar("W", bound=Wanted)


class Text(Wanted):
    """A maze to be read."""

    maze: str


class Try(Wanted):
    """A maze to be tried; without `attempts` as often as `clew evaluate` tries it."""

    maze: str
    seed: Seed = 0
    attempts: Annotated[int, Field(ge=1, le=MOST_ATTEMPTS)] | None = None


class Draw(Wanted):
    """A held-out maze to be drawn, as `clew evaluate --family --side --count 1 --seed` draws it."""

    family: Family
    side: Annotated[int, Field(ge=5, le=MOST_SIDE)]
    seed: Seed = 0


class Page:
    """The answers to the page's requests."""

    def __init__(self, run_dir: Path | None) -> None:
        """Serves the run in `run_dir`, or what ships with clew where there is none, or none so far."""
        self.is_ending = False  # streams end then
        self._run_dir = run_dir
        self._history, self._refreshing = History(run_dir), asyncio.Lock()
        self._worker, self._waiting, self._watchers = ThreadPoolExecutor(1, "page"), 0, 0
        self._shown = TypeAdapter(Shown)

    def newest(self) -> tuple[Run, bool]:
        """Returns the run as it stands, and whether it is the one that was asked for, not the one that ships."""
        if self._run_dir and checkpoint.read(self._run_dir):
            return opened(self._run_dir), True
        return shipped.load(), False

    async def about(self, request: Request) -> Response:
        """Says what is shown, and how much can be asked for."""
        run, is_own = await self._done(self.newest)
        told = {
            "run": run.name,
            "update": run.update,
            "updates": run.config.run.updates,
            "is_own": is_own,
            "waits_for": self._run_dir.name if self._run_dir and not is_own else None,
            "attempts": attempts_of(adapting(run.config, None, None)),
            "most_attempts": MOST_ATTEMPTS,
            "most_side": MOST_SIDE,
            "families": get_args(Family),
        }
        return JSONResponse(told)

    async def draw(self, request: Request) -> Response:
        """Draws a maze of a family."""
        wanted = understood(Draw, await body_of(request))

        def work() -> Mazes:
            run, _ = self.newest()
            return exam.held_out(run.config, wanted.family, wanted.side, 1, wanted.seed).mazes

        return JSONResponse(as_read(await self._done(work)))

    async def read(self, request: Request) -> Response:
        """Reads a maze in either of clew's forms, and returns it in the first."""
        wanted = understood(Text, await body_of(request))
        return JSONResponse(as_read(await self._done(lambda: one_maze(wanted.maze))))

    async def attempt(self, request: Request) -> Response:
        """Tries a maze."""
        wanted = understood(Try, await body_of(request))

        def work() -> bytes:
            run, _ = self.newest()
            return self._shown.dump_json(tried(run, wanted.maze, wanted.attempts, wanted.seed))

        return Response(await self._done(work), media_type="application/json")

    async def watch(self, request: Request) -> Response:
        """Streams the figures of the run's updates: all there are, then each as it comes."""
        if self._watchers >= WATCHERS:
            raise HTTPException(503, f"{WATCHERS} pages watch already; close one of them", {"Retry-After": "10"})
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        """Yields server-sent events: `history` with all points, then `points` with those that are new."""
        self._watchers += 1
        now = asyncio.get_running_loop().time
        beginnings, last, told_at = -1, 0, now()
        try:
            while not self.is_ending:
                async with self._refreshing:
                    more = await asyncio.to_thread(self._history.refresh)
                is_anew = self._history.beginnings != beginnings
                fresh = [point for point in self._history.points if is_anew or point.update > last]
                if more:
                    continue
                if fresh or is_anew:  # what is told is noted first: while it is sent, others refresh
                    beginnings, last, told_at = self._history.beginnings, fresh[-1].update if fresh else 0, now()
                    yield f"event: {'history' if is_anew else 'points'}\ndata: {json.dumps(fresh)}\n\n"
                elif now() - told_at > QUIET_S:
                    told_at = now()
                    yield ": nothing new\n\n"
                await asyncio.sleep(POLL_S)
        finally:
            self._watchers -= 1

    async def _done(self, work: Callable[[], T]) -> T:
        """Lets the one thread do a piece of work; raises HTTPException where too many wait for it already."""
        if self._waiting >= WAITING:
            raise HTTPException(503, "the page is busy with other requests; try again soon", {"Retry-After": "1"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work)
        finally:
            self._waiting -= 1


def understood(kind: type[W], body: bytes) -> W:
    """Reads what the page sends; raises HTTPException in one sentence."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, one['loc'])) or 'the request'}: {one['msg']}" for one in error.errors()[:3])
        raise HTTPException(422, "; ".join(faults)) from None


def as_read(mazes: Mazes) -> dict[str, Any]:
    """Returns a maze as the page takes it."""
    return {"maze": mazes.to_text(0), "shortest": int(shortest_M(mazes)[0])}


def application(page: Page, host: str) -> Starlette:
    """Puts the routes together. Only the files that are there now are served, each under its name."""

    def served(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            return Response(content, media_type=kind)

        return serve

    files = {
        f"/{path.name}": served(path.read_bytes(), TYPES[path.suffix])
        for path in FOLDER.iterdir()
        if path.suffix in TYPES
    }

    return Starlette(
        routes=[
            Route("/", files["/index.html"]),
            *(Route(name, answer) for name, answer in files.items()),
            Route("/healthz", served(b"ok\n", "text/plain")),
            Route("/about", page.about),
            Route("/watch", page.watch),
            *(Route(f"/{way.__name__}", way, methods=["POST"]) for way in (page.draw, page.read)),
            Route("/try", page.attempt, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, host=host)],
        exception_handlers={HTTPException: told, ClewError: told, Exception: told},
    )


async def told(request: Request, error: Exception) -> Response:
    """Answers with one sentence that says what is wrong."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, ClewError):
        return JSONResponse({"error": str(error)}, 422)
    return JSONResponse({"error": "the page failed to answer; what it has logged says why"}, 500)


class Server(uvicorn.Server):
    """Serves until a signal ends it, and ends the streams then."""

    def __init__(self, page: Page, host: str) -> None:
        """Prepares to serve the page."""
        self._page = page
        app = application(page, host)
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=3,
            )
        )

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Takes a signal."""
        self._page.is_ending = True
        super().handle_exit(sig, frame)


def listening(host: str, port: int) -> socket.socket:
    """Listens on a host and a port; 0 is any free one. Raises ClewError where that is not to be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)  # who comes before the server runs waits
        return listener
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no host has such a name"
        raise ClewError(
            f"cannot serve the page on {host}, port {port}: {reason}; choose another --port or --host"
        ) from None
