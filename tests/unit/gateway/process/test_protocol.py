"""What is written in one turn of the loop is sent at once, in order, and none of it is lost."""

from __future__ import annotations

import asyncio
from typing import Any

from cosilo.gateway.process.protocol import AT_ONCE, Gathering


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
