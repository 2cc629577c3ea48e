"""The reply is the LM's own, drafts save crossings, and what does not pay or cannot be is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cosilo.boundary.messages import Ask, Message, Verify
from cosilo.boundary.meter import Meter, Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.errors import (
    CapabilityError,
    ConfigError,
    DataError,
    PrivacyError,
    RejectedError,
    UnexpectedReplyError,
    UnknownThreadError,
)
from cosilo.models.base import Access, Shows
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, strategies, stream
from cosilo.strategies.drafting import worded
from cosilo.testing import LABELS, StrategyContract
from cosilo.types import Answer, Chat, Delta, Demonstration, Generation, Sampling, assemble, user
from few_words import FewWords
from toy_thread import END, PIECES, ToyThreads

CHAT = user("Why?")
LONG = Sampling(max_tokens=12, temperature=0.6, seed=3)


class Scripted(ScriptedModel):
    """A scripted model that could go on from what it has read."""

    async def read(self, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("a choice of labels is asked for whole")


class TestSpeculative(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("speculative", draft="lookup")

    def large(self) -> ScriptedModel:
        return Scripted({f"about {x}": x for x in LABELS}, name="large", seconds=0.1)


def opened(
    large: Any,
    small: Any = None,
    *,
    sampling: Sampling = LONG,
    owner: Any = None,
    ledger: MemoryLedger | None = None,
    meter: Meter | None = None,
    defences: Sequence[Any] = (),
    tune: int = 0,
    **options: Any,
) -> tuple[Any, Session]:
    strategy = strategies.create("speculative", **{"anyway": True} | options)
    home = DataOwner(
        small or ScriptedModel(),
        calibration=tuple(Demonstration(f"t{i}", user(f"tune {i}"), "") for i in range(tune)),
    )
    session = open_session(
        home, owner or LMOwner(large), strategy, sampling=sampling, ledger=ledger, meter=meter,
        defences=defences,
    )  # fmt: skip
    return strategy, session


@pytest.mark.parametrize("draft", ["small", "lookup", "both"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("adaptive", [False, True])
async def test_the_answer_is_the_lms_own(draft: str, temperature: float, adaptive: bool) -> None:
    large, small = FewWords.drawn(3), FewWords.drawn(4)
    for seed in range(12):
        sampling = Sampling(max_tokens=12, temperature=temperature, seed=seed)
        alone = await large.generate(CHAT, sampling)
        strategy, session = opened(large, small, sampling=sampling, draft=draft, adaptive=adaptive)
        strategy, session = await strategy.prepare(session)
        bound = session.bind("1")
        answer = await strategy.answer(bound, CHAT)
        g = answer.generation
        assert (g.text, g.finish_reason) == (alone.text, alone.finish_reason)
        assert g.completion_tokens == alone.completion_tokens
        assert answer.by == "large"
        assert bound.totals.messages <= g.completion_tokens
        pieces = [p async for p in stream(strategy, session.bind("2"), CHAT)]
        assert assemble(p for p in pieces if isinstance(p, Delta)).text == alone.text
        assert isinstance(pieces[-1], Answer)
        assert pieces[-1].text == alone.text


async def test_a_draft_that_is_right_saves_crossings_and_counts_as_sent() -> None:
    rows = FewWords.drawn(2).rows
    rows[:, 4] = 1e-9
    large = FewWords(rows)
    ledger = MemoryLedger()
    strategy, session = opened(large, FewWords(rows), ledger=ledger, length=5)
    answer = await strategy.answer(session.bind("1"), CHAT)
    sent = [e.message for e in ledger.entries() if e.direction == "up"]
    assert len(sent) == 2, "twelve tokens in two crossings: 5 + 1, 5 + 1"
    assert [m.draft for m in sent] == [answer.text[:5], answer.text[6:11]]
    assert [bool(m.chat) for m in sent] == [True, False]
    replies = [e.message for e in ledger.entries() if e.direction == "down"]
    assert [(m.accepted, m.own) for m in replies] == [(5, 1), (5, 1)]
    assert [m.usage() for m in replies] == [(6, 1), (12, 1)]


class Counting:
    """An owner whose messages can be counted, and who may forget, or say something else."""

    name, exposes = "lm-owner", Shows.TEXT

    def __init__(
        self,
        owner: LMOwner,
        *,
        forgets: int = 0,
        deaf: bool = False,
        says: dict[str, Any] | None = None,
    ) -> None:
        self.owner, self.forgets, self.deaf, self.says = owner, forgets, deaf, says or {}
        self.sent: list[Message] = []

    async def handle(self, message: Message) -> Message:
        self.sent.append(message)
        if isinstance(message, Verify) and message.thread and self.forgets:
            self.forgets -= 1
            raise UnknownThreadError("no such thread")
        if self.deaf and isinstance(message, Verify):
            message = replace_(message, draft="")
        return replace_(await self.owner.handle(message), **self.says)

    def handle_stream(self, ask: Ask) -> Any:
        return self.owner.handle_stream(ask)


def replace_(message: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(message, **changes) if changes else message


async def test_a_thread_that_was_forgotten_is_begun_again_with_what_was_told() -> None:
    rows = FewWords.drawn(2).rows
    rows[:, 4] = 1e-9
    large = FewWords(rows)
    alone = await large.generate(CHAT, LONG)
    owner = Counting(LMOwner(large), forgets=1)
    strategy, session = opened(large, owner=owner, draft="lookup")
    pieces = [p async for p in strategy.stream(session.bind("1"), CHAT)]
    assert assemble(p for p in pieces if isinstance(p, Delta)).text == alone.text
    again = owner.sent[2]
    assert isinstance(again, Verify)
    assert again.chat == CHAT
    assert again.draft == alone.text[:1]
    # One that forgets each time comes on all the same, as it is told what it had said.
    owner = Counting(LMOwner(large), forgets=1000)
    strategy, session = opened(large, owner=owner, draft="lookup")
    assert (await strategy.answer(session.bind("1"), CHAT)).text == alone.text
    owner = Counting(LMOwner(large), forgets=1000, deaf=True)
    strategy, session = opened(large, owner=owner, draft="lookup")
    with pytest.raises(UnexpectedReplyError, match="forgets"):
        await strategy.answer(session.bind("1"), CHAT)


async def test_a_reply_that_does_not_come_on_ends() -> None:
    for says in ({"at": 0}, {"at": 500}, {"thread": b""}):
        owner = Counting(LMOwner(FewWords.drawn(2)), says=says)
        strategy, session = opened(FewWords.drawn(2), owner=owner, draft="lookup")
        with pytest.raises(UnexpectedReplyError, match="come on"):
            await strategy.answer(session.bind("1"), CHAT)


async def test_what_a_thread_cannot_say_is_asked_whole() -> None:
    for other in (
        {"choices": ("a", "b")}, {"tools": "[]"}, {"response_format": "{}"}, {"top_logprobs": 2},
    ):  # fmt: skip
        owner = Counting(LMOwner(Scripted(lambda chat: "ok"), Access.LOGPROBS.shows))
        owner.exposes = Access.LOGPROBS.shows
        strategy, session = opened(None, owner=owner, draft="lookup", sampling=Sampling(**other))
        assert (await strategy.answer(session.bind("1"), CHAT)).text
        assert {type(m) for m in owner.sent} == {Ask}


async def test_models_that_cannot_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(CapabilityError, match="large model that keeps what it has read"):
        opened(ScriptedModel(), FewWords.drawn(1))
    ledger = MemoryLedger()
    strategy, session = opened(FewWords.drawn(1), ScriptedModel(), ledger=ledger)
    with pytest.raises(CapabilityError, match="drafts with a small model"):
        await strategy.prepare(session)
    assert not list(ledger.entries())
    other = FewWords.drawn(2)
    other.vocabulary = "other"
    strategy, session = opened(other, FewWords.drawn(1), same_tokeniser=True)
    with pytest.raises(CapabilityError, match="another tokeniser"):
        await strategy.answer(session.bind("1"), CHAT)
    strategy, session = opened(other, FewWords.drawn(1))
    alone = await other.generate(CHAT, LONG)
    assert (await strategy.answer(session.bind("1"), CHAT)).text == alone.text


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"draft": "large"}, "none of small"),
        ({"length": 0}, "between 1 and 16"),
        ({"probe": 0}, "not positive"),
        ({"round_trip_s": -1.0}, "round_trip_s"),
        ({"documents": (Path("a.txt"),)}, "looked up"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        strategies.create("speculative", **options)


class Slow(FewWords):
    """Takes so long for a token, by its own word."""

    def __init__(self, rows: np.ndarray, seconds: float) -> None:
        super().__init__(rows)
        self.seconds = seconds

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        found = await super().generate(chat, sampling)
        return replace_(found, seconds=self.seconds * found.completion_tokens)


def never_ending(seed: int) -> np.ndarray:
    rows = FewWords.drawn(seed).rows
    rows[:, 4] = 1e-9
    return rows


async def test_prepare_measures_both_ways_and_chooses_a_length_or_refuses() -> None:
    large = Slow(never_ending(2), 0.2)
    price = Price(usd_per_m_in=1.0, usd_per_m_out=4.0)
    strategy, session = opened(
        large, FewWords(never_ending(2)), anyway=False, tune=6, probe=3, meter=Meter(price=price)
    )
    ready, session = await strategy.prepare(session)
    (card,) = session.cards
    assert ready.length >= 6, "every draft is kept"
    assert card.facts["tokens of a draft"] == ready.length
    assert card.facts["times as fast as the LM alone"] > 1
    assert card.facts["times the price"] > 0
    again, same = await ready.prepare(session)
    assert again == ready
    assert same.totals == session.totals, "it was measured before"
    far, session = opened(large, FewWords(never_ending(2)), anyway=False, tune=6, round_trip_s=60.0)
    with pytest.raises(ConfigError, match=r"would take .* times as long as the LM alone.*anyway"):
        await far.prepare(session)
    none, session = opened(large, FewWords(never_ending(2)), anyway=False)
    with pytest.raises(DataError, match="tune"):
        await none.prepare(session)


async def test_documents_are_drafted_from_where_the_plan_says_so(tmp_path: Path) -> None:
    document = tmp_path / "terms.txt"
    large = FewWords(never_ending(2))
    alone = (await large.generate(CHAT, LONG)).text
    document.write_text(alone, "utf-8")
    ledger = MemoryLedger()
    strategy, session = opened(large, draft="lookup", documents=(document,), ledger=ledger)
    ready, session = await strategy.prepare(session)
    document.unlink()
    assert (await ready.answer(session.bind("1"), CHAT)).text == alone
    drafts = [e.message.draft for e in ledger.entries() if e.direction == "up"]
    assert any(draft and draft in alone for draft in drafts)
    strategy, session = opened(large, draft="lookup", documents=(document,))
    with pytest.raises(ConfigError, match="no file of text"):
        await strategy.prepare(session)


class Writes(ToyThreads):
    """Writes a text that goes by the chat, and ends."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.text = text
        self.chats: list[Chat] = []
        self._plan = b""

    def prompt(self, chat: Chat) -> list[int]:
        self.chats.append(chat)
        self._plan = self.text(chat[-1].content).encode()
        return super().prompt(chat)

    def logprobs(self, ids: Sequence[int]) -> np.ndarray:
        at = len(ids) - 1 - list(ids).index(END)
        token = [*self._plan, END][min(at, len(self._plan))]
        return np.where(np.arange(len(PIECES)) == token, 0.0, -40.0)


SECRET = "jane.roe@example.org"


async def test_behind_pseudonyms_nothing_private_crosses_and_the_answer_comes_back(
    tmp_path: Path,
) -> None:
    """The small model drafts from the question as it is; what it drafts is covered like the rest."""
    prompt = f"Write to {SECRET} about the invoice of Tuesday, please."
    large = Writes(lambda said: f"Dear {said.split()[2]} , about your invoice: it was paid .")
    small = Writes(lambda said: f"Dear {SECRET} , about your invoice: it was not .")
    ledger = MemoryLedger()
    sampling = Sampling(max_tokens=200)
    guard = Pseudonym(detectors=("patterns",), key_file=tmp_path / "key")
    strategy, session = opened(
        large, small, sampling=sampling, ledger=ledger, defences=(guard,), length=16
    )
    strategy, session = await strategy.prepare(session)
    answer = await strategy.answer(session.bind("1"), user(prompt))
    assert answer.text == f"Dear {SECRET} , about your invoice: it was paid ."
    sent = [e.payload or b"" for e in ledger.entries()]
    assert sent
    assert all(SECRET.encode() not in payload for payload in sent)
    assert all(b"jane" not in payload and b"example.org" not in payload for payload in sent)
    crossings = len([e for e in ledger.entries() if e.direction == "up"])
    assert crossings < 0.7 * len(answer.text), "drafts are kept, behind a placeholder too"
    pieces = [p async for p in strategy.stream(session.bind("2"), user(prompt))]
    assert [type(p) for p in pieces] == [Delta, Answer], "in one piece"
    assert assemble(p for p in pieces if isinstance(p, Delta)).text == answer.text


async def test_a_draft_without_its_reply_passes_no_defence(tmp_path: Path) -> None:
    """Half of a value is nothing that a detector would know."""
    guard = Pseudonym(detectors=("patterns",), key_file=tmp_path / "key")
    ledger = MemoryLedger()
    _, session = opened(FewWords.drawn(1), defences=(guard,), ledger=ledger)
    for asked in (
        Verify(thread=b"." * 16, draft="roe@exa"),
        Verify(chat=CHAT, sampling=Sampling(), draft="roe@exa"),
    ):
        with pytest.raises(PrivacyError, match="without the reply"):
            await session.lm.send(asked)
    assert not list(ledger.entries())


def test_what_a_defended_draft_ends_with_is_a_word() -> None:
    assert worded("to jane.roe@exam") == "to"


async def test_a_small_model_whose_context_is_full_drafts_nothing() -> None:
    class Short(FewWords):
        async def read(self, past: Any, ids: Sequence[int], **options: Any) -> Any:
            if len(ids) + len(past.ids if past is not None else ()) > 4:
                raise RejectedError("too long")
            return await super().read(past, ids, **options)

    large = FewWords(never_ending(2))
    strategy, session = opened(large, Short(never_ending(2)))
    alone = await large.generate(CHAT, LONG)
    assert (await strategy.answer(session.bind("1"), CHAT)).text == alone.text


async def test_a_reply_ends_where_the_large_models_context_is_full() -> None:
    class Short(FewWords):
        async def read(self, past: Any, ids: Sequence[int], **options: Any) -> Any:
            if len(ids) + len(past.ids if past is not None else ()) > 6:
                raise RejectedError("too long")
            return await super().read(past, ids, **options)

    strategy, session = opened(Short(never_ending(2)), FewWords(never_ending(2)))
    answer = await strategy.answer(session.bind("1"), CHAT)
    assert answer.generation.finish_reason == "length"
    assert answer.text
