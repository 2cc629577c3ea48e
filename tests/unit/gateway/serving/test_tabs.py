"""A crossing that was cut off is billed when its message had left, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.meter import Meter, Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.gateway.accounts.accounts import Key, RequestFacts, Reservation, Spend
from cosilo.gateway.serving.tabs import Tab, Till
from cosilo.types import user


class Generous:
    """Accounts that set anything aside."""

    async def authenticate(self, bearer: str) -> Key | None:
        return None

    async def reserve(self, key: Key, most: Spend, *, request: str) -> Reservation:
        return Reservation(id="r", key=key.id, request=request, most=most)

    async def settle(
        self, reservation: Reservation, spent: Spend, *, request: RequestFacts
    ) -> None: ...


class Hanging:
    """A transport whose messages leave, and are never answered."""

    remote = False

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def carry(self, payload: bytes) -> bytes:
        self.left.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def carry_stream(self, payload: bytes) -> AsyncIterator[bytes]:
        yield await self.carry(payload)


class Stuck(MemoryLedger):
    """A ledger that takes its time, so that nothing leaves meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def append(self, *args: Any, **options: Any) -> None:
        self.asked.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("departed", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
async def test_only_what_had_left_is_billed_when_it_is_cut_off(
    departed: bool, streamed: bool
) -> None:
    road, ledger, price = Hanging(), MemoryLedger() if departed else Stuck(), Price(1e6, 1e6)
    tab = Tab(Generous(), Key(id="k", name="k"), "r")
    channel: Any = Boundary(
        road,
        declared=frozenset({Ask}),
        guards=[Till({"r": tab}, price)],
        meter=Meter(price=price),
        ledger=ledger,
    ).bind("r")
    tab.channels.append(channel)
    ask = Ask(chat=user("hello"))
    crossing = asyncio.ensure_future(anext(channel.stream(ask)) if streamed else channel.send(ask))
    await (ledger.asked if isinstance(ledger, Stuck) else road.left).wait()
    crossing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await crossing
    tokens_in, tokens_out = ask.tokens_bound()
    most = Spend(
        usd=float(tokens_in + tokens_out), tokens_in=tokens_in, tokens_out=tokens_out, requests=1
    )
    assert tab.spent(tab.totals) == (most if departed else Spend(requests=1))
    # The ledger has it either way, so both count it as a message.
    assert (tab.totals.messages, tab.totals.bytes_up) == (1, len(encode(ask)))
