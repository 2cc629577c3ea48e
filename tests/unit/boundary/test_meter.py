"""What is booked: claims as far as they can be true, and the most where nothing is known."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask, Completion, Message, Read, Score, Scored, States
from cosilo.boundary.meter import Budget, Meter, Price
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    CosiloError,
    OfflineError,
    PrivacyError,
    RejectedError,
    UnexpectedReplyError,
    UnreachableError,
)
from cosilo.types import Delta, Generation, Sampling, ToolCall, user

ASK = Ask(chat=user("hello"), sampling=Sampling(max_tokens=100))
MOST_IN, MOST_OUT = ASK.tokens_bound()
PRICE = Price(1.0, 10.0, reasoning=50, attempts=3)


class Party:
    """The other side: answers with `reply`, or ends in it."""

    def __init__(self, reply: Generation | BaseException | list[Delta | BaseException]) -> None:
        self.reply = reply
        self.asked = 0

    async def handle(self, message: Message) -> Message:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.reply, BaseException):
            raise self.reply
        assert isinstance(self.reply, Generation)
        return Completion(generation=self.reply)

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        assert isinstance(self.reply, list)
        for piece in self.reply:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


def road(party: Party, meter: Meter) -> Boundary:
    return Boundary(InProcess(party), declared=frozenset({Ask}), meter=meter)


async def cross(boundary: Boundary, streamed: bool) -> None:
    if streamed:
        [_ async for _ in boundary.stream(ASK)]
    else:
        await boundary.send(ASK)


async def booked(reply: Generation, price: Price = PRICE) -> tuple[Generation, Meter]:
    meter = Meter(price=price)
    found = await road(Party(reply), meter).send(ASK)
    return found.generation, meter


@pytest.mark.parametrize(
    ("claimed", "tokens", "disputes"),
    [
        ((20, 30), (20, 30), 0),
        ((MOST_IN, MOST_OUT + 50), (MOST_IN, MOST_OUT + 50), 0),  # it may have thought
        ((20, 0), (20, 52), 0),  # says nothing of a reply of two bytes
        ((0, 30), (MOST_IN, 30), 0),
        ((0, 0), (MOST_IN, 52), 0),
        ((-1, -1), (MOST_IN, 52), 1),
        ((-(10**9), 0), (MOST_IN, 52), 1),
        ((20, 900_000_000), (20, MOST_OUT + 50), 1),
        ((MOST_IN + 1, 30), (MOST_IN, 30), 1),
        ((2**62, 2**62), (MOST_IN, MOST_OUT + 50), 1),
    ],
)
async def test_a_claim_is_booked_as_far_as_it_can_be_true(
    claimed: tuple[int, int], tokens: tuple[int, int], disputes: int
) -> None:
    said = Generation("ok", prompt_tokens=claimed[0], completion_tokens=claimed[1])
    got, meter = await booked(said)
    assert (meter.totals.tokens_in, meter.totals.tokens_out) == tokens
    assert meter.totals.usd == pytest.approx((tokens[0] + 10 * tokens[1]) / 1e6)
    assert meter.totals.disputes == disputes
    assert (got.prompt_tokens, got.completion_tokens) == tokens, "the strategy sees what is booked"
    assert meter.reserved.usd == pytest.approx(0)


async def test_what_was_claimed_stays_on_record() -> None:
    boundary = road(Party(Generation("ok", prompt_tokens=9, completion_tokens=10**9)), Meter())
    await boundary.send(ASK)
    [_, down] = boundary.ledger.entries()
    assert isinstance(down.message, Completion)
    assert down.message.generation.completion_tokens == 10**9


async def test_an_empty_reply_whose_prompt_is_stated_took_no_more() -> None:
    _, meter = await booked(Generation("", prompt_tokens=20, completion_tokens=0))
    assert (meter.totals.tokens_in, meter.totals.tokens_out, meter.totals.disputes) == (20, 0, 0)


async def test_a_call_of_a_tool_was_written_too() -> None:
    call = ToolCall("id", "look", "{}")
    _, meter = await booked(Generation("", tool_calls=(call,), prompt_tokens=20))
    assert meter.totals.tokens_out == 50 + len("idlook{}")


@pytest.mark.parametrize(("attempts", "lost", "disputes"), [(1, 0, 0), (3, 2, 0), (99, 2, 1)])
async def test_attempts_before_the_answer_are_booked_at_their_most(
    attempts: int, lost: int, disputes: int
) -> None:
    said = Generation("ok", prompt_tokens=20, completion_tokens=30, attempts=attempts)
    got, meter = await booked(said)
    assert meter.totals.tokens_in == 20 + lost * MOST_IN
    assert meter.totals.tokens_out == 30 + lost * (MOST_OUT + 50)
    assert meter.totals.disputes == disputes
    assert (got.prompt_tokens, got.completion_tokens) == (20, 30)


@pytest.mark.parametrize(
    ("error", "worked"),
    [
        (UnreachableError("late", worked=2), 2),
        (UnreachableError("late"), 3),  # nobody knows, so each attempt
        (UnreachableError("late", worked=99), 3),
        (UnreachableError("refused", worked=0), 0),
        (RejectedError("400"), 0),
        (RejectedError("no JSON", worked=1), 1),
        (OfflineError("not recorded"), 0),
        (CapabilityError("not served"), 0),
        (UnexpectedReplyError("no message"), 3),
        (ValueError("a bug"), 3),
        (asyncio.CancelledError(), 3),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_may_have_been_worked_in_vain_is_booked_at_its_most(
    error: BaseException, worked: int, streamed: bool
) -> None:
    meter = Meter(price=PRICE)
    boundary = road(Party([error] if streamed else error), meter)
    with pytest.raises((CosiloError, asyncio.CancelledError)):
        await cross(boundary, streamed)
    totals = meter.totals
    assert (totals.messages, totals.tokens_in) == (1, worked * MOST_IN)
    assert totals.tokens_out == worked * (MOST_OUT + 50)
    assert (totals.usd > 0) == (worked > 0)
    assert meter.reserved.usd == pytest.approx(0)


async def test_a_reply_that_cannot_be_encoded_was_paid_for_all_the_same() -> None:
    meter = Meter(price=PRICE)
    said = Generation("\ud800", prompt_tokens=20, completion_tokens=30)
    with pytest.raises(PrivacyError):
        await road(Party(said), meter).send(ASK)
    assert meter.totals.tokens_out >= 30


@pytest.mark.parametrize(
    "usage", [(20, 30), (0, 0), (-1, -1), (20, 10**9), (10**9, 30), (-(10**9), 0)]
)
@pytest.mark.parametrize("attempts", [1, 5])
async def test_no_claim_passes_a_budget(usage: tuple[int, int], attempts: int) -> None:
    """Whatever is claimed, and however many ask at once."""
    usd = 10 * PRICE.bound(ASK).usd
    meter = Meter(Budget(usd=usd), price=PRICE)
    said = Generation("ok", prompt_tokens=usage[0], completion_tokens=usage[1], attempts=attempts)
    boundary = road(Party(said), meter)
    for _ in range(50):
        results = await asyncio.gather(
            *(boundary.send(ASK) for _ in range(20)), return_exceptions=True
        )
        assert meter.totals.usd <= usd
        if all(isinstance(r, BudgetExceededError) for r in results):
            return
    raise AssertionError("it was never out")


async def test_bytes_that_come_back_are_reserved() -> None:
    party = Party(Generation("x" * 10_000, prompt_tokens=1, completion_tokens=1))
    meter = Meter(Budget(bytes_down=100))
    results = await asyncio.gather(
        *(road(party, meter).send(ASK) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(r, BudgetExceededError) for r in results)
    assert party.asked == 0
    roomy = Meter(Budget(bytes_down=2 * ASK.reply_bound(100)))
    results = await asyncio.gather(
        *(road(party, roomy).send(ASK) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(r, BudgetExceededError) for r in results) == 3


@pytest.mark.parametrize(
    "request_",
    [
        ASK,
        Ask(chat=user("x"), sampling=Sampling(max_tokens=1, choices=("a" * 300, "b"))),
        Score(items=(Scored(user("x"), "yes"),), top=8),
        Score(items=(Scored(user("x"), "yes"),), top=8, pieces=True),
        Read(texts=("one", "two")),
    ],
)
def test_every_request_has_a_bound_on_what_comes_back(request_: Message) -> None:
    assert request_.reply_bound(request_.tokens_bound()[1]) > 1000


def test_a_choice_longer_than_the_reply_may_be_is_within_the_bound() -> None:
    ask = Ask(chat=user("x"), sampling=Sampling(max_tokens=1, choices=("a" * 300, "b")))
    assert ask.tokens_bound()[1] == 301


async def test_a_stream_ends_with_what_is_booked() -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 10**9}
    pieces: list[Delta | BaseException] = [Delta("ok"), Delta(finish_reason="stop", **usage)]
    meter = Meter(price=PRICE)
    got = [d async for d in road(Party(pieces), meter).stream(ASK)]
    assert (got[-1].prompt_tokens, got[-1].completion_tokens) == (20, MOST_OUT + 50)
    assert (meter.totals.tokens_in, meter.totals.tokens_out) == (20, MOST_OUT + 50)
    assert meter.totals.disputes == 1


async def test_a_stream_cut_off_is_booked_by_what_came_and_what_was_lost_before() -> None:
    pieces = [Delta("ok"), UnreachableError("cut", worked=2)]
    meter = Meter(price=PRICE)
    with pytest.raises(UnreachableError):
        [_ async for _ in road(Party(pieces), meter).stream(ASK)]
    assert meter.totals.tokens_in == 2 * MOST_IN
    assert meter.totals.tokens_out == (2 + 50) + (MOST_OUT + 50)


async def test_the_first_dispute_is_said_and_quotes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    meter = Meter(price=PRICE)
    boundary = road(Party(Generation("ok", prompt_tokens=-1)), meter)
    with caplog.at_level(logging.WARNING, "cosilo.boundary"):
        for number in range(3):
            await boundary.bind(f"r{number}").send(ASK)
    [said] = caplog.messages
    assert "claims more tokens" in said
    assert "hello" not in said
    assert meter.totals.disputes == 3


def test_states_and_scores_are_restated_too() -> None:
    read = Read(texts=("hello",))
    bill = PRICE.bill(PRICE.once(read), States(packed=b"", prompt_tokens=10**9))
    assert bill.answer == (read.tokens_bound()[0], 0)
    assert States(packed=b"", prompt_tokens=10**9).restated(*bill.answer).usage() == bill.answer
