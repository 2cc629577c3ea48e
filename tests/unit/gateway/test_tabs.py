"""A crossing that was cut off is billed when its message had left, and only then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cosilo.boundary.messages import Ask, Message
from cosilo.boundary.meter import Price, Totals
from cosilo.gateway.accounts import Key, RequestFacts, Reservation, Spend
from cosilo.gateway.tabs import Tab, Till
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


class Road:
    """A channel that has carried so many messages."""

    def __init__(self) -> None:
        self.totals = Totals()


@pytest.mark.parametrize("departed", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
async def test_only_what_had_left_is_billed_when_it_is_cut_off(
    departed: bool, streamed: bool
) -> None:
    road: Any = Road()
    tab = Tab(Generous(), Key(id="k", name="k"), "r", channels=[road])
    till = Till({"r": tab}, Price(1e6, 1e6))

    async def forward(message: Message) -> Message:
        if departed:
            road.totals = Totals(messages=1)
        raise asyncio.CancelledError

    async def forward_stream(ask: Ask) -> Any:
        await forward(ask)
        yield

    ask = Ask(chat=user("hello"))
    crossing: Any = (
        anext(till.guard_stream(ask, forward_stream, request="r"))
        if streamed
        else till.guard(ask, forward, request="r")
    )
    with pytest.raises(asyncio.CancelledError):
        await crossing
    most = ask.tokens_bound()
    assert tab.lost == (
        Spend(usd=float(sum(most)), tokens_in=most[0], tokens_out=most[1]) if departed else Spend()
    )
