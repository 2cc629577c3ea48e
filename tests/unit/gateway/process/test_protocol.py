"""What is written in one turn of the loop is sent at once, in order, and none of it is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn

from cosilo.gateway.process.config import ServerConfig
from cosilo.gateway.process.protocol import AT_ONCE, Alarm, Gathering
from cosilo.gateway.process.server import http_config
from cosilo.gateway.web.http import Bodies, ClientWatch, Receive, Scope, Send, respond


class Wire:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent.append(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed


def gathering() -> tuple[Any, Wire]:
    wire: Any = Wire()
    return Gathering(wire, asyncio.get_running_loop()), wire


async def test_the_pieces_of_one_turn_are_sent_together() -> None:
    transport, wire = gathering()
    for piece in (b"a", b"b", b"c"):
        transport.write(piece)
    assert wire.sent == []
    await asyncio.sleep(0)
    assert wire.sent == [b"abc"]
    transport.write(b"d")
    await asyncio.sleep(0)
    assert wire.sent == [b"abc", b"d"]


async def test_a_lot_does_not_wait_so_that_a_slow_client_is_noticed() -> None:
    transport, wire = gathering()
    transport.write(b"a")
    transport.write(b"x" * AT_ONCE)
    assert b"".join(wire.sent) == b"a" + b"x" * AT_ONCE
    await asyncio.sleep(0)
    assert len(wire.sent) == 1


async def test_closing_sends_what_was_written_and_aborting_does_not() -> None:
    transport, wire = gathering()
    transport.write(b"last")
    transport.close()
    assert (wire.sent, wire.closed) == ([b"last"], True)
    transport, wire = gathering()
    transport.write(b"never")
    transport.abort()
    await asyncio.sleep(0)
    assert (wire.sent, transport.is_closing()) == ([], True)


async def test_an_alarm_rings_once_and_only_where_it_was_not_stopped() -> None:
    loop = asyncio.get_running_loop()
    rung: list[str] = []
    alarm = Alarm(loop, 0.01, lambda: rung.append("a"))
    for _ in range(3):
        alarm.set()
        alarm.stop()
    await asyncio.sleep(0.03)
    assert rung == []
    alarm.set()
    await asyncio.sleep(0.03)
    assert rung == ["a"]
    alarm.set()
    alarm.close()
    await asyncio.sleep(0.03)
    assert rung == ["a"]


async def test_an_alarm_that_is_set_again_rings_later() -> None:
    loop = asyncio.get_running_loop()
    rung: asyncio.Future[float] = loop.create_future()
    alarm = Alarm(loop, 0.05, lambda: rung.set_result(loop.time()))
    alarm.set()
    await asyncio.sleep(0.03)
    alarm.stop()
    began = loop.time()
    alarm.set()
    assert await rung - began >= 0.049


async def served(app: Any) -> tuple[uvicorn.Server, asyncio.Server]:
    """`app` behind our protocol, on a free port of loopback."""
    server = uvicorn.Server(http_config(app, ServerConfig()))
    server.config.load()

    def connection() -> asyncio.Protocol:
        return server.config.http_protocol_class(  # type: ignore[call-arg,return-value]
            config=server.config, server_state=server.server_state, app_state={}
        )

    return server, await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("method", "given", "kept"),
    [
        ("POST", [(b"x-a", b"b")], True),
        ("HEAD", [(b"x-a", b"b")], True),
        ("POST", [(b"connection", b"close")], False),
        ("POST", [(b"x-a", b"b\r\nx-forged: 1")], None),
    ],
)
async def test_an_answer_in_one_piece(
    method: str, given: list[tuple[bytes, bytes]], kept: bool | None
) -> None:
    """`kept`: whether another request is answered on the connection; None: the header is refused."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Bodies(100, 100, 5.0).read(scope, receive)
        assert body == (b"asked" if method == "POST" else b"")
        await respond(send, 200, b"said", given)

    server, listening = await served(app)
    request = f"{method} /1 HTTP/1.1\r\nhost: x\r\n".encode()
    request += b"content-length: 5\r\n\r\nasked" if method == "POST" else b"\r\n"
    async with listening:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2])
        for _ in range(2 if kept else 1):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if kept is None:
                assert head.startswith(b"HTTP/1.1 500 ")
                assert b"forged" not in head
                continue
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\ncontent-length: 4\r\n" in head
            assert b"\r\n" + b": ".join(given[0]) + b"\r\n" in head
            if method == "POST":
                assert await reader.readexactly(4) == b"said"
        if kept is False:
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)


@pytest.mark.parametrize(
    "behind", [b"", b"POST /2 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"]
)
async def test_a_request_is_told_that_its_client_went_also_with_one_waiting_behind_it(
    behind: bytes,
) -> None:
    begun, gone, paths = asyncio.Event(), asyncio.Event(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await receive()
        watch = ClientWatch(receive, gone.set)
        assert watch._task is None, "no task is needed"
        begun.set()
        await gone.wait()

    server, listening = await served(app)
    async with listening:
        _, writer = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2])
        writer.write(b"POST /1 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" + behind)
        await begun.wait()
        writer.close()
        await asyncio.wait_for(gone.wait(), 5)
        await asyncio.gather(*server.server_state.tasks)
    assert paths == ["/1"]


async def test_under_another_server_a_task_waits_for_the_client_to_go() -> None:
    left, gone = asyncio.Event(), asyncio.Event()

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    stopped, watch = asyncio.Event(), ClientWatch(receive, gone.set)
    ClientWatch(receive, stopped.set).cancel()
    left.set()
    await asyncio.wait_for(gone.wait(), 5)
    assert not stopped.is_set()
    watch.cancel()
