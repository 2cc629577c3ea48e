"""What seconds, bytes and tokens that were read before cost, within what was reserved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask, Completion, Message, encode
from cosilo.boundary.meter import Budget, Meter, Price
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import BudgetExceededError, UnreachableError
from cosilo.types import Delta, Generation, Sampling, user

ASK = Ask(chat=user("hello"), sampling=Sampling(max_tokens=100))
MOST_IN, MOST_OUT = ASK.tokens_bound()
SIZE = len(encode(ASK))


class Says:
    """An LM owner that says `reply`, in pieces where a stream is wanted; waits until `wait` is set."""

    def __init__(self, reply: Generation, wait: asyncio.Event | None = None) -> None:
        self.reply = reply
        self.wait = wait

    async def handle(self, message: Message) -> Message:
        if self.wait is not None:
            await self.wait.wait()
        return Completion(generation=self.reply)

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        yield Delta(self.reply.text)
        if self.wait is not None:
            await self.wait.wait()
        yield Delta(
            finish_reason="stop",
            prompt_tokens=self.reply.prompt_tokens,
            completion_tokens=self.reply.completion_tokens,
            cached_tokens=self.reply.cached_tokens,
            seconds=self.reply.seconds,
        )


async def cross(road: Boundary, *, streamed: bool) -> None:
    if streamed:
        [_ async for _ in road.stream(ASK)]
    else:
        await road.send(ASK)


async def spent(reply: Generation, price: Price, *, streamed: bool = False) -> Meter:
    meter = Meter(price=price)
    road = Boundary(InProcess(Says(reply)), declared=frozenset({Ask}), meter=meter)
    await cross(road, streamed=streamed)
    assert meter.reserved.usd == pytest.approx(0)
    return meter


CACHING = Price(2.0, 8.0, usd_per_m_cached=0.5)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("prompt", "cached", "usd", "disputes"),
    [
        (40, 0, 40 * 2.0, 0),
        (40, 30, 10 * 2.0 + 30 * 0.5, 0),
        (40, 40, 40 * 0.5, 0),
        (40, 41, MOST_IN * 2.0, 1),  # more than there were: then none, of the most that can be
        (40, -1, MOST_IN * 2.0, 1),
        (MOST_IN + 1, 40, MOST_IN * 2.0, 1),
        (0, 0, MOST_IN * 2.0, 0),
    ],
)
async def test_tokens_read_before_cost_their_own_price(
    prompt: int, cached: int, usd: float, disputes: int, streamed: bool
) -> None:
    said = Generation(
        "ok", prompt_tokens=prompt, completion_tokens=10, cached_tokens=cached, seconds=1.0
    )
    meter = await spent(said, CACHING, streamed=streamed)
    assert meter.totals.usd == pytest.approx((usd + 10 * 8.0) / 1e6)
    assert meter.totals.disputes == disputes


async def test_without_a_price_of_their_own_they_cost_what_others_do() -> None:
    said = Generation("ok", prompt_tokens=40, completion_tokens=10, cached_tokens=-900)
    meter = await spent(said, Price(2.0, 8.0))
    assert meter.totals.usd == Price(2.0, 8.0).usd(40, 10)
    assert meter.totals.disputes == 0


@pytest.mark.parametrize(
    ("seconds", "attempts", "booked"),
    [
        (3.0, 1, 3.0),
        (0.0, 1, 60.0),  # nothing is said, so it is the most
        (61.0, 1, 61.0),  # waiting for a turn is in it
        (3.0, 2, 63.0),  # the try before may have taken all its time
        (10**6, 2, 180.0),
    ],
)
async def test_seconds_cost_as_a_machine_by_the_hour(
    seconds: float, attempts: int, booked: float
) -> None:
    price = Price(attempts=3, usd_per_hour=3600.0, longest_s=60.0)
    said = Generation(
        "ok", prompt_tokens=9, completion_tokens=2, seconds=seconds, attempts=attempts
    )
    assert (await spent(said, price)).totals.usd == pytest.approx(booked)


async def test_bytes_cost_both_ways() -> None:
    said = Generation("ok" * 50, prompt_tokens=9, completion_tokens=60)
    size = SIZE + len(encode(Completion(generation=said)))
    meter = await spent(said, Price(usd_per_gb=1e9))
    assert meter.totals.usd == pytest.approx(size)
    assert (meter.totals.bytes_up + meter.totals.bytes_down) == size
    again = Generation("ok" * 50, prompt_tokens=9, completion_tokens=60, attempts=2)
    lost = SIZE + ASK.reply_bound(MOST_OUT)
    more = len(encode(Completion(generation=again))) - (size - SIZE)
    meter = await spent(again, Price(usd_per_gb=1e9, attempts=2))
    assert meter.totals.usd == pytest.approx(size + more + lost)


@pytest.mark.parametrize("streamed", [False, True])
async def test_who_takes_longer_than_is_paid_for_is_cut_off(streamed: bool) -> None:
    price = Price(attempts=2, usd_per_hour=3600.0, longest_s=0.01)
    meter = Meter(price=price)
    party = Says(Generation("ok"), asyncio.Event())
    road = Boundary(InProcess(party), declared=frozenset({Ask}), meter=meter)
    with pytest.raises(UnreachableError, match=r"0\.02 s, the longest that is paid for"):
        await cross(road, streamed=streamed)
    assert meter.totals.usd == pytest.approx(0.02)


async def test_a_budget_holds_with_every_term() -> None:
    price = Price(2.0, 8.0, attempts=2, usd_per_hour=9.0, longest_s=60.0, usd_per_gb=0.1)
    most = price.bound(ASK).usd
    meter = Meter(Budget(usd=0.99 * most), price=price)
    road = Boundary(InProcess(Says(Generation("ok"))), declared=frozenset({Ask}), meter=meter)
    with pytest.raises(BudgetExceededError):
        await road.send(ASK)
    assert meter.totals.messages == 0


@pytest.mark.parametrize(
    "terms",
    [
        {"usd_per_m_cached": 3.0},
        {"usd_per_m_cached": -1.0},
        {"usd_per_hour": -1.0, "longest_s": 9.0},
        {"usd_per_hour": 1.0},
        {"usd_per_gb": float("nan")},
        {"usd_per_hour": 1.0, "longest_s": float("inf")},
    ],
)
def test_what_is_no_price_is_refused(terms: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"usd_per|longest_s"):
        Price(2.0, 8.0, **terms)  # type: ignore[arg-type]
