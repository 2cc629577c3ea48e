"""uvicorn's HTTP/1.1 protocol with the limits it lacks: how long a client may take to send a
request's head or to take its answer, and how large a head may be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 << 10


@dataclass(frozen=True)
class Patience:
    """Seconds: for a request's head, and for a client that does not read what it is sent."""

    header: float
    write: float


def protocol(patience: Patience) -> type[asyncio.Protocol]:
    """The protocol class to give to uvicorn."""

    class Limited(HttpToolsProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._head: int | None = 0  # bytes of the head under way; None outside of one
            self._timer: asyncio.TimerHandle | None = None
            self._unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
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
