"""Requests that frame badly, oddly or well: each is answered as RFC 9112 asks, over real sockets."""

from __future__ import annotations

import asyncio

from cosilo.gateway.process.config import ServerConfig
from framing import CASES, Framing, tell, wrong
from house import house
from listening import listening

PATIENCE = 0.3  # seconds: as short as a loaded machine allows, for the cases that wait for it


async def test_every_framing_is_answered_as_the_rfc_asks_and_none_hides_a_request() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)
    h = await house()
    h.gateway.bodies.seconds = PATIENCE
    at_once = asyncio.Semaphore(16)

    async def one(port: int, case: Framing) -> str:
        async with at_once:
            try:
                return wrong(case, await tell(port, case))
            except TimeoutError:
                return "neither answered nor closed"

    async with listening(
        h.gateway, ServerConfig(header_seconds=PATIENCE, drain_seconds=1.0)
    ) as port:
        found = await asyncio.gather(*(one(port, case) for case in CASES))
        good = next(case for case in CASES if case.name == "length")
        assert wrong(good, await tell(port, good)) == ""
    assert {c.name: (why, c.asks) for c, why in zip(CASES, found, strict=True) if why} == {}
    assert (h.gateway.setup.in_flight, h.gateway.bodies.held, h.books.open) == (0, 0, {})
