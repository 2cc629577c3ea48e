"""The LM is tuned through its emulator, and asked with what was tuned where that is better."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

import lent
import tiny_lm
from bag import Bag
from cosilo.boundary.messages import Ask, Lend, Lent, Message, PlugIn
from cosilo.boundary.meter import Budget, Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences.base import defences
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    CosiloError,
    DataError,
    ModelError,
    PrivacyError,
    UnexpectedReplyError,
)
from cosilo.models.base import Shows, TextModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.serving.base import answer as served
from cosilo.session import open_session
from cosilo.strategies import borrowing
from cosilo.strategies.base import Session, Strategy, strategies, stream
from cosilo.strategies.tuned_ends import TunedEnds
from cosilo.strategies.upward.offsite import Comparison, Offsite
from cosilo.testing import StrategyContract
from cosilo.types import Answer, user

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time


class TestContract(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("offsite", **lent.OPTIONS | {"steps": 6}, items=2)

    def small(self) -> TextModel:
        return lent.plain_model()

    def owner(self) -> DataOwner:
        return replace(super().owner(), model=self.small())

    def open(self, *, meter: Any = None, ledger: Any = None, **options: Any) -> Session:
        return open_session(
            self.owner(),
            LMOwner(lent.shared(), lent.LENDS),
            self.strategy(),
            sampling=lent.SAMPLING,
            meter=meter,
            ledger=ledger,
            **options,
        )


def prepared(strategy: Any, session: Session) -> tuple[Strategy, Session]:
    return asyncio.run(strategy.prepare(session))


def kinds(ledger: MemoryLedger, up: bool = True) -> list[str]:
    return [e.kind for e in ledger.entries() if (e.direction == "up") == up]


def facts(session: Session) -> dict[str, Any]:
    (card,) = [c for c in session.cards if c.by == "offsite"]
    return {**card.facts, **card.tables["grade on the tune items"]}


def answered(strategy: Strategy, session: Session, text: str = "about 7") -> Answer:
    return asyncio.run(strategy.answer(session.bind("item"), user(text)))


def test_the_lm_learns_what_the_records_say_and_no_record_crosses() -> None:
    ledger = MemoryLedger()
    strategy, session = lent.opened(ledger=ledger)
    tuned, session = prepared(strategy, session)
    assert isinstance(tuned, Offsite)
    assert tuned.tuned is not None
    found = facts(session)
    assert (found["large model as it was"], found["plugged in"]) == (0.1667, 1.0)
    assert found["emulator tuned"] == 1.0
    assert found["the large model answers"] == "with what was tuned"
    assert found["plugged in > emulator tuned ≥ emulator as sent"] == "no", "it does as well alone"
    assert found["its 95 % interval"] == "0.5000 to 1.0000"
    said = answered(tuned, session)
    assert (said.text, said.by) == ("billing", "large")
    assert kinds(ledger) == ["Lend", "PlugIn", *["Ask"] * 13]
    for entry in ledger.entries():
        assert "about e" not in str(entry.message.passages())
    (sent,) = [e.message for e in ledger.entries() if isinstance(e.message, PlugIn)]
    assert sent.passages() == []
    assert not sent.legible()


def test_where_it_is_no_better_the_lm_stays_as_it_was() -> None:
    tuned, session = prepared(*lent.opened(learning_rate=1e-9))  # nothing is learned
    found = facts(session)
    assert found["large model as it was"] == found["plugged in"]
    assert found["the large model answers"] == "as it was"
    assert tuned.tuned.name == ""  # type: ignore[attr-defined]
    ledger = MemoryLedger()
    again, session = prepared(*lent.opened(tuned=tuned.tuned, ledger=ledger))  # type: ignore[attr-defined]
    answered(again, session)
    (ask,) = [e.message for e in ledger.entries() if isinstance(e.message, Ask)]
    assert ask == Ask(chat=user("about 7"), sampling=lent.SAMPLING)


def test_the_same_again_is_the_same_to_the_bit() -> None:
    one, _ = prepared(*lent.opened(lent.lender()))
    two, _ = prepared(*lent.opened(lent.lender()))
    other, _ = prepared(*lent.opened(lent.lender(), seed=1))
    packed = [each.tuned.packed for each in (one, two, other)]  # type: ignore[attr-defined]
    assert packed[0] == packed[1] != packed[2]


def test_a_second_round_goes_on_through_an_aligned_middle() -> None:
    ledger = MemoryLedger()
    strategy, session = lent.opened(ledger=ledger, rounds=2, steps=20)
    tuned, session = prepared(strategy, session)
    assert kinds(ledger)[:4] == ["Lend", "PlugIn", "Lend", "PlugIn"]
    loans = [e.message for e in ledger.entries() if isinstance(e.message, Lent)]
    assert loans[1].size < 0.5 * loans[0].size, "only what changed comes again"
    names = [e.message.name for e in ledger.entries() if e.kind == "PluggedIn"]  # type: ignore[attr-defined]
    (aligned,) = [
        e.message.aligned_to
        for e in ledger.entries()
        if isinstance(e.message, Lend) and e.message.aligned_to
    ]
    assert aligned == names[0]
    assert tuned.tuned.name == names[1]  # type: ignore[attr-defined]
    assert facts(session)["rounds"] == 2
    assert answered(tuned, session).text == "billing"


@pytest.mark.parametrize("streams", [False, True])
def test_what_the_owner_has_forgotten_is_plugged_in_again(streams: bool) -> None:
    ledger, large = MemoryLedger(), lent.lender()
    tuned, session = prepared(*lent.opened(large, ledger=ledger))
    before = len(kinds(ledger))
    large._adapters._own.clear()
    large._adapters._plugged.clear()

    async def whole() -> Answer:
        if not streams:
            return await tuned.answer(session.bind("item"), user("about 7"))
        return [p async for p in stream(tuned, session.bind("item"), user("about 7"))][-1]  # type: ignore[return-value]

    assert asyncio.run(whole()).text == "billing"
    assert kinds(ledger)[before:] == ["Ask", "PlugIn", "Ask"]


def test_a_bundle_holds_what_was_tuned(tmp_path: Path) -> None:
    tuned, _ = prepared(*lent.opened())
    ends = tuned.tuned  # type: ignore[attr-defined]
    ends.save(tmp_path / "tuned")
    assert stat.S_IMODE((tmp_path / "tuned" / "adapter.bin").stat().st_mode) == 0o600
    assert "packed" not in repr(ends)
    again = TunedEnds.load(tmp_path / "tuned")
    assert all(
        getattr(again, n) == getattr(ends, n) for n in ("name", "base", "rank", "alpha", "packed")
    )
    ledger = MemoryLedger()
    served, session = prepared(*lent.opened(lent.lender(), ledger=ledger, tuned=again))
    assert kinds(ledger) == [], "nothing is tuned again"
    assert answered(served, session).text == "billing"
    assert kinds(ledger) == ["Ask", "PlugIn", "Ask"]


# ── refused before anything is spent ─────────────────────────────────────────


def refused(strategy: Any, session: Session, ledger: MemoryLedger, error: type[CosiloError]) -> str:
    with pytest.raises(error) as caught:
        prepared(strategy, session)
    assert "PlugIn" not in kinds(ledger)
    assert "Lent" not in kinds(ledger, up=False)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lent.owner(0), "none with a target"),
        (lent.owner(label=""), "none with a target"),
        (lent.owner(tune=1), "'tune' split"),
    ],
)
def test_without_examples_nothing_is_asked_for(data: Any, why: str) -> None:
    ledger = MemoryLedger()
    assert why in refused(*lent.opened(data=data, ledger=ledger), ledger, DataError)
    assert kinds(ledger) == []


def test_a_small_model_without_weights_or_an_owner_who_lends_nothing_is_refused() -> None:
    with pytest.raises(CapabilityError, match="weights"):
        lent.opened(data=lent.owner(small=ScriptedModel()))
    with pytest.raises(CapabilityError, match="emulator"):
        lent.opened(exposes=Shows.TEXT)
    ledger = MemoryLedger()
    found = refused(*lent.opened(lent.plain_model(), ledger=ledger), ledger, CapabilityError)
    assert "lends no emulator" in found


def test_another_tokeniser_is_refused() -> None:
    words = tiny_lm.tokenizer(("other", "words"))
    small = TorchModel.holding(tiny_lm.module(len(words)), ChatTokens(words), name="other")
    ledger = MemoryLedger()
    found = refused(
        *lent.opened(data=lent.owner(small=small), ledger=ledger), ledger, CapabilityError
    )
    assert "another tokeniser" in found


def test_an_emulator_that_is_too_large_or_too_good_does_not_cross() -> None:
    ledger = MemoryLedger()
    found = refused(*lent.opened(most_mb=0.1, ledger=ledger), ledger, CapabilityError)
    assert "takes no more than" in found
    large = lent.lender(least_gap=99.0)
    assert "nats per token worse" in refused(
        *lent.opened(large, ledger=ledger), ledger, CapabilityError
    )


def test_a_budget_of_nothing_sends_nothing() -> None:
    ledger, meter = MemoryLedger(), Meter(Budget(messages=0))
    refused(*lent.opened(ledger=ledger, meter=meter), ledger, BudgetExceededError)
    assert kinds(ledger) == []


def test_the_pseudonym_defence_cannot_read_weights_so_nothing_leaves() -> None:
    hides = defences.create("pseudonym", detectors=("patterns",))
    ledger = MemoryLedger()
    refused(*lent.opened(ledger=ledger, defences=(hides,)), ledger, PrivacyError)
    assert kinds(ledger) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0}, {"steps": 0}, {"rounds": 0}, {"learning_rate": -1.0}, {"most_mb": 0.0},
        {"codec": "mp3"}, {"items": 1}, {"learning_rate": float("nan")},
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="|".join([*wrong, "codec"])):
        strategies.create("offsite", **wrong)


def test_training_that_explodes_plugs_nothing_in() -> None:
    ledger = MemoryLedger()
    with pytest.raises((ModelError, ValueError)):
        prepared(*lent.opened(ledger=ledger, learning_rate=1e30))
    assert "PlugIn" not in kinds(ledger)


# ── what a hostile owner may send ────────────────────────────────────────────


class Lies(LMOwner):
    """An owner whose emulator is not what it says."""

    async def handle(self, message: Message) -> Message:
        reply = await served(self, message)
        if isinstance(reply, Lent):
            return lie(reply)
        return reply


def lie(reply: Lent) -> Lent:
    raise NotImplementedError


def config(reply: Lent, **changes: Any) -> Lent:
    assert reply.about is not None
    about = msgspec.structs.replace(reply.about, **changes)
    return msgspec.structs.replace(reply, about=about)


@pytest.mark.parametrize(
    "hostile",
    [
        lambda r: msgspec.structs.replace(r, packed=r.packed[:-1] + b"\0", digest=r.digest),
        lambda r: msgspec.structs.replace(r, packed=r.packed[:-1], size=r.size - 1),
        lambda r: msgspec.structs.replace(r, size=1 << 35, parts=1 << 12),
        lambda r: config(r, config='{"model_type": "llama", "num_hidden_layers": 9}'),
        lambda r: config(r, ends=2),
        lambda r: config(r, kept=(0, 1)),
    ],
)
def test_what_is_no_emulator_is_refused_and_nothing_goes_back(
    hostile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.lie", hostile)
    ledger = MemoryLedger()
    strategy = strategies.create("offsite", **lent.OPTIONS)
    owner = Lies(lent.lender(), lent.LENDS)
    session = open_session(lent.owner(), owner, strategy, sampling=lent.SAMPLING, ledger=ledger)
    with pytest.raises(UnexpectedReplyError):
        prepared(strategy, session)
    assert "PlugIn" not in kinds(ledger)


def test_what_is_compared_is_said_with_its_interval() -> None:
    def grades(*values: float) -> Any:
        return np.array(values)

    found = Comparison(
        before=grades(0, 0, 1, 0),
        as_sent=grades(0, 0, 0, 0),
        at_home=grades(1, 0, 0, 0),
        plugged=grades(1, 1, 1, 0),
    )
    mean, low, high = found.gain()
    assert mean == 0.5
    assert low == 0.0
    assert high == 1.0
    assert found.better
    assert found.in_order
    assert not replace(found, at_home=grades(1, 1, 1, 0)).in_order
    assert not replace(found, as_sent=grades(1, 1, 0, 0)).in_order
    assert not replace(found, plugged=found.before).better, "no better is not better"


def test_parts_of_two_emulators_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    class Channel:
        async def send(self, message: Lend) -> Lent:
            return Lent(
                part=message.part, parts=2, size=4, digest=64 * str(message.part), packed=b"ab",
                about=about if message.part == 0 else None,
            )  # fmt: skip

    from cosilo.boundary.messages.lend import Described

    about = Described(config="{}", base=32 * "b", kept=(0,), ends=1, whole=1.0, alone=2.0)
    with pytest.raises(UnexpectedReplyError, match="not of one"):
        asyncio.run(borrowing.borrow(Channel(), 16 * "a", most=9))  # type: ignore[arg-type]


def test_a_classifier_is_no_small_model_for_it() -> None:
    with pytest.raises(CapabilityError):
        lent.opened(data=lent.owner(small=Bag()))
