"""The little of HTTP that the gateway needs, on raw ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

from cosilo.gateway.refusals import RequestError

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

Headers = list[tuple[bytes, bytes]]


class ClientLeftError(Exception):
    """The client closed the connection; there is nobody to answer."""


class Bodies:
    """Reads request bodies, within a limit for each and one for all that are being read.

    Args:
        largest: bytes of one body.
        together: bytes of all bodies held at the same moment.
        seconds: how long a client may take to send one.
    """

    def __init__(self, largest: int, together: int, seconds: float) -> None:
        self.largest = largest
        self.together = together
        self.seconds = seconds
        self.held = 0

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body; the caller gives it back with `release` when it is no longer held.

        Raises:
            RequestError: too large (413), too slow (408), or no room now (503).
            ClientLeftError: the connection is gone.
        """
        stated = header(scope, b"content-length")
        if stated.isdigit() and int(stated) > self.largest:
            raise self._too_large()
        if header(scope, b"content-encoding").lower() not in (b"", b"identity"):
            raise RequestError("compressed bodies are not accepted", status=415)
        arrived = getattr(getattr(receive, "__self__", None), "arrived", None)
        if arrived is not None and (came := arrived()) is not None:  # with its head, as nearly all
            if len(came) > self.largest:
                raise self._too_large()
            self._take(len(came))
            return bytes(came)
        try:
            async with asyncio.timeout(self.seconds):
                event = await receive()
                if event["type"] != "http.request":
                    raise ClientLeftError
                if event.get("more_body"):
                    return await self._rest(event["body"], receive)
        except TimeoutError:
            raise RequestError(
                f"the body did not arrive within {self.seconds:g} s",
                status=408, headers={"connection": "close"},
            ) from None  # fmt: skip
        body: bytes = event["body"]
        if len(body) > self.largest:
            raise self._too_large()
        self._take(len(body))
        return body

    def release(self, body: bytes) -> None:
        self.held -= len(body)

    async def _rest(self, first: bytes, receive: Receive) -> bytes:
        pieces = [first]
        size = len(first)
        self._take(size)
        try:
            while True:
                event = await receive()
                if event["type"] != "http.request":
                    raise ClientLeftError
                piece: bytes = event["body"]
                if size + len(piece) > self.largest:
                    raise self._too_large()
                self._take(len(piece))
                size += len(piece)
                pieces.append(piece)
                if not event.get("more_body"):
                    return b"".join(pieces)
        except BaseException:
            self.held -= size
            raise

    def _take(self, size: int) -> None:
        if self.held + size > self.together:
            raise RequestError(
                "too many request bodies at once; try again",
                status=503, kind="server_error", code="overloaded", headers={"retry-after": "1"},
            )  # fmt: skip
        self.held += size

    def _too_large(self) -> RequestError:
        return RequestError(
            f"the body is larger than {self.largest} bytes",
            status=413, code="body_too_large", headers={"connection": "close"},
        )  # fmt: skip


def header(scope: Scope, name: bytes) -> bytes:
    """The value of the header `name` (in lower case), or nothing."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return b""


def encode_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(k.encode("latin-1"), v.encode("latin-1", "replace")) for k, v in headers]


async def respond(
    send: Send,
    status: int,
    body: bytes,
    headers: Headers,
    *,
    content_type: bytes = b"application/json",
) -> None:
    """A whole response.

    Raises:
        ClientLeftError: from this and the next four: the connection is gone.
    """
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    ]
    whole = getattr(getattr(send, "__self__", None), "whole", None)
    if whole is not None:
        try:
            await whole(status, headers, body)
        except RuntimeError:
            raise ClientLeftError from None
        return
    await _send(send, {"type": "http.response.start", "status": status, "headers": headers})
    await _send(send, {"type": "http.response.body", "body": body})


async def no_content(send: Send, headers: Headers) -> None:
    """A response that is nothing but its headers (204, which has no length and no type)."""
    await _send(send, {"type": "http.response.start", "status": 204, "headers": headers})
    await _send(send, {"type": "http.response.body", "body": b""})


async def begin_events(send: Send, headers: Headers) -> None:
    """The start of a stream of server-sent events."""
    await _send(send, {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            (b"x-content-type-options", b"nosniff"),
            *headers,
        ],
    })  # fmt: skip


async def piece(send: Send, data: bytes) -> None:
    try:  # as `_send` does, without a call for each piece
        await send({"type": "http.response.body", "body": data, "more_body": True})
    except RuntimeError:
        raise ClientLeftError from None


async def end(send: Send, data: bytes = b"") -> None:
    await _send(send, {"type": "http.response.body", "body": data})


async def _send(send: Send, event: Event) -> None:
    try:
        await send(event)
    except RuntimeError:  # the transport is closed, and the server has not noticed yet
        raise ClientLeftError from None


class ClientWatch:
    """Calls `told` when the client goes, until it is cancelled; to be made once the body has been read.

    uvicorn with our protocol tells it by itself; under another server a task waits for it.
    """

    def __init__(self, receive: Receive, told: Callable[[], None]) -> None:
        self._task: asyncio.Task[None] | None = None
        cycle: Any = getattr(receive, "__self__", None)
        self._cycle = cycle if hasattr(cycle, "left") else None
        if self._cycle is None:
            self._task = asyncio.create_task(_watch(receive, told))
        elif cycle.disconnected:
            told()
        else:
            cycle.left = told

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self._cycle is not None:
            self._cycle.left = None


async def _watch(receive: Receive, told: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    told()


to_json = msgspec.json.Encoder().encode
