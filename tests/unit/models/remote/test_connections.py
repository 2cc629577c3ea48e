"""HTTP/1.1 to one endpoint: what comes is read as RFC 9112 says, and what is broken is told apart."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cosilo.errors import ConfigError, RejectedError
from cosilo.models.remote import connections
from cosilo.models.remote.connections import BrokenError, Connections, UnconnectedError
from cosilo.models.remote.openai_compatible import OpenAIModel
from cosilo.types import user
from wire import GREEDY, Wire, ok

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request with the next of `answers`; an empty one closes the connection."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.opened = 0
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.bodies.append(await reader.readexactly(size))
                answer = self.answers.pop(0)
                writer.write(answer)
                if not answer or b"closes" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def serving(server: Serve) -> AsyncIterator[Connections]:
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    found = Connections(
        f"http://127.0.0.1:{port}/v1", {"Authorization": "Bearer k"}, connect_timeout_s=5.0
    )
    async with listening:
        yield found
        found.close()
        await asyncio.sleep(0)


async def said(c: Connections, body: bytes = b"{}", seconds: float = 5.0) -> tuple[int, bytes]:
    """The whole reply to one request."""
    connection = await c.post("/x", body, seconds)
    try:
        whole = b""
        while piece := await connection.piece():
            whole += piece
        return connection.status, whole
    finally:
        connection.release()


async def test_what_is_sent_and_that_the_connection_is_kept() -> None:
    server = Server(OK, OK)
    async with serving(server) as c:
        assert await said(c, b'{"a":1}') == (200, b"ok")
        large = b"x" * 200_000
        assert await said(c, large) == (200, b"ok")
    assert server.opened == 1
    assert server.heads[0].startswith(b"POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer k\r\n" in server.heads[0]
    assert server.bodies == [b'{"a":1}', large]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nX: closes\r\n\r\nuntil it ends", b"until it ends"),
        (b"HTTP/1.0 200 OK\r\nX: closes\r\nContent-Length: 2\r\n\r\nab", b"ab"),
        (b"HTTP/1.1 204 No\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
async def test_every_framing_of_a_body(answer: bytes, body: bytes) -> None:
    async with serving(Server(answer, OK)) as c:
        assert (await said(c))[1] == body
        assert await said(c) == (200, b"ok"), "the next request is answered as well"


async def test_a_body_that_is_compressed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(b"private" * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    damaged = head + b"\0" * len(packed)
    async with serving(Server(head + packed, head + packed, damaged)) as c:
        assert (await said(c))[1] == b"private" * 1000
        monkeypatch.setattr(connections, "_UNPACKED", 1000)
        for _ in range(2):  # one that grows without bound, one that is none
            with pytest.raises(BrokenError):
                await said(c)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX: closes\r\nContent-Length: 9\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: closes\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nX: closes\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * (200 << 10),
    ],
)
async def test_what_is_broken_is_no_reply(answer: bytes) -> None:
    async with serving(Server(answer, OK)) as c:
        with pytest.raises(BrokenError):
            await said(c)
        assert await said(c) == (200, b"ok"), "on a connection of its own"


async def test_nothing_behind_a_reply_is_taken_for_the_next() -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    server = Server(OK + forged, OK)
    async with serving(server) as c:
        assert await said(c) == (200, b"ok")
        assert await said(c) == (200, b"ok")
    assert server.opened == 2


async def test_a_connection_that_was_closed_while_idle_is_not_used() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nX: closes\r\nContent-Length: 2\r\n\r\nab", OK)
    async with serving(server) as c:
        assert (await said(c))[1] == b"ab"
        kept = c._idle[0]
        while not kept.closed:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert await said(c) == (200, b"ok")


async def test_connections_that_were_idle_for_long_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "_IDLE_S", 0.02)
    server = Server(OK)
    async with serving(server) as c:
        await said(c)
        await asyncio.wait_for(server.left.wait(), 5)
        assert not c._idle


async def test_a_reply_that_is_left_ends_the_request() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", OK)
    async with serving(server) as c:
        connection = await c.post("/x", b"{}", 5.0)
        assert await connection.piece() == b"ab"
        connection.release()
        await asyncio.wait_for(server.left.wait(), 5)
        assert await said(c) == (200, b"ok")


async def test_the_deadline_is_the_last_requests() -> None:
    server = Server(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
    async with serving(server) as c:
        assert await said(c, seconds=60.0) == (200, b"ok")
        connection = await c.post("/x", b"{}", 0.05)
        assert await connection.piece() == b"ab", "what came in time is given first"
        with pytest.raises(TimeoutError):
            await connection.piece()
        connection.release()


async def test_a_deadline_can_be_moved() -> None:
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        await release.wait()
        writer.write(b"b")
        writer.close()

    async with serving(slow) as c:
        connection = await c.post("/x", b"{}", 0.05)
        connection.deadline += 60.0
        loop = asyncio.get_running_loop()
        assert await connection.piece() == b"a"
        loop.call_later(0.1, release.set)
        assert await connection.piece() == b"b"
        connection.release()


async def test_a_reader_that_is_slow_holds_the_sender_back() -> None:
    sent = 0

    async def much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        try:
            for _ in range(64):
                writer.write(b"x" * (1 << 20))
                await writer.drain()
                sent += 1
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with serving(much) as c:
        connection = await c.post("/x", b"{}", 20.0)
        before = -1
        while sent != before:  # until nothing goes out any more
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 60
        assert connection._held < 2 << 20
        whole = 0
        while piece := await connection.piece():
            whole += len(piece)
        connection.release()
    assert whole == 64 << 20


async def test_no_connection_no_request() -> None:
    listening = await asyncio.start_server(Server(), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    c = Connections(f"http://127.0.0.1:{port}", {}, connect_timeout_s=5.0)
    with pytest.raises(UnconnectedError):
        await c.post("/x", b"{}", 5.0)


@pytest.mark.parametrize("value", ["a\r\nX: forged", "schlüssel", "a\0b"])
async def test_a_header_cannot_hold_another(value: str) -> None:
    with pytest.raises(ConfigError):
        Connections("http://127.0.0.1", {"Authorization": value}, connect_timeout_s=1.0)


async def test_hosts_and_paths_are_written_as_http_has_them() -> None:
    c = Connections("https://bücher.example:443/ä b/v1", {}, connect_timeout_s=1.0)
    assert c._head.startswith(b"Host: xn--bcher-kva.example\r\n")
    assert c._path == "/%C3%A4%20b/v1"
    c = Connections("http://[::1]:8080/v1", {}, connect_timeout_s=1.0)
    assert c._head.startswith(b"Host: [::1]:8080\r\n")


@pytest.mark.parametrize("fast", [False, True], ids=["asyncio", "uvloop"])
def test_tls_and_who_is_believed(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    uvloop = pytest.importorskip("uvloop") if fast else None
    from cosilo.host.certificates import make_certificates

    make_certificates(tmp_path, hosts=["localhost", "other.example"], clients=["a"])

    def shown(name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tmp_path / f"host-{name}.pem", tmp_path / f"host-{name}.key")
        return context

    async def asked(name: str, server: Wire) -> str:
        listening = await asyncio.start_server(
            server._serve, "127.0.0.1", 0, ssl=shown(name), ssl_handshake_timeout=5
        )
        port = listening.sockets[0].getsockname()[1]
        client = OpenAIModel(f"https://localhost:{port}/v1", "m")
        async with listening:
            try:
                return (await client.generate(user("q"), GREEDY)).text
            finally:
                await client.close()
                await asyncio.sleep(0.05)  # TLS says good-bye

    async def all_of_them() -> None:
        server = Wire(ok())
        with pytest.raises(RejectedError, match="TLS certificate is not accepted"):
            await asked("localhost", server)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert await asked("localhost", server) == "Hello."
        with pytest.raises(RejectedError, match="TLS certificate is not accepted"):
            await asked("other.example", server)
        assert len(server.requests) == 1

    asyncio.run(all_of_them()) if uvloop is None else uvloop.run(all_of_them())
