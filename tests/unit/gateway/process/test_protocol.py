"""What is written in one turn of the loop is sent at once, in order, and none of it is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn

from cosilo.gateway.process.config import ServerConfig
from cosilo.gateway.process.protocol import AT_ONCE, Alarm, Gathering
from cosilo.gateway.process.server import http_config
from cosilo.gateway.web.http import ClientWatch, Receive, Scope, Send


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

    server = uvicorn.Server(http_config(app, ServerConfig()))
    server.config.load()
    loop = asyncio.get_running_loop()
    made = lambda: server.config.http_protocol_class(  # type: ignore[call-arg] # noqa: E731
        config=server.config, server_state=server.server_state, app_state={}
    )
    listening = await loop.create_server(made, "127.0.0.1", 0)
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
