"""A strategy's side of a thread: only what is new is sent, and what comes back fits what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Message, Step, Steps, encode
from cosilo.boundary.meter import Budget, Meter, Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    UnexpectedReplyError,
    UnknownThreadError,
)
from cosilo.models.base import Access
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.threads import Threads
from cosilo.strategies.thread import Thread
from cosilo.types import user
from toy_thread import ToyThreads

CHAT = user("Why?")
SMILE = "🙂".encode()


class Seen:
    """An owner whose requests and replies can be looked at, and changed."""

    def __init__(self, owner: LMOwner, **change: object) -> None:
        self.owner, self.change = owner, change
        self.steps: list[Step] = []

    async def handle(self, message: Message) -> Message:
        assert isinstance(message, Step)
        self.steps.append(message)
        reply = await self.owner.handle(message)
        return replace(reply, **self.change) if self.change else reply

    def handle_stream(self, ask: object) -> Any:
        raise AssertionError


def opened(
    words: ToyThreads | None = None,
    *,
    owner: LMOwner | None = None,
    meter: Meter | None = None,
    change: dict[str, object] | None = None,
    **options: Any,
) -> tuple[Thread, Seen, ToyThreads]:
    model = ToyThreads()
    seen = Seen(owner or LMOwner(model, exposes=Access.LOGITS.shows), **(change or {}))
    road = Boundary(InProcess(seen), declared=frozenset({Step}), meter=meter)
    return Thread(road, CHAT, words, **{"top": 3, **options}), seen, model


def texts(steps: Sequence[Step]) -> list[tuple[bool, str, tuple[int, ...], str]]:
    return [(bool(s.chat), s.text, s.ids, s.draft) for s in steps]


async def test_only_what_is_new_is_sent() -> None:
    thread, seen, model = opened(ToyThreads())
    assert (await thread.go_on()).likeliest == model.next(CHAT, "")
    assert thread.shared
    assert thread.ends == model.ends
    await thread.go_on(model.cut(" the ref")[0])
    said = await thread.go_on(" about")
    assert said.likeliest == model.next(CHAT, " the ref about")
    assert thread.text == b" the ref about"
    assert texts(seen.steps) == [
        (True, "", (), ""), (False, " the ref", (), ""), (False, " about", (), ""),
    ]  # fmt: skip
    assert [s.held for s in seen.steps] == [0, 5, 8]


async def test_tokens_go_as_ids_where_that_is_wanted_and_they_are_how_the_text_is_cut() -> None:
    thread, seen, model = opened(ToyThreads(), ids=True)
    await thread.go_on()
    await thread.go_on(model.cut(" the")[0])
    odd = [b for b in b"ref"]
    said = await thread.go_on(odd)
    assert said.likeliest == model.next(CHAT, " theref")
    assert [(s.text, s.ids) for s in seen.steps] == [
        ("", ()), ("", tuple(model.cut(" the")[0])), ("ref", ()),
    ]  # fmt: skip


async def test_what_stays_of_a_draft_is_not_sent_again() -> None:
    thread, seen, model = opened(ToyThreads())
    await thread.go_on()
    draft = model.cut(" the ref about")[0]
    said = await thread.go_on([], draft, each=True)
    assert said.lengths == (4, 1, 3, 6)
    assert len(said.top) == 5
    await thread.go_on([*draft[:3], *b"!"])
    assert texts(seen.steps)[1:] == [(False, "", (), " the ref about"), (False, "!", (), "")]
    assert thread.text == b" the ref!"


async def test_half_a_character_goes_as_ids_until_it_is_whole() -> None:
    thread, seen, model = opened(ToyThreads())
    await thread.go_on("a")
    for byte in SMILE:
        said = await thread.go_on([byte])
    assert said.likeliest == model.next(CHAT, "a🙂")
    assert texts(seen.steps) == [
        (True, "a", (), ""),
        *((False, "", tuple(SMILE[: i + 1]), "") for i in range(3)),
        (False, "🙂", (), ""),
    ]
    assert all(step.legible() for step in seen.steps)
    await thread.go_on([SMILE[0]])
    with pytest.raises(CapabilityError, match="half a character"):
        await thread.go_on([SMILE[1]], "x")


async def test_a_thread_that_was_forgotten_is_sent_whole_and_once() -> None:
    owner = LMOwner(ToyThreads(), exposes=Access.LOGITS.shows, threads=Threads(most=1))
    thread, seen, model = opened(ToyThreads(), owner=owner)
    await thread.go_on(" the")
    await owner.handle(Step(chat=user("another")))
    said = await thread.go_on(" ref")
    assert said.likeliest == model.next(CHAT, " the ref")
    assert texts(seen.steps) == [
        (True, " the", (), ""), (False, " ref", (), ""), (True, " the ref", (), ""),
    ]  # fmt: skip

    class Forgetful(Seen):
        async def handle(self, message: Message) -> Message:
            raise UnknownThreadError("never heard of it")

    lost = Thread(Boundary(InProcess(Forgetful(owner)), declared=frozenset({Step})), CHAT)
    with pytest.raises(UnknownThreadError):
        await lost.go_on("x")


async def test_without_the_lm_s_vocabulary_text_can_be_said_and_tokens_cannot() -> None:
    thread, _, model = opened(ToyThreads(vocabulary="another"))
    said = await thread.go_on(" ref", "und about", spell=True)
    assert not thread.shared
    assert (said.back, said.lengths) == (4, (3, 6))
    assert said.spelt == {i: model.piece(i) for i in said.spelt}
    with pytest.raises(CapabilityError, match="say text"):
        await thread.go_on([3])


@pytest.mark.parametrize(
    "change",
    [
        {"accepted": 9},
        {"lengths": (1,)},
        {"lengths": (9, 1)},
        {"packed": b"\2"},
        {"spelt": (b"x",)},
    ],
)
async def test_a_reply_about_something_else_is_refused(change: dict[str, object]) -> None:
    thread, _, _ = opened(ToyThreads(), change=change)
    with pytest.raises(UnexpectedReplyError):
        await thread.go_on(" the", " about")


async def test_a_step_s_most_is_reserved_and_what_it_took_is_booked() -> None:
    price = Price(usd_per_m_in=1e6, usd_per_m_cached=1e5)
    meter = Meter(Budget(bytes_down=20_000), price=price)
    thread, _, model = opened(ToyThreads(), meter=meter)
    await thread.go_on()
    assert meter.totals.tokens_in == 5
    await thread.go_on(model.cut(" the ref")[0], " about", each=True)
    assert meter.totals.tokens_in == 5 + 9
    assert meter.totals.usd == pytest.approx(5 + 4 + 0.5)
    assert meter.totals.disputes == 0
    with pytest.raises(BudgetExceededError):
        await thread.go_on("", "a long draft " * 40, each=True)


async def test_the_most_a_reply_can_have_is_more_than_it_has() -> None:
    thread, seen, _ = opened(ToyThreads(), top=261)
    for new, draft in (("", ""), (" the", " ref about"), ("", "🙂🙂 und so weiter")):
        for each in (False, True):
            await thread.go_on(new, draft, each=each, spell=True)
    for step in seen.steps:
        reply = await seen.owner.handle(step)
        assert len(encode(reply)) <= step.reply_bound(0)
        assert sum(reply.usage()) <= step.tokens_bound()[0]


async def test_every_step_is_in_the_ledger() -> None:
    ledger = MemoryLedger()
    owner = LMOwner(ToyThreads(), exposes=Access.LOGITS.shows)
    road = Boundary(InProcess(owner), declared=frozenset({Step}), ledger=ledger)
    thread = Thread(road, CHAT, top=3)
    await thread.go_on(" the")
    await thread.go_on(" ref")
    entries = list(ledger.entries())
    assert [(e.direction, e.kind) for e in entries] == [("up", "Step"), ("down", "Steps")] * 2


def test_the_envelope_of_a_step_is_small() -> None:
    up = encode(Step(thread=bytes(16), text=" word", held=200, top=64))
    down = encode(Steps(packed=bytes(200), before=200))
    assert len(up) - len(" word") <= 41
    assert len(down) - 200 <= 25
