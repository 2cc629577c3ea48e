"""The order of a crossing, and what no guard, budget or failure may get around."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from cosilo.boundary.channel import Boundary, Handler, StreamHandler
from cosilo.boundary.messages import Ask, Completion, Message, Request, encode
from cosilo.boundary.meter import Budget, Meter, Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.defences.base import Defence
from cosilo.errors import (
    BudgetExceededError,
    PrivacyError,
    StoreError,
    UndeclaredMessageError,
    UnexpectedReplyError,
    UnreachableError,
)
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Chat, Delta, Generation, Sampling, ToolCall, Turn, user

SECRET = "patient 4711"


class Replace(Defence):
    def __init__(self, old: str, new: str, log: list[str]) -> None:
        self.old, self.new, self.log = old, new, log

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
        assert isinstance(message, Ask)
        self.log.append(f"out {self.old}")
        chat = tuple(Turn(t.role, t.content.replace(self.old, self.new)) for t in message.chat)
        reply = await forward(Ask(chat=chat, sampling=message.sampling))
        assert isinstance(reply, Completion)
        self.log.append(f"in {self.old}")
        return Completion(generation=Generation(reply.generation.text.replace(self.new, self.old)))


def road(
    model: ScriptedModel | None = None,
    *,
    guards: tuple[Defence, ...] = (),
    meter: Meter | None = None,
    ledger: MemoryLedger | None = None,
) -> Boundary:
    return Boundary(
        InProcess(LMOwner(model or ScriptedModel())),
        declared=frozenset({Ask}),
        guards=guards,
        meter=meter,
        ledger=ledger,
    )


async def test_guards_wrap_outermost_first_and_the_ledger_holds_what_left() -> None:
    log: list[str] = []
    ledger = MemoryLedger()
    guards = (Replace("ann", "bob", log), Replace("bob", "cyd", log))
    reply = await road(guards=guards, ledger=ledger).send(Ask(chat=user("ann")))
    assert log == ["out ann", "out bob", "in bob", "in ann"]
    assert reply.generation.text == "ann"
    up, down = ledger.entries()
    assert (up.direction, down.direction) == ("up", "down")
    assert up.message == Ask(chat=user("cyd"))
    assert up.size == len(encode(Ask(chat=user("cyd"))))


async def test_an_undeclared_message_is_refused_before_it_is_recorded() -> None:
    class Other(Request[Completion], frozen=True, kw_only=True, tag="OtherForTest"):
        reply = Completion

    ledger = MemoryLedger()
    with pytest.raises(UndeclaredMessageError, match=r"Other.*declared: Ask"):
        await road(ledger=ledger).send(Other())
    assert not list(ledger.entries())


async def test_a_guard_that_fails_stops_the_message_and_hides_its_own_words() -> None:
    class Broken(Defence):
        async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
            raise KeyError(SECRET)

    ledger = MemoryLedger()
    boundary = road(guards=(Broken(),), ledger=ledger)
    with pytest.raises(PrivacyError) as caught:
        await boundary.send(Ask(chat=user(SECRET)))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(PrivacyError):
        [d async for d in boundary.stream(Ask(chat=user(SECRET)))]
    assert not list(ledger.entries())
    assert boundary.totals.messages == 0


async def test_a_guard_cannot_smuggle_another_kind_of_message_out() -> None:
    class Swaps(Defence):
        async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
            return await forward(Completion(generation=Generation(SECRET)))

    with pytest.raises(UndeclaredMessageError):
        await road(guards=(Swaps(),)).send(Ask(chat=user("x")))


async def test_a_reply_of_the_wrong_kind_is_an_error() -> None:
    class Wrong(Defence):
        async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
            await forward(message)
            return message

    with pytest.raises(UnexpectedReplyError, match="Ask was answered with Ask"):
        await road(guards=(Wrong(),)).send(Ask(chat=user("x")))


async def test_the_budget_raises_before_anything_is_sent() -> None:
    model = ScriptedModel()
    meter = Meter(Budget(messages=2))
    boundary = road(model, meter=meter)
    for _ in range(2):
        await boundary.send(Ask(chat=user("x")))
    with pytest.raises(BudgetExceededError, match="messages would reach 3"):
        await boundary.send(Ask(chat=user("x")))
    assert len(model.seen) == 2
    assert meter.totals.messages == 2


async def test_no_interleaving_overspends() -> None:
    """Every call waits inside the transport until all have been let in or refused."""
    gate = asyncio.Event()

    class Slow(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            await gate.wait()
            return await super().generate(chat, sampling)

    meter = Meter(Budget(usd=0.05), price=Price(0, 1000.0))  # 10 tokens = one cent
    boundary = road(Slow({"x": "one two"}), meter=meter)
    calls = [
        asyncio.create_task(boundary.send(Ask(chat=user("x"), sampling=Sampling(max_tokens=10))))
        for _ in range(40)
    ]
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    sent = [r for r in results if isinstance(r, Completion)]
    assert len(sent) == 5
    assert sum(isinstance(r, BudgetExceededError) for r in results) == 35
    assert meter.totals.usd == pytest.approx(5 * 2 * 1e-3)
    assert meter.reserved.usd == pytest.approx(0)


async def test_a_bound_channel_has_its_own_budget_inside_the_whole() -> None:
    whole = Meter(Budget(messages=3))
    boundary = road(meter=whole)
    one = boundary.bind("one", budget=Budget(messages=1))
    await one.send(Ask(chat=user("x")))
    with pytest.raises(BudgetExceededError):
        await one.send(Ask(chat=user("x")))
    two = boundary.bind("two")
    await two.send(Ask(chat=user("x")))
    await two.send(Ask(chat=user("x")))
    with pytest.raises(BudgetExceededError):
        await two.send(Ask(chat=user("x")))
    assert (one.totals.messages, two.totals.messages, whole.totals.messages) == (1, 2, 3)
    assert whole.reserved.messages == 0


async def test_a_failed_call_is_booked_but_leaves_no_reservation() -> None:
    ledger = MemoryLedger()
    meter = Meter(price=Price(1.0, 1.0))
    boundary = road(
        ScriptedModel(fail=UnreachableError("connection refused", worked=0)),
        meter=meter,
        ledger=ledger,
    )
    with pytest.raises(UnreachableError):
        await boundary.send(Ask(chat=user("x")))
    assert [e.direction for e in ledger.entries()] == ["up"]
    assert meter.totals.messages == 1
    assert meter.totals.bytes_up > 0
    assert meter.totals.usd == 0
    assert meter.reserved.usd == pytest.approx(0)


async def test_what_cannot_be_recorded_is_not_sent() -> None:
    class Full(MemoryLedger):
        def append(self, *args: object) -> None:
            raise StoreError("disk full")

    model = ScriptedModel()
    boundary = road(model, ledger=Full())
    with pytest.raises(StoreError):
        await boundary.send(Ask(chat=user("x")))
    assert not model.seen
    assert boundary.totals.messages == 0


async def test_a_stream_is_recorded_whole_and_costs_what_the_reply_costs() -> None:
    model = ScriptedModel({"x": "a b c"}, seconds=0.1)
    whole, pieces = Meter(price=Price(1.0, 10.0)), Meter(price=Price(1.0, 10.0))
    ledger = MemoryLedger()
    reply = await road(model, meter=whole).send(Ask(chat=user("x")))
    boundary = road(model, meter=pieces, ledger=ledger)
    deltas = [d async for d in boundary.stream(Ask(chat=user("x")))]
    assert "".join(d.text for d in deltas) == "a b c"
    assert whole.totals == pieces.totals
    recorded = [e for e in ledger.entries() if e.direction == "down"]
    assert recorded[0].message == reply


async def test_a_stream_cut_by_the_reader_is_settled_and_recorded() -> None:
    closed: list[bool] = []

    class Endless(ScriptedModel):
        async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
            try:
                while True:
                    yield Delta(text="word ")
            finally:
                closed.append(True)

    ledger = MemoryLedger()
    meter = Meter(price=Price(0, 1e6))
    stream = road(Endless(), meter=meter, ledger=ledger).stream(Ask(chat=user("x")))
    assert (await anext(stream)).text == "word "
    await stream.aclose()
    assert closed == [True]
    assert [e.direction for e in ledger.entries()] == ["up", "down"]
    assert meter.totals.tokens_out > 0, "a reply without usage must not look free"
    assert meter.reserved.messages == 0


async def test_the_default_guard_stream_is_the_guard() -> None:
    log: list[str] = []
    boundary = road(guards=(Replace("ann", "bob", log),))
    pieces = [d async for d in boundary.stream(Ask(chat=user("hi ann")))]
    assert "".join(d.text for d in pieces) == "hi ann"


async def test_a_guard_that_breaks_in_mid_stream_stops_it() -> None:
    class Breaks(Defence):
        async def guard_stream(
            self, ask: Ask, forward: StreamHandler, *, request: str
        ) -> AsyncIterator[Delta]:
            async for delta in forward(ask):
                yield delta
                raise KeyError(SECRET)

    received: list[str] = []

    async def read() -> None:
        boundary = road(ScriptedModel({"x": "a b"}), guards=(Breaks(),))
        async for delta in boundary.stream(Ask(chat=user("x"))):
            received.append(delta.text)

    with pytest.raises(PrivacyError) as caught:
        await read()
    assert received == ["a"]
    assert SECRET not in str(caught.value)


async def test_what_fails_beyond_the_guards_hides_its_own_words_too() -> None:
    class Broken:
        remote = False

        async def carry(self, payload: bytes) -> bytes:
            raise ValueError(SECRET)

        async def carry_stream(self, payload: bytes) -> AsyncIterator[bytes]:
            raise ValueError(SECRET)
            yield b""

    boundary = Boundary(Broken(), declared=frozenset({Ask}))
    with pytest.raises(PrivacyError) as whole:
        await boundary.send(Ask(chat=user("x")))
    with pytest.raises(PrivacyError) as pieces:
        [d async for d in boundary.stream(Ask(chat=user("x")))]
    for caught in (whole.value, pieces.value):
        assert SECRET not in str(caught)
    assert boundary.meter.reserved.messages == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_no_chain_of_errors_leads_back_to_what_a_guard_said(stream: bool) -> None:
    class Broken(Defence):
        async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
            raise KeyError(SECRET)

    boundary = road(guards=(Defence(), Broken()))

    async def cross() -> None:
        if stream:
            [d async for d in boundary.stream(Ask(chat=user("x")))]
        else:
            await boundary.send(Ask(chat=user("x")))

    with pytest.raises(PrivacyError) as caught:
        await cross()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("epsilon", [float("nan"), float("inf"), -1.0])
async def test_an_epsilon_that_would_break_the_budget_is_refused(epsilon: float) -> None:
    model = ScriptedModel()
    boundary = road(model, meter=Meter(Budget(epsilon=1.0)))
    with pytest.raises(PrivacyError):
        await boundary.send(Ask(chat=user("x"), epsilon=epsilon))
    assert not model.seen
    with pytest.raises(BudgetExceededError):
        await boundary.send(Ask(chat=user("x"), epsilon=1.5))


def test_no_tokeniser_makes_more_tokens_of_a_request_than_its_bound() -> None:
    """Digits are a token each in most vocabularies; other scripts take several bytes a character."""
    call = ToolCall("id", "look", '{"name": "' + "\u732b" * 100 + '"}')
    chat = (Turn("user", "7" * 1000, name="n" * 50), Turn("assistant", tool_calls=(call,)))
    tools = '["' + "\u732b" * 100 + '"]'
    tokens, _ = Ask(chat=chat, sampling=Sampling(tools=tools)).tokens_bound()
    assert tokens >= 1000 + 50 + len(call.arguments.encode()) + len(tools.encode())


@pytest.mark.parametrize("stated", [0, 40])
async def test_an_allowance_for_reasoning_is_inside_every_budget(stated: int) -> None:
    """What a model may think of is reserved, and booked where its reply states no usage."""
    reply = Generation("x" * 400, completion_tokens=stated)

    class Thinker(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            return reply

    meter = Meter(Budget(tokens_out=250), price=Price(0, 1e6, reasoning=90))
    boundary = road(Thinker(), meter=meter)
    await boundary.send(Ask(chat=user("x"), sampling=Sampling(max_tokens=10)))
    assert meter.totals.tokens_out == (stated or 100)
    with pytest.raises(BudgetExceededError, match="over the budget, 250"):
        await boundary.send(Ask(chat=user("x"), sampling=Sampling(max_tokens=161)))
    assert meter.price.bound(Completion(generation=reply)) == (0, 0, 0)
