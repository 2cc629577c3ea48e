"""A way between a client and a host that breaks where it is told to: connections are reset after so
many bytes in one direction, and what comes is held back."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closed with a reset


@dataclass(frozen=True)
class Break:
    """Where one connection breaks: once so many bytes have gone `up` to the host, or come `down` from
    it; never, where neither is given. What comes down is held back for `delay` seconds.
    """

    up: int | None = None
    down: int | None = None
    delay: float = 0.0


class BreakingWay:
    """Connections to `port`; `plan` says of the first, the second, … where it breaks."""

    def __init__(self, port: int, plan: Callable[[int], Break]) -> None:
        self.port = 0
        self.connections = 0
        self.broken = 0
        self.up = self.down = 0  # bytes of all connections
        self._to = port
        self._plan = plan
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        where = self._plan(self.connections)
        self.connections += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._carry(reader, back, where.up, 0.0, "up")),
            asyncio.create_task(self._carry(there, writer, where.down, where.delay, "down")),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in (writer, back):
                sock = end.get_extra_info("socket")
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.transport.abort()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        most: int | None,
        delay: float,
        direction: str,
    ) -> None:
        left = most
        while left is None or left > 0:
            try:
                data = await source.read(left or 1 << 16)
            except OSError:
                return
            if not data:
                return
            if delay:
                await asyncio.sleep(delay)
            setattr(self, direction, getattr(self, direction) + len(data))
            if left is not None:
                left -= len(data)
            target.write(data)
            await target.drain()
        self.broken += 1

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def breaking(port: int, plan: Callable[[int], Break]) -> AsyncIterator[BreakingWay]:
    way = BreakingWay(port, plan)
    server = await asyncio.start_server(way.accept, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        server.close()
        await way.close()
        await server.wait_closed()
