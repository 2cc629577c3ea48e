"""Two models, one reply: what the large one is shown, how the two are joined, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.messages import Message, Step, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences.base import defences
from cosilo.errors import CapabilityError, ConfigError, CosiloError, DataError, RejectedError
from cosilo.models.base import Access, TextModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, strategies
from cosilo.strategies.inference.fusion import Fusion
from cosilo.testing import LABELS, StrategyContract
from cosilo.types import Answer, Chat, Demonstration, Sampling, Turn, user
from toy_thread import END, PIECES, ToyThreads

SECRET = "the patient is Ada"
CHAT = user(SECRET, system="Write a note.")
PUBLIC = (Turn("user", "Write a note."),)
ALL = len(PIECES)


class Wordy(ToyThreads):
    """Favours words, by a salt of its own."""

    def __init__(self, salt: int, name: str = "toy", vocabulary: str = "toy") -> None:
        super().__init__(name, vocabulary=vocabulary)
        self.salt = salt

    def logprobs(self, ids: Sequence[int]) -> np.ndarray:
        row = super().logprobs([self.salt, *ids]) + np.where(np.arange(ALL) > END, 6.0, 0.0)
        row[128:256] = -30.0
        return np.asarray(row - np.logaddexp.reduce(row))

    def behind(self, chat: Chat, text: str) -> np.ndarray:
        return self.logprobs([*self.prompt(chat), *self.cut(text)[0]])


def opened(
    small: TextModel | None = None,
    large: TextModel | None = None,
    *,
    sampling: Sampling = Sampling(max_tokens=5),
    ledger: MemoryLedger | None = None,
    tune: Sequence[str] = (" the refund", " about the refund", " the"),
    exposes: Access = Access.LOGITS,
    **options: Any,
) -> tuple[Fusion, Session]:
    strategy = strategies.create("fusion", **{"top": ALL} | options)
    assert isinstance(strategy, Fusion)
    calibration = tuple(Demonstration(f"t{i}", CHAT, text) for i, text in enumerate(tune))
    owner = DataOwner(small or Wordy(2, "small"), calibration=calibration)
    lm = LMOwner(large or Wordy(1, "large"), exposes=exposes.shows)
    return strategy, open_session(owner, lm, strategy, sampling=sampling, ledger=ledger)


async def prepared(pair: tuple[Strategy, Session]) -> tuple[Fusion, Session]:
    strategy, session = await pair[0].prepare(pair[1])
    assert isinstance(strategy, Fusion)
    return strategy, session


async def answered(strategy: Strategy, session: Session, chat: Chat = CHAT) -> Answer:
    return await strategy.answer(session.bind("a"), chat)


def sent(ledger: MemoryLedger) -> list[Message]:
    return [e.message for e in ledger.entries() if e.direction == "up" and e.message is not None]


def written_out(messages: Sequence[Message]) -> str:
    return " ".join(encode(m).decode(errors="replace") for m in messages)


@pytest.mark.parametrize(
    "options", [{"weight": 0.4}, {"rule": "delta", "beta": 0.7}, {"rule": "delta"}]
)
async def test_each_token_is_drawn_from_what_the_rule_says(options: dict[str, Any]) -> None:
    small, large = Wordy(2), Wordy(1)
    strategy, session = await prepared(opened(small, large, **options))
    found = (await answered(strategy, session)).generation
    text = ""
    for token in found.tokens:
        home, theirs = small.behind(CHAT, text), large.behind(PUBLIC, text)
        if "weight" in options:
            row = np.log(0.4 * np.exp(theirs) + 0.6 * np.exp(home))
        else:
            row = theirs + options.get("beta", 1.0) * (home - small.behind(PUBLIC, text))
        row[[i for i, p in enumerate(PIECES) if not p and i != END]] = -np.inf
        row -= np.logaddexp.reduce(row)
        assert abs(token.logprob - row.max()) < 0.1
        text += token.token


async def test_the_context_does_not_cross_whatever_is_learned_and_written() -> None:
    every: list[dict[str, Any]] = [
        {},
        {"rule": "defer", "calls": 0.5},
        {"rule": "delta", "ahead": 2},
    ]
    for options in every:
        ledger = MemoryLedger()
        strategy, session = await prepared(opened(ledger=ledger, **options))
        await answered(strategy, session)
        messages = sent(ledger)
        assert all(isinstance(m, Step) for m in messages)
        assert len(messages) > 1
        said = written_out(messages)
        assert "Write a note." in said
        assert "patient" not in said
        assert "Ada" not in said


async def test_a_gate_is_learned_from_tune_items_and_kept() -> None:
    ledger = MemoryLedger()
    strategy, session = await prepared(opened(ledger=ledger))
    assert strategy.numbers
    assert session.cards[-1].facts["tokens learned from"] == 3 + 4 + 2
    assert len(sent(ledger)) == 1 + 3  # one vocabulary? and each reply in one crossing
    again, _ = await strategy.prepare(session)
    assert again is strategy
    made_anew = strategies.create("fusion", top=ALL, numbers=strategy.numbers)
    one, two = [(await answered(s, session)).text for s in (strategy, made_anew)]
    assert one == two


async def test_a_learned_gate_believes_whoever_is_right() -> None:
    class Right(Wordy):
        def logprobs(self, ids: Sequence[int]) -> np.ndarray:
            row = super().logprobs(ids)
            after = list(ids)[list(ids).index(END) + 1 :] if END in ids else []
            right = [PIECES.index(b" the"), PIECES.index(b" refund"), END]
            row[right[min(2, len(after) - after.count(END))]] += 25.0
            return np.asarray(row - np.logaddexp.reduce(row))

    tune = [" the refund"] * 12
    for small, large in ((Right(2), Wordy(1)), (Wordy(2), Right(1))):
        strategy, session = await prepared(opened(small, large, tune=tune))
        assert (await answered(strategy, session)).text == " the refund"


async def test_with_deferral_only_some_tokens_are_asked_about() -> None:
    counts = []
    for calls in (0.0, 0.4, 1.0):
        ledger = MemoryLedger()
        strategy, session = await prepared(
            opened(rule="defer", calls=calls, ledger=ledger, sampling=Sampling(max_tokens=12))
        )
        before = len(sent(ledger))
        found = await answered(strategy, session)
        counts.append(len(sent(ledger)) - before)
        assert found.by == ("both" if counts[-1] else "small")
        assert strategy.calls is None
    assert counts[0] == 0
    assert counts[0] <= counts[1] <= counts[2]
    assert counts[2] > 0


async def test_a_tune_item_without_an_instruction_is_left_out() -> None:
    strategy, session = opened()
    bare = [Demonstration(f"b{i}", user(SECRET), " the") for i in range(3)]
    held = replace(session.owner, calibration=tuple(bare))
    with pytest.raises(DataError, match="no tune item"):
        await strategy.prepare(replace(session, owner=held))


@pytest.mark.parametrize(
    ("options", "chat"),
    [
        ({}, user(SECRET)),
        ({}, user(SECRET, system=" ")),
        ({"split": "marker"}, CHAT),
        ({"split": "marker", "marker": "###"}, user("Write.\n\n" + SECRET, system="Be brief.")),
        ({"split": "marker"}, (*user("Write.\n\nx"), Turn("assistant", "x"), Turn("user", SECRET))),
    ],
)
async def test_where_the_instruction_cannot_be_told_nothing_is_sent(
    options: dict[str, Any], chat: Chat
) -> None:
    ledger = MemoryLedger()
    strategy, session = opened(weight=0.5, ledger=ledger, **options)
    with pytest.raises(RejectedError) as caught:
        await answered(strategy, session, chat)
    assert not sent(ledger)
    assert "Ada" not in str(caught.value)


async def test_a_marker_parts_the_last_question() -> None:
    strategy, _ = opened(split="marker", marker="---", weight=0.5)
    chat = (
        Turn("system", "Be brief."),
        Turn("user", "who is Ada? --- Ada"),
        Turn("assistant", "Ada"),
        Turn("user", f"Write a note. --- {SECRET}"),
    )
    assert strategy.public(chat) == (Turn("user", "Be brief.\n\nWrite a note. "),)


@pytest.mark.parametrize(
    "options",
    [
        {"weight": 1.5},
        {"beta": -1.0},
        {"threshold": 2.0},
        {"items": 0},
        {"marker": ""},
        {"rule": "defer", "ahead": 2},
        {"by": "bytes"},
        {"numbers": (1.0, 2.0)},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        strategies.create("fusion", **options)


async def test_models_that_cannot_are_refused_before_anything_is_spent() -> None:
    script = ScriptedModel(lambda chat: "hi", name="script", confidence=0.5)
    ledger = MemoryLedger()
    strategy, session = opened(small=script, ledger=ledger)
    with pytest.raises(CapabilityError, match="'script' does not"):
        await strategy.prepare(session)
    assert not sent(ledger)
    with pytest.raises(CapabilityError, match="exposes only text"):
        opened(exposes=Access.TEXT)
    strategy, session = opened(large=Wordy(1, vocabulary="another"), weight=0.5)
    with pytest.raises(CapabilityError, match=r"'small' has another.*bytes"):
        await strategy.prepare(session)


async def test_across_vocabularies_it_goes_by_bytes() -> None:
    ledger = MemoryLedger()
    pair = opened(
        large=Wordy(1, vocabulary="another"), rule="delta", by="bytes", top=32, ledger=ledger
    )
    strategy, session = await prepared(pair)
    found = await answered(strategy, session)
    assert found.text
    assert found.generation.completion_tokens <= 5
    assert "Ada" not in written_out(sent(ledger))


async def test_behind_pseudonyms_nothing_crosses() -> None:
    ledger = MemoryLedger()
    strategy = strategies.create("fusion", weight=0.5)
    owner = DataOwner(Wordy(2, "small"))
    session = open_session(
        owner,
        LMOwner(Wordy(1), exposes=Access.LOGITS.shows),
        strategy,
        defences=[defences.create("pseudonym", detectors=("patterns",))],
        ledger=ledger,
    )
    with pytest.raises(CosiloError):
        await answered(strategy, session)
    assert not sent(ledger)


class TestFusion(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("fusion", top=ALL)

    def small(self) -> Any:
        return Wordy(2, "small")

    def large(self) -> Any:
        return Wordy(1, "large")

    def owner(self) -> DataOwner:
        given = super().owner()
        system = Turn("system", "Name it.")
        return replace(
            given, calibration=tuple(Demonstration(e.id, (system, *e.chat), e.target)
                                     for e in given.calibration[:6])
        )  # fmt: skip

    def chats(self) -> Sequence[Chat]:
        return [(Turn("system", "Name it."), *chat) for chat in super().chats()]

    def open(self, **options: Any) -> Session:
        return open_session(
            self.owner(),
            LMOwner(self.large(), exposes=Access.LOGITS.shows),
            self.strategy(),
            sampling=Sampling(choices=LABELS),
            **options,
        )
