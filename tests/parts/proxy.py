"""A TCP proxy that makes a network as bad as a test wants it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from asyncio import Queue, StreamReader, StreamWriter, Task
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any

from tests.parts.deadline import DEADLINE_S

Endpoint = tuple[str, int]  # host, port

CHUNK_BYTES = 1 << 16
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what is on its way, and says so


class Proxy:
    """Forwards what connects to `listen` on to `target`, in a thread of its own, while its `with` lasts."""

    def __init__(self, listen: Endpoint, target: Endpoint) -> None:
        self.delay_s = 0.0  # each way; throughput stays
        self.trickle = False  # a byte at a time
        self.connections = 0  # accepted, ever
        self._listen, self._target = listen, target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._flows = asyncio.Event()
        self._flows.set()
        self._ends: set[StreamWriter] = set()  # both of every connection
        self._tasks: set[Task[Any] | None] = set()  # one for each connection

    def __enter__(self) -> Proxy:
        self._thread.start()
        try:
            self._do(self._serve())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._shut())
        self._end()

    def stall(self) -> None:
        """Nothing gets through any more; what comes is accepted, and held."""
        self._do(_called(self._flows.clear))

    def resume(self) -> None:
        """Lets everything through, what was held first."""
        self._do(_called(self._flows.set))

    def reset(self) -> None:
        """All connections of this moment are lost on both sides, with what was on its way."""
        self._do(_called(self._lose))

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine in the proxy's thread, to its end."""
        asyncio.run_coroutine_threadsafe(what, self._loop).result(DEADLINE_S)

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(self._accept, *self._listen)

    async def _shut(self) -> None:
        self._server.close()
        for task in self._tasks:
            if task:
                task.cancel()
        await asyncio.gather(*filter(None, self._tasks), return_exceptions=True)
        await self._server.wait_closed()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _lose(self) -> None:
        for end in self._ends:
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.transport.abort()

    async def _accept(self, near_reader: StreamReader, near: StreamWriter) -> None:
        """A connection's life."""
        self.connections += 1
        self._tasks.add(task := asyncio.current_task())
        ends = {near}
        try:
            far_reader, far = await asyncio.open_connection(*self._target)
            ends |= {far}
            self._ends |= ends
            await asyncio.gather(self._forward(near_reader, far), self._forward(far_reader, near))
        except OSError:
            pass  # nobody listens: the connection ends at once
        except asyncio.CancelledError:
            pass  # the proxy shuts
        finally:
            self._ends -= ends
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()

    async def _forward(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One direction, to its end."""
        held: Queue[tuple[float, bytes]] = Queue()  # when it is due, and what: nothing at the end
        reading = asyncio.create_task(self._hold(reader, held))
        try:
            content = b"unknown yet"
            while content:
                due, content = await held.get()
                await asyncio.sleep(due - self._loop.time())
                await self._deliver(content, writer)
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    async def _hold(self, reader: StreamReader, held: Queue[tuple[float, bytes]]) -> None:
        content = b"unknown yet"
        while content:
            try:
                content = await reader.read(CHUNK_BYTES)
            except OSError:  # a reset is an end that must wait its turn as any other
                content = b""
            held.put_nowait((self._loop.time() + self.delay_s, content))

    async def _deliver(self, content: bytes, writer: StreamWriter) -> None:
        """Delivers what has come as soon as it may go, to whoever is still there."""
        await self._flows.wait()
        with suppress(OSError):
            if not content:
                writer.write_eof()
            step = 1 if self.trickle else CHUNK_BYTES
            for at in range(0, len(content), step):
                writer.write(content[at : at + step])  # TCP_NODELAY is asyncio's default
                await writer.drain()


async def _called(act: Callable[[], object]) -> None:
    act()
