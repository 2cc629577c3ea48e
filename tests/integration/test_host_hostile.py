"""Hostile bytes on the network: to a host from a client it knows, and to a client from a host."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import ssl
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from tests.integration.hosts import CLIENT, a_host, write_host

from cosilo.boundary.messages import (
    Ask,
    Completion,
    Message,
    Refused,
    Score,
    Scored,
    Step,
    decode,
    encode,
)
from cosilo.boundary.transports import tls
from cosilo.boundary.transports.agreed import (
    CARRY,
    HAVE,
    HELLO,
    ID,
    MESSAGES,
    OURS,
    PROTOCOL,
    SPEAKS,
    STREAM,
    Hello,
    framed,
    new_id,
)  # fmt: skip
from cosilo.boundary.transports.http import Https
from cosilo.errors import CosiloError, UnreachableError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.types import Sampling, user
from mutated import ENCODED, altered, changed

EXAMPLES = 300
BOMB_MB = 400


def bomb() -> bytes:
    """Few bytes that stand for very many."""
    coder = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    return b"".join(coder.compress(zeros) for _ in range(BOMB_MB)) + coder.flush()


def grown_mb(before: int) -> float:
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def files(folder: Path) -> tuple[Path, Path, Path]:
    """The authority, the client's certificate and its key."""
    certs = folder / "certs"
    return certs / "ca.pem", certs / f"client-{CLIENT}.pem", certs / f"client-{CLIENT}.key"


@contextlib.asynccontextmanager
async def raw(folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Connections with the client's certificate, for whatever HTTP somebody wants to send."""
    context = tls.asking(*files(folder))
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context), headers={SPEAKS: OURS.header}
    ) as session:
        yield session


@pytest.mark.parametrize("path", [CARRY, STREAM])
async def test_a_host_answers_changed_messages_with_refusals_of_ours(
    tmp_path: Path, path: str
) -> None:
    rng = random.Random(path)
    async with (
        a_host(write_host(tmp_path), ScriptedModel()) as host,
        raw(tmp_path) as session,
    ):
        for i in range(EXAMPLES):
            whole = ENCODED[i % len(ENCODED)]
            data = altered(whole, rng) if i // len(ENCODED) % 2 else changed(whole, ENCODED, rng)
            headers = {ID: new_id()}
            async with session.post(host.url + path, data=data, headers=headers) as response:
                said = await response.read()
            assert response.status == 200, said
            if path == CARRY:
                decode(said)
        async with session.post(
            host.url + CARRY, data=encode(Ask(chat=user("q"))), headers={ID: new_id()}
        ) as response:
            assert not isinstance(decode(await response.read()), Refused)


@pytest.mark.parametrize(
    "request_",
    [
        Ask(chat=user("q"), sampling=Sampling(max_tokens=1 << 31, top_logprobs=1 << 20)),
        Score(items=(Scored(user("q"), "x" * 100_000),), top=1 << 24),
        Step(thread=bytes(16), draft="x" * 60_000, held=1 << 31, top=1 << 16, each=True),
    ],
    ids=lambda r: type(r).__name__,
)
async def test_a_host_counts_the_largest_request_that_there_is(
    tmp_path: Path, request_: Message
) -> None:
    clients = "total = {usd = 1e300, tokens_out = 9000000000000000, logits = 9000000000000000}"
    async with (
        a_host(write_host(tmp_path, clients=clients), ScriptedModel()) as host,
        raw(tmp_path) as session,
    ):
        async with session.post(
            host.url + CARRY, data=encode(request_), headers={ID: new_id()}
        ) as response:
            said = decode(await response.read())
        assert isinstance(said, Completion) or said.kind in (
            "CapabilityError",
            "BudgetExceededError",
        )


@pytest.mark.parametrize(
    "headers",
    [
        {HAVE: "²." + "0" * 64},
        {HAVE: "1." + "é" * 64},
        {HAVE: "1" * 5000 + "." + "0" * 64},
        {ID: "²" * 32},
        {SPEAKS: "²"},
        {SPEAKS: "1" * 8000},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br"},
        {"Transfer-Encoding": "chunked"},
    ],
    ids=str,
)
async def test_a_host_refuses_odd_headers(tmp_path: Path, headers: dict[str, str]) -> None:
    async with (
        a_host(write_host(tmp_path), ScriptedModel()) as host,
        raw(tmp_path) as session,
    ):
        for _ in range(2):
            async with session.post(
                host.url + STREAM,
                data=encode(Ask(chat=user("q"))),
                headers={ID: new_id(), **headers},
            ) as response:
                assert 400 <= response.status < 500, await response.text()
        assert not list(host.services[CLIENT].books.ledger.entries())


ASK = encode(Ask(chat=user("q")))
POST = f"POST {CARRY} HTTP/1.1\r\nHost: x\r\n{SPEAKS}: {OURS.header}\r\n{ID}: ".encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 1000,
        b"\x16\x03\x01" + b"\xff" * 500,
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v1/hello HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        POST + b"0" * 32 + b"\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        POST + b"1" * 32 + b"\r\nContent-Length: -5\r\n\r\n" + ASK,
        POST + b"2" * 32 + b"\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" + ASK,
        POST + b"3" * 32 + b"\r\nContent-Length: 99999999999999999999\r\n\r\n" + ASK,
        POST + b"4" * 32 + b"\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + ASK,
        POST + b"5" * 32 + b"\r\nContent-Length: 500\r\n\r\n" + ASK,  # cut
        POST + b"6" * 32 + b"\r\nContent-Length: 2\r\n\r\nok" + b"\xff" * 100,  # more behind it
    ],
    ids=range(12),
)
async def test_a_host_outlives_what_is_no_http(tmp_path: Path, data: bytes) -> None:
    async with a_host(write_host(tmp_path), ScriptedModel()) as host:
        for _ in range(3):
            context = tls.asking(*files(tmp_path))
            reader, writer = await asyncio.open_connection(
                "localhost", host.port, ssl=context, server_hostname="localhost"
            )
            writer.write(data)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.drain()
            # What is whole is answered; the rest is waited for, so nothing more may come.
            with contextlib.suppress(TimeoutError, ConnectionError, ssl.SSLError):
                async with asyncio.timeout(0.3):
                    assert b"HTTP/1.1 5" not in await reader.read()
            writer.transport.abort()
        assert not list(host.services[CLIENT].books.ledger.entries())
        async with (
            raw(tmp_path) as session,
            session.post(host.url + CARRY, data=ASK, headers={ID: new_id()}) as response,
        ):
            assert isinstance(decode(await response.read()), Completion)


async def test_a_host_unpacks_nothing_that_came_compressed(tmp_path: Path) -> None:
    async with (
        a_host(write_host(tmp_path), ScriptedModel()) as host,
        raw(tmp_path) as session,
    ):
        data = bomb()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with session.post(
            host.url + CARRY, data=data, headers={ID: new_id(), "Content-Encoding": "gzip"}
        ) as response:
            assert response.status == 415
        assert grown_mb(before) < 20


@contextlib.asynccontextmanager
async def a_hostile_host(reply: bytes, **headers: str) -> AsyncIterator[Https]:
    """The way to a host on this machine, without TLS, that answers everything with `reply`."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == HELLO:
            said = msgspec.json.encode(Hello(protocol=PROTOCOL, messages=MESSAGES, at=0.0))
            return web.Response(body=said)
        return web.Response(body=reply, headers=headers)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    way = Https(f"http://127.0.0.1:{runner.addresses[0][1]}", patience_s=0.2, timeout_s=5.0)
    try:
        yield way
    finally:
        await way.close()
        await runner.cleanup()


async def test_a_client_unpacks_nothing_that_came_compressed() -> None:
    data = bomb()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with a_hostile_host(data, **{"Content-Encoding": "gzip"}) as way:
        assert await way.carry(b"x") == data
        with contextlib.suppress(CosiloError):
            async for _ in way.carry_stream(b"x"):
                pass
    assert grown_mb(before) < 20


async def test_a_client_reads_changed_replies_as_pieces_or_refuses_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cosilo.boundary.transports.http._MOST_TIMES", 3)
    rng = random.Random(0)
    whole = b"".join(map(framed, ENCODED)) + framed(b"")
    ended = 0
    for _ in range(30):
        async with a_hostile_host(changed(whole, ENCODED, rng)) as way:
            with contextlib.suppress(CosiloError):
                async for piece in way.carry_stream(b"x"):
                    with contextlib.suppress(CosiloError):
                        decode(piece)
                ended += 1
    assert ended


async def test_a_reply_that_always_breaks_off_after_a_little_more_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cosilo.boundary.transports.http._MOST_TIMES", 4)
    async with a_hostile_host(framed(b"more")) as way:
        got: list[bytes] = []

        async def read() -> None:
            got.extend([piece async for piece in way.carry_stream(b"x")])

        with pytest.raises(UnreachableError, match="the reply was cut"):
            await read()
