"""The links between engines' processes, through proxies of ours: counted, checked, under TLS.

    engine ──▶ LinkProxy (loopback) ══ TLS between machines ══▶ LinkProxy ──▶ the other's engine

An engine is never given another's address, only its own proxy's for it. Every byte of payload
passes one of them once on its way out, so their counts add up to all that parties sent each other.
What is no frame of the engine's protocol ends the run.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cosilo.errors import EngineError

LARGEST = 1 << 26
"""Bytes of a frame; SPU cuts what is longer than a megabyte."""

_BLOCK = 1 << 18
_HEAD = 12  # b"PRPC", the length of what follows, the length of its own head
_OPEN_S = 10.0
_LINKS = 64  # open at once; an engine needs one, and for a moment another when it tries again

Fault = Callable[[EngineError], None]


@dataclass
class Counted:
    """What passed in one direction: bytes, and whole frames.

    Attributes:
        most: bytes; a link on which more would pass fails.
    """

    bytes: int = 0
    frames: int = 0
    most: int | None = None

    def allow(self, more: int) -> None:
        """Let so many bytes pass from now on."""
        self.most = self.bytes + more


class FrameCheck:
    """Cuts what passes into frames of brpc's, so that they are counted and nothing else passes.

    Raises (from `feed`):
        ValueError: this is no frame.
    """

    def __init__(self, counted: Counted) -> None:
        self._counted = counted
        self._head = b""
        self._left = 0

    def feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._left:
                taken = min(self._left, len(view))
                self._left -= taken
                view = view[taken:]
                self._counted.frames += not self._left
                continue
            taken = min(_HEAD - len(self._head), len(view))
            self._head += bytes(view[:taken])
            view = view[taken:]
            if not b"PRPC".startswith(self._head[:4]):
                raise ValueError("no frame of the engine's protocol")
            if len(self._head) == _HEAD:
                self._left = int.from_bytes(self._head[4:8], "big")
                own = int.from_bytes(self._head[8:], "big")
                if not 0 < self._left <= LARGEST or own > self._left:
                    raise ValueError("no frame of the engine's protocol")
                self._head = b""

    @property
    def between(self) -> bool:
        """Whether the last frame was whole."""
        return not self._left and not self._head


class LinkProxy:
    """One end of a link: listens, and passes on to where the other party can be reached.

    Args:
        name: whose link it is, for errors.
        target: host and port.
        fault: told what ended a link before `closing` was said.
        accept: the TLS it listens with, where other machines connect to it.
        connect: the TLS it connects with, where the other party is on another machine.
        server_name: by which name that machine's certificate is checked.
        admits: whether a verified certificate may connect.

    Attributes:
        out, back: what passed to the target, and from it.
    """

    def __init__(
        self,
        name: str,
        target: tuple[str, int],
        fault: Fault,
        *,
        accept: ssl.SSLContext | None = None,
        connect: ssl.SSLContext | None = None,
        server_name: str | None = None,
        admits: Callable[[Mapping[str, Any] | None], bool] = lambda _: True,
    ) -> None:
        self.out, self.back = Counted(), Counted()
        self.port = 0
        self._name = name
        self._target = target
        self._fault = fault
        self._accept, self._connect, self._server_name = accept, connect, server_name
        self._admits = admits
        self._closing = self._closed = False
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def open(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(
            self._came, host, port, ssl=self._accept, limit=_BLOCK
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    @property
    def quiet(self) -> bool:
        """Whether nothing is under way: each frame has been answered, by one on the way back."""
        return self.out.frames == self.back.frames

    def closing(self) -> None:
        """From now on parties part: a link that ends is no fault."""
        self._closing = True

    async def close(self) -> None:
        """End every link and listen no longer; calling it twice is harmless."""
        self._closing = self._closed = True
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed or len(self._links) >= _LINKS:
            _ended(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            await self._link(reader, writer)
        except asyncio.CancelledError:
            if not self._closing:
                raise
        finally:
            _ended(writer)
            self._links.discard(task)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._accept is not None and not self._admits(writer.get_extra_info("peercert")):
            return
        try:
            there, onward = await self._onward()
        except (OSError, TimeoutError):
            return  # the other one listens not yet: the engine tries again, and gives up by itself
        out, back = Counted(), Counted()
        ways = [
            asyncio.create_task(self._pass(reader, onward, self.out, out)),
            asyncio.create_task(self._pass(there, writer, self.back, back)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            _ended(onward)  # before anything is waited for: whoever ends it twice cancels that, too
            await asyncio.gather(*ways, return_exceptions=True)
            if not back.bytes:  # nobody was there yet: the proxy at the other end counted nothing
                self.out.bytes -= out.bytes
                self.out.frames -= out.frames

    async def _onward(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to where the other party is; none is left open where nobody waits any more."""
        host, port = self._target
        opening = asyncio.ensure_future(
            asyncio.open_connection(
                host,
                port,
                ssl=self._connect,
                server_hostname=self._server_name if self._connect else None,
                limit=_BLOCK,
            )
        )
        try:
            async with asyncio.timeout(_OPEN_S):
                return await asyncio.shield(opening)
        except BaseException:
            opening.add_done_callback(_dropped)
            raise

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        counted: Counted,
        here: Counted,
    ) -> None:
        """One direction, counted with all others and by itself; whatever ends it while the run goes on
        is a fault."""
        check = FrameCheck(here)
        began = False
        with suppress(OSError):
            while data := await reader.read(_BLOCK):
                began = True
                before = here.frames
                try:
                    check.feed(data)
                except ValueError:
                    self._faulted("what came is no frame of the engine's protocol")
                    return
                if counted.most is not None and counted.bytes + len(data) > counted.most:
                    self._faulted(
                        f"more than {counted.most:,} bytes came, which is all it may take"
                    )
                    return
                counted.bytes += len(data)
                counted.frames += here.frames - before
                here.bytes += len(data)
                writer.write(data)
                await writer.drain()
        if began:
            whole = "between two messages" if check.between else "in the middle of a message"
            self._faulted(f"it broke off {whole}")

    def _faulted(self, why: str) -> None:
        if not self._closing:
            self._fault(EngineError(f"the link {self._name} failed: {why}"))


def _ended(writer: asyncio.StreamWriter) -> None:
    """End a connection at once; under TLS, without waiting for the other end to part."""
    writer.close()
    writer.transport.abort()


def _dropped(opening: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        _ended(opening.result()[1])
