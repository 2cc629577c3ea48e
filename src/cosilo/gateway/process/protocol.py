"""uvicorn's HTTP/1.1 protocol with what it lacks.

* Limits on how long a client may take to send a request's head, what is left of a body after its
  answer, or to take its answer, and on how large a head may be.
* What RFC 9112 has refused: a host that is missing, doubled or none; codings other than `chunked`;
  versions other than 1.0 and 1.1. Fields behind a body do not become fields of its head.
* A request that asks for another protocol is answered in this one, with its body.
* A broken request is refused once those before it are answered, never in place of their answers.
* Small pieces of an answer are sent together.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

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
        parser: Any
        cycle: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._head: int | None = 0  # bytes of the head under way; None outside of one
            # For a head, or the rest of a body, that does not come; for the next request.
            self._slow = Alarm(self.loop, patience.header, self._give_up)
            self._idle = Alarm(self.loop, self.timeout_keep_alive, self.timeout_keep_alive_handler)
            self._unread: asyncio.TimerHandle | None = None
            self._answered: Any = None  # the request that is being answered
            self._body_open = False  # whether more of the newest request's body is to come
            self._last = False  # whether the connection is closed after the requests so far

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(Gathering(transport, self.loop))  # type: ignore[arg-type]
            self._slow.set()

        def connection_lost(self, exc: Exception | None) -> None:
            self._slow.close()
            self._idle.close()
            if self._unread is not None:
                self._unread.cancel()
            super().connection_lost(exc)
            cycle = self._answered
            if cycle is not None and not cycle.response_complete and cycle.left is not None:
                cycle.disconnected = True
                cycle.left()

        def data_received(self, data: bytes) -> None:
            self._unset_keepalive_if_required()
            if self._head is not None:
                self._head += len(data)
                if self._head > LARGEST_HEAD and not self._complete(data):
                    self._refuse("The request's head is too large.")
                    return
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._stay(data[upgrade.args[0] :])
            except httptools.HttpParserError:
                self._refuse("Invalid HTTP request received.")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._head is None:
                self._head = 0
                self._slow.set()

        def on_headers_complete(self) -> None:
            self._head = None
            self._slow.stop()
            check_head(self.parser.get_http_version(), self.headers)
            if not self.url.startswith(b"/"):
                self.url = _with_path(self.url)
            super().on_headers_complete()
            self.cycle.__class__ = Cycle  # uvicorn makes its own, and nobody can tell it another
            self._body_open = True
            self.headers = _NOTHING  # what is behind the body is no part of the head

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._body_open = False
            if self.cycle.response_complete:  # the rest of a body that nobody waited for
                self._slow.stop()
                self._next()

        def on_response_complete(self) -> None:
            if self._last and not self.pipeline:
                self.transport.close()
            self._next()

        def _next(self) -> None:
            self.server_state.total_requests += 1  # from here on as uvicorn does
            if self.transport.is_closing():
                return
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            elif self._body_open and self.cycle.response_complete:
                self._slow.set()
            else:
                self._idle.set()

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._answered = cycle
            super()._start_asgi_task(cycle, app)

        def _unset_keepalive_if_required(self) -> None:
            self._idle.stop()

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._unread is None:
                self._unread = self.loop.call_later(patience.write, self.transport.abort)

        def resume_writing(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None
            super().resume_writing()

        def _refuse(self, why: str) -> None:
            """Take nothing more, and refuse what is broken: the newest request, or one behind it."""
            self.parser = _Deaf()
            self._slow.stop()
            if self._body_open and self.pipeline:
                self.pipeline.popleft()  # broken before it was begun
                self._last = True
            elif self._body_open and self.cycle.response_started:
                self.transport.close()  # a second answer would be taken for that to another request
            elif self._body_open or self.cycle is None or self.cycle.response_complete:
                self.send_400_response(why)
            else:
                self._last = True

        def _stay(self, rest: bytes) -> None:
            """Answer a request for another protocol in this one, and close the connection then.

            The parser takes what follows such a head (`rest`) for the other protocol, so the body is
            read by another, which is told how long it is.
            """
            self.cycle.keep_alive = False
            framing = [
                name + b": " + value + b"\r\n"
                for name, value in self.scope["headers"]
                if name in (b"content-length", b"transfer-encoding")
            ]
            if self.scope["method"] == "CONNECT" or not framing:
                self.parser = _Deaf()
                return
            self._body_open = self.cycle.more_body = True
            self.parser = httptools.HttpRequestParser(_Body(self))
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
            self.data_received(rest)

        def _complete(self, data: bytes) -> bool:
            """Whether the head ends within `data`, so that the rest of it is body."""
            end = data.find(b"\r\n\r\n")
            return end >= 0 and (self._head or 0) - len(data) + end <= LARGEST_HEAD

        def _give_up(self) -> None:
            self.transport.abort()

    return Limited


class Cycle(RequestResponseCycle):
    """A request and its response, with shorter ways for what nearly all of them are: bodies that have
    come with their heads, and answers in one piece. `web.http` takes them where they are.

    Attributes:
        left: what is to be done when the client goes before it is answered.
    """

    left: Callable[[], object] | None = None

    def arrived(self) -> bytes | None:
        """The body, if all of it has come; else `receive` waits for it."""
        if self.more_body or self.disconnected or self.response_complete:
            return None
        self.flow.resume_reading()
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return body

    async def whole(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a response with its `content-length` among `headers`, whose names are in lower case.

        Raises:
            RuntimeError: a value is none of a header, or the response was begun.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_started:
            raise RuntimeError("the response was begun")
        lines = [STATUS_LINE[status]]
        for name, value in (*self.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
            if name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
        if _NO_VALUE.search(b"".join(lines[3::4])):
            raise RuntimeError("no value of a header")
        if not self.keep_alive and b"connection" not in lines[1::4]:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        if self.scope["method"] != "HEAD":
            lines.append(body)
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(b"".join(lines))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Alarm:
    """Calls `ring` when `seconds` have passed since it was set, unless it was stopped meanwhile.

    It is set and stopped with each request, and hardly ever rings: one timer of the event loop looks
    after all of that.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, ring: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._ring = ring
        self._end = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self) -> None:
        self._end = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._end, self._look)

    def stop(self) -> None:
        self._end = math.inf

    def close(self) -> None:
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._end == math.inf:
            return
        if self._loop.time() < self._end:
            self._timer = self._loop.call_at(self._end, self._look)
        else:
            self._end = math.inf
            self._ring()


def check_head(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a head that the parser lets pass and RFC 9112 does not (sections 2.3, 3.2, 6.1, 6.3).

    Raises:
        ValueError: it is one.
    """
    if version not in ("1.0", "1.1"):
        raise ValueError("version")
    hosts = codings = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not _is_host(value):
                raise ValueError("host")
        elif name == b"transfer-encoding":
            codings += 1
            if value.lower() != b"chunked" or version == "1.0":
                raise ValueError("transfer-encoding")
    if hosts > 1 or (not hosts and version == "1.1") or codings > 1:
        raise ValueError("host or transfer-encoding")


# RFC 3986, 3.2.2 and 3.2.3: an address in brackets or a name, and a port.
_HOST = re.compile(
    rb"(?:\[[0-9A-Za-z:.%~_-]+\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::\d*)?", re.A
)


@lru_cache(maxsize=1024)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _with_path(url: bytes) -> bytes:
    """An absolute target; the path that it leaves out is `/` (RFC 9110, 4.2.3)."""
    found = httptools.parse_url(url)
    if found.schema is None or found.path is not None:
        return url
    return b"/" + (b"?" + found.query if found.query else b"")


class _Nothing(list[tuple[bytes, bytes]]):
    """Keeps none of the headers it is given."""

    def append(self, item: tuple[bytes, bytes]) -> None: ...


_NOTHING = _Nothing()


class _Deaf:
    """A parser for a connection from which nothing more is taken."""

    def feed_data(self, data: bytes) -> None: ...

    def should_upgrade(self) -> bool:
        return False


class _Body:
    """What a parser tells that reads the rest of a request whose head was read before."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def on_body(self, body: bytes) -> None:
        self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        self._protocol.parser = _Deaf()
        self._protocol.on_message_complete()


class Gathering:
    """A transport that sends what is written in one turn of the event loop with one system call.

    The events of a stream often arrive together, and a call for each costs more than making them.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self.is_closing = transport.is_closing
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
