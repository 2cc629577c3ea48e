"""The host's HTTP: who asks is who their certificate names, and nobody else gets a word.

One request at a time on a connection, kept open between requests. A client has so many connections; a
body, and a reply, must be taken in a stated time, so that a slow client holds up nobody but itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web, web_protocol
from aiohttp.typedefs import LooseHeaders

from cosilo.boundary.transports.agreed import (
    CARRY,
    CONTENT,
    HAVE,
    HELLO,
    ID,
    MESSAGES,
    OURS,
    PROTOCOL,
    SPEAKS,
    STREAM,
    Hello,
    is_id,
)
from cosilo.boundary.transports.tls import client_of, over
from cosilo.errors import CosiloError
from cosilo.host.config import Listening
from cosilo.host.work import ClientService, NotServedError

log = logging.getLogger("cosilo.host")

_HEADERS: LooseHeaders = {"Content-Type": CONTENT}


class HostServer(web.Server):
    """Answers the requests of `services`' clients.

    Args:
        services: by the client's name; replaced when the configuration is read again.
        hello: what the host says of itself, without its clock and what a client may see.
    """

    def __init__(
        self, services: Mapping[str, ClientService], hello: Hello, patience: Listening
    ) -> None:
        super().__init__(
            self._answer,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,  # few bytes could stand for very many
            keepalive_timeout=300.0,
            lingering_time=0,
            logger=_SILENT,
        )
        self.services = services
        self.stopping = False
        self._said = hello
        self._patience = patience
        self._open: Counter[str] = Counter()
        self._waiting: dict[Any, asyncio.TimerHandle] = {}
        self._clients: dict[Any, tuple[str, Mapping[str, Any]]] = {}

    def connection_made(
        self, handler: web_protocol.RequestHandler, transport: asyncio.Transport
    ) -> None:
        super().connection_made(handler, transport)
        certificate = transport.get_extra_info("peercert") or {}
        client = client_of(certificate)
        self._clients[handler] = client, certificate
        self._open[client] += 1
        if self._open[client] > self._patience.connections:
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._waiting[handler] = loop.call_later(self._patience.first_seconds, transport.abort)

    def connection_lost(
        self, handler: web_protocol.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        client, _ = self._clients.pop(handler, ("", {}))
        self._open[client] -= 1
        if self._open[client] <= 0:
            del self._open[client]
        self._asked(handler)

    def _asked(self, handler: Any) -> None:
        timer = self._waiting.pop(handler, None)
        if timer is not None:
            timer.cancel()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._asked(request.protocol)
        try:
            return await self._served(request)
        except NotServedError as error:
            return _refuse(error.status, str(error))
        except TimeoutError:
            return _refuse(408, "the request, or what took its reply, was too slow")
        except CosiloError as error:
            log.error("a request was not answered: %s", error.logged)
            return _refuse(503, type(error).__name__)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            # Only its class: the text may quote what it failed on.
            log.error("a request was not answered: %s", type(error).__name__)
            return _refuse(500, type(error).__name__)

    async def _served(self, request: web.BaseRequest) -> web.StreamResponse:
        service = self._service(request)
        if request.path == HELLO and request.method == "GET":
            return self._hello(service)
        if request.path not in (CARRY, STREAM) or request.method != "POST":
            raise NotServedError(404, "there is no such place here")
        spoken = request.headers.get(SPEAKS, "")
        if spoken != OURS.header:
            plain = spoken.isascii() and spoken.replace(".", "").isdigit() and len(spoken) < 12
            theirs = spoken if plain else "none"
            raise NotServedError(426, f"this host speaks {OURS}; the client speaks {theirs}")
        name = request.headers.get(ID, "")
        if not is_id(name):
            raise NotServedError(400, f"{ID} must be 32 hexadecimal digits")
        if self.stopping:
            raise NotServedError(503, "the host is stopping; try again")
        payload = await self._body(request)
        if request.path == STREAM:
            return await self._stream(request, service, name, payload)
        answer = await service.answer(name, payload)
        return web.Response(body=answer, headers=_HEADERS)

    def _service(self, request: web.BaseRequest) -> ClientService:
        client, certificate = self._clients.get(request.protocol, ("", {}))
        if over(certificate):
            raise NotServedError(403, "the client's certificate is over")
        service = self.services.get(client)
        if service is None:
            raise NotServedError(403, "this host knows no client of that certificate's name")
        return service

    def _hello(self, service: ClientService) -> web.Response:
        said = msgspec.structs.replace(self._said, at=time.time(), exposes=str(service.exposes))
        return web.Response(body=msgspec.json.encode(said), content_type="application/json")

    async def _body(self, request: web.BaseRequest) -> bytes:
        if "Content-Encoding" in request.headers:
            raise NotServedError(415, "a request must come as it is, not compressed")
        length = request.content_length
        if length is None:
            raise NotServedError(411, "a request must say how long it is")
        if length > self._patience.max_body_bytes:
            most = self._patience.max_body_bytes
            raise NotServedError(413, f"{length} bytes are more than a request may have, {most}")
        if request.content.is_eof():  # all of it came with the headers
            return await request.content.read()
        async with asyncio.timeout(self._patience.body_seconds):
            return await request.content.read()

    async def _stream(
        self, request: web.BaseRequest, service: ClientService, name: str, payload: bytes
    ) -> web.StreamResponse:
        frames = service.answer_in_pieces(name, payload, _had(request.headers.get(HAVE, "")))
        response = web.StreamResponse(headers=_HEADERS)
        begun = False
        async for frame in frames:
            async with asyncio.timeout(self._patience.write_seconds):
                if not begun:
                    await response.prepare(request)
                    begun = True
                await response.write(frame)
        if not begun:
            raise NotServedError(503, "the host is stopping; try again")
        await response.write_eof()
        return response


class _Silent(logging.Logger):
    """aiohttp's own errors carry tracebacks, which may quote."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 — logging's name
        return False


_SILENT = _Silent("cosilo.host.http")


def hello_of(name: str, model: str) -> Hello:
    return Hello(protocol=PROTOCOL, messages=MESSAGES, name=name, model=model)


def _refuse(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)


def _had(text: str) -> tuple[int, str] | None:
    """How many pieces a client has, and their digest, from its header."""
    if not text:
        return None
    count, _, digest = text.partition(".")
    if not (text.isascii() and count.isdigit() and len(count) < 10 and len(digest) == 64):
        raise NotServedError(400, f"{HAVE} must be a number of pieces, a dot and their SHA-256")
    return int(count), digest
