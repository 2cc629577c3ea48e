from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from cosilo.engines import proxies
from cosilo.engines.proxies import LARGEST, Counted, FrameCheck, LinkProxy
from cosilo.errors import EngineError


def frame(body: bytes, head: int = 0) -> bytes:
    return b"PRPC" + len(body).to_bytes(4, "big") + head.to_bytes(4, "big") + body


class TestFrameCheck:
    def test_frames_are_counted_however_they_are_cut(self) -> None:
        data = b"".join(frame(bytes(n), min(n, 3)) for n in (1, 5, 1000, 12))
        drawn = random.Random(1)
        for _ in range(50):
            counted, at = Counted(), 0
            check = FrameCheck(counted)
            while at < len(data):
                n = drawn.randint(1, 40)
                check.feed(data[at : at + n])
                at += n
            assert counted.frames == 4
            assert check.between

    def test_half_a_frame_is_told_from_a_whole_one(self) -> None:
        check = FrameCheck(Counted())
        check.feed(frame(b"abc") + b"PR")
        assert not check.between

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\n",
            b"P" * 12,
            b"PRPX" + frame(b"abc")[4:],
            frame(b""),
            b"PRPC" + (LARGEST + 1).to_bytes(4, "big") + bytes(4),
            frame(b"ab", head=3),
        ],
    )
    def test_what_is_no_frame_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError, match="no frame"):
            FrameCheck(Counted()).feed(data)


class Echo:
    """Another party: it sends back what it is sent."""

    def __init__(self) -> None:
        self.port = 0
        self.came = b""

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.came += data
            writer.write(data)
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await echo.open()
    yield echo
    server.close()


async def test_every_byte_is_passed_on_and_counted_in_both_directions(echo: Echo) -> None:
    faults: list[EngineError] = []
    proxy = LinkProxy("a", ("127.0.0.1", echo.port), faults.append)
    reader, writer = await asyncio.open_connection("127.0.0.1", await proxy.open())
    data = frame(random.Random(2).randbytes(700_000)) + frame(b"x")
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    assert (proxy.out.bytes, proxy.back.bytes) == (len(data), len(data))
    assert (proxy.out.frames, proxy.back.frames) == (2, 2)
    proxy.closing()
    writer.close()
    await proxy.close()
    assert not faults


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"garbage, and a lot of it", "no frame"),
        (frame(b"whole"), "between two messages"),
        (frame(b"not whole")[:-1], "in the middle of a message"),
    ],
)
async def test_what_ends_a_link_in_the_middle_is_told(echo: Echo, data: bytes, why: str) -> None:
    told: asyncio.Future[EngineError] = asyncio.get_running_loop().create_future()
    proxy = LinkProxy(
        "from a to b", ("127.0.0.1", echo.port), lambda e: told.done() or told.set_result(e)
    )
    _, writer = await asyncio.open_connection("127.0.0.1", await proxy.open())
    writer.write(data)
    writer.write_eof()
    error = await asyncio.wait_for(told, 10)
    assert why in str(error)
    assert "from a to b" in str(error)
    if why == "no frame":
        assert echo.came == b""  # it never reached the other
    writer.close()
    await proxy.close()


async def test_a_link_that_passes_more_than_it_may_fails(echo: Echo) -> None:
    faults: list[EngineError] = []
    proxy = LinkProxy("a", ("127.0.0.1", echo.port), faults.append)
    reader, writer = await asyncio.open_connection("127.0.0.1", await proxy.open())
    some = frame(bytes(80))
    proxy.out.allow(2 * len(some))
    for _ in range(2):
        writer.write(some)
        assert await reader.readexactly(len(some)) == some
    assert proxy.quiet
    writer.write(some)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readexactly(1)
    assert "more than 184 bytes came" in str(faults[0])
    assert proxy.out.bytes == 2 * len(some)
    assert len(echo.came) == 2 * len(some)
    writer.close()
    await proxy.close()


async def test_what_nobody_answered_is_not_counted(echo: Echo) -> None:
    """The proxy at the other end, whose engine does not listen yet, never read it."""
    faults: list[EngineError] = []
    gone = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    proxy = LinkProxy("a", ("127.0.0.1", gone.sockets[0].getsockname()[1]), faults.append)
    reader, writer = await asyncio.open_connection("127.0.0.1", await proxy.open())
    writer.write(frame(b"anybody?"))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readexactly(1)
    for _ in range(100):
        if not proxy.out.bytes:
            break
        await asyncio.sleep(0.01)
    assert (proxy.out.bytes, proxy.out.frames, proxy.quiet, faults) == (0, 0, True, [])
    writer.close()
    await proxy.close()
    gone.close()


async def test_a_party_that_does_not_listen_yet_is_no_fault() -> None:
    faults: list[EngineError] = []
    proxy = LinkProxy("a", ("127.0.0.1", 1), faults.append)
    reader, writer = await asyncio.open_connection("127.0.0.1", await proxy.open())
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readexactly(1)
    writer.close()
    await proxy.close()
    assert not faults


async def test_a_party_that_opens_link_after_link_gets_no_more_than_it_may_hold(echo: Echo) -> None:
    proxy = LinkProxy("a", ("127.0.0.1", echo.port), lambda _: None)
    port = await proxy.open()
    links = []
    for _ in range(proxies._LINKS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        links.append(writer)
        writer.write(frame(b"x"))
        await reader.readexactly(len(frame(b"x")))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    links.append(writer)
    writer.write(frame(b"x"))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asyncio.wait_for(reader.readexactly(1), 10)
    proxy.closing()
    for writer in links:
        writer.close()
    await proxy.close()


@pytest.mark.parametrize("turns", range(4))
async def test_a_link_that_is_ended_twice_leaves_no_connection_open(turns: int) -> None:
    """The second time comes while the first is under way, so many turns of the loop later."""
    parted = asyncio.Event()

    async def there(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            writer.write(frame(b"back"))
        writer.close()
        parted.set()

    server = await asyncio.start_server(there, "127.0.0.1", 0)
    proxy = LinkProxy("to it", server.sockets[0].getsockname()[:2], lambda error: None)
    await proxy.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(frame(b"out"))
    assert await reader.readexactly(16)
    first = asyncio.create_task(proxy.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    await proxy.close()
    await first
    await asyncio.wait_for(parted.wait(), 5)
    writer.close()
    server.close()
