"""HTTP/1.1 to one endpoint: kept connections, each with one request at a time.

    Connections.post ──▶ idle connection, or a new one ──▶ head ──▶ pieces of the body ──▶ idle again

What a general client does beside (cookies, redirects, proxies, forms) is not wanted here, and costs a
request more than sending it. The parser is httptools', uvicorn's own.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httptools

from cosilo.errors import ConfigError

LARGEST_HEAD = 64 << 10
_HELD = 256 << 10  # bytes that have come and were not read; no more is taken from the network then
_IDLE_S = 15.0  # servers close what is idle; one that is about to is not asked
_UNPACKED = 128 << 20  # bytes that a compressed reply may have
_TOGETHER = 64 << 10  # a body up to here is copied, to leave in one call with its head


class UnconnectedError(Exception):
    """There is no connection, so nothing was sent; the cause is what kept it from being made."""


class BrokenError(Exception):
    """The connection ended before the reply did, or what came is no HTTP; the text says which."""


class Connections:
    """The connections to the endpoint at `base_url`; they belong to one event loop.

    Args:
        headers: sent with each request.
        connect_timeout_s: seconds for a connection, its TLS included.

    Raises:
        ConfigError: a header cannot be sent.
        ValueError: the URL has a port or a host that cannot be.
    """

    def __init__(
        self, base_url: str, headers: Mapping[str, str], *, connect_timeout_s: float
    ) -> None:
        parts = urlsplit(base_url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = (parts.hostname or "").encode("idna").decode()
        self._port = parts.port or (443 if self._tls else 80)
        self._path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        host = f"[{self._host}]" if ":" in self._host else self._host
        if parts.port is not None and parts.port != (443 if self._tls else 80):
            host = f"{host}:{parts.port}"
        sent = {
            "Host": host,
            "User-Agent": "cosilo",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        lines = [f"{name}: {value}" for name, value in {**sent, **headers}.items()]
        if not all(line.isascii() and line.isprintable() for line in lines):
            raise ConfigError("a header of the requests, the key's perhaps, holds odd characters")
        self._head = ("\r\n".join(lines) + "\r\nContent-Length: ").encode()
        self._lines: dict[str, bytes] = {}

    async def post(self, path: str, body: bytes, seconds: float) -> Connection:
        """Send `body` to `path` below the base; the connection, once the head of its reply has come.

        The caller reads the reply from it, and gives it back with `Connection.release`.

        Args:
            seconds: in which the next thing that is waited for must have come, until the caller
                changes `Connection.deadline`.

        Raises:
            UnconnectedError: nothing was sent.
            BrokenError: no reply came.
            TimeoutError: it did not come in time.
        """
        connection = self._kept() or await self._connected()
        self._busy.add(connection)
        try:
            line = self._lines.get(path)
            if line is None:
                line = f"POST {self._path}{path} HTTP/1.1\r\n".encode() + self._head
                self._lines[path] = line
            connection.send(b"%b%d\r\n\r\n" % (line, len(body)), body, seconds)
            while not connection.status:
                await connection.more()
        except BaseException:
            connection.release()
            raise
        return connection

    def close(self) -> None:
        """Close all connections, also those in use."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()

    def _kept(self) -> Connection | None:
        oldest = self._loop.time() - _IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.since > oldest:
                return connection
            connection.abort()
        return None

    async def _connected(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except (OSError, ssl.CertificateError) as error:  # a TimeoutError is an OSError
            raise UnconnectedError from error
        return connection

    def _released(self, connection: Connection) -> None:
        self._busy.discard(connection)
        if connection.closed:
            return
        connection.since = self._loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_IDLE_S, self._sweep)

    def _sweep(self) -> None:
        oldest = self._loop.time() - _IDLE_S
        for connection in self._idle:
            if connection.since <= oldest:
                connection.abort()
        self._idle = [c for c in self._idle if not c.closed]
        self._sweeper = self._loop.call_later(_IDLE_S, self._sweep) if self._idle else None


class Connection(asyncio.Protocol):
    """One connection, and the reply that is coming on it.

    Attributes:
        status: of the reply; 0 until its head has come.
        at_end: the whole reply has come; some of it may be left to read.
        deadline: by the loop's clock, when what is waited for must have come.
        closed: it can take no further request.
        since: when it became idle.
    """

    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.closed = False
        self.since = self.deadline = 0.0
        self._busy = False
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.at_end = False
        self.headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._held = self._taken = 0
        self._paused = False
        self._until_closed = False  # the body ends with the connection
        self._packed: Any = (
            None  # what unpacks a body that is compressed, though nobody asked for it
        )
        self._room = _UNPACKED

    # What a caller does with it.

    def send(self, head: bytes, body: bytes, seconds: float) -> None:
        """Send a request; what came of the last one is forgotten."""
        self._begin()
        self._busy = True
        self.deadline = end = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > end:
            self._watch(end)
        if len(body) <= _TOGETHER:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def header(self, name: bytes) -> str:
        """The value of the header `name` (in lower case), or nothing."""
        found = next((value for key, value in self.headers if key.lower() == name), b"")
        return found.decode("latin-1").strip()

    @property
    def content_type(self) -> str:
        """The reply's type, without its parameters; `application/octet-stream` where it says none."""
        stated = self.header(b"content-type").partition(";")[0].strip().lower()
        return stated if "/" in stated else "application/octet-stream"

    async def piece(self) -> bytes:
        """What has come of the body and was not read yet, waiting for some; nothing at its end.

        Raises:
            BrokenError: the connection ended before the body did.
            TimeoutError: nothing came until the deadline.
        """
        while not self._pieces:
            if self.at_end:
                return b""
            await self.more()
        pieces, self._pieces, self._held = self._pieces, [], 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def more(self) -> None:
        """Wait until more of the reply has come."""
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        if self._error is not None and not self._pieces:
            raise self._error

    def release(self) -> None:
        """Give it back. Where the reply has not come whole, the connection is closed: that tells the
        endpoint to stop."""
        self._busy = False
        if self.closed or self._paused or not self.at_end:
            self.abort()
        self._owner._released(self)

    def abort(self) -> None:
        """Close it now."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    # What the event loop and the parser tell it.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._busy or self.at_end:
            self.abort()  # nobody asked for that
            return
        if not self.status:
            self._taken += len(data)
            if self._taken > LARGEST_HEAD + len(data):
                self._fail("the head of the reply is too large")
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self.at_end:
                self.closed = True  # the reply is whole; what is behind it is no other one
            else:
                self._fail("what came is no HTTP")
                return
        self._wake()

    def eof_received(self) -> None:
        self.closed = True
        if self._until_closed:
            self.at_end = True
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        if self._until_closed and error is None:
            self.at_end = True
        elif self._busy and not self.at_end and self._error is None:
            self._error = BrokenError("it was closed before the reply ended")
        self.abort()
        self._wake()

    def on_message_begin(self) -> None:
        if self.at_end:
            raise ValueError("a second reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # to be followed by the reply
            self.headers.clear()
            return
        self.status = status
        framed = status in (204, 304)
        for name, value in self.headers:
            name = name.lower()
            if name in (b"content-length", b"transfer-encoding"):
                framed = True
            elif name == b"content-encoding" and value.lower() in (b"gzip", b"deflate"):
                self._packed = zlib.decompressobj(47)
        self._until_closed = not framed

    def on_body(self, body: bytes) -> None:
        if self._packed is not None:
            body = self._packed.decompress(body, self._room)
            self._room -= len(body)
            if self._packed.unconsumed_tail:
                raise ValueError("the reply is too long")
        self._pieces.append(body)
        self._held += len(body)
        if self._held > _HELD and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status:
            self.at_end = True
            if not self._parser.should_keep_alive():
                self.closed = True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, why: str) -> None:
        self._error = BrokenError(why)
        self.abort()
        self._wake()

    # One timer for all requests: it looks whether a deadline has passed, and else comes again.

    def _watch(self, end: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(end, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._busy or self.closed:
            return
        if self._loop.time() < self.deadline:
            self._watch(self.deadline)
        elif self._waiter is None:  # its reader is at work with what came
            self._watch(self._loop.time() + 1.0)
        else:
            self._error = TimeoutError()
            self.abort()
            self._wake()
