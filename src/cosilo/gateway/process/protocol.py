"""uvicorn's HTTP/1.1 protocol with what it lacks: limits on how long a client may take to send a
request's head or to take its answer and on how large a head may be; and small pieces sent together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 << 10
AT_ONCE = 64 << 10  # bytes; more does not wait to be sent with what follows


@dataclass(frozen=True)
class ClientPatience:
    """Seconds: for a request's head, and for a client that does not read what it is sent."""

    header: float
    write: float


def protocol(patience: ClientPatience) -> type[asyncio.Protocol]:
    """The protocol class to give to uvicorn."""

    class Limited(HttpToolsProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._head: int | None = 0  # bytes of the head under way; None outside of one
            self._timer: asyncio.TimerHandle | None = None
            self._unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(Gathering(transport, self.loop))  # type: ignore[arg-type]
            self._timer = self.loop.call_later(patience.header, transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            if self._unread is not None:
                self._unread.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._head is not None:
                self._head += len(data)
                if self._head > LARGEST_HEAD and not self._complete(data):
                    self.send_400_response("The request's head is too large.")
                    return
            super().data_received(data)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._head is None:
                self._head = 0
                self._timer = self.loop.call_later(patience.header, self.transport.abort)

        def on_headers_complete(self) -> None:
            self._head = None
            self._stop_timer()
            super().on_headers_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._unread is None:
                self._unread = self.loop.call_later(patience.write, self.transport.abort)

        def resume_writing(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None
            super().resume_writing()

        def _complete(self, data: bytes) -> bool:
            """Whether the head ends within `data`, so that the rest of it is body."""
            end = data.find(b"\r\n\r\n")
            return end >= 0 and (self._head or 0) - len(data) + end <= LARGEST_HEAD

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Limited


class Gathering:
    """A transport that sends what is written in one turn of the event loop with one system call.

    The events of a stream often arrive together, and a call for each costs more than making them.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > AT_ONCE:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            if not self._transport.is_closing():
                self._transport.write(data)
