"""The LM learns from the small model's labels, no gold example crosses, what cannot be is refused."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import lent
import taught
from bag import Bag
from cosilo.boundary.messages import Ask, Tune
from cosilo.boundary.meter import Budget, Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences.base import defences
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    CosiloError,
    DataError,
    RejectedError,
    StoreError,
)
from cosilo.models.base import Access, TextModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.files import PACKAGES
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.registry import Loads
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, forecast, strategies, stream
from cosilo.strategies.lessons_sent import LessonsSent
from cosilo.strategies.upward.weak_to_strong import WeakToStrong
from cosilo.testing import StrategyContract
from cosilo.types import Answer, Demonstration, user

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time


class TestContract(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("weak_to_strong", **taught.OPTIONS | {"steps": 4}, items=2)

    def small(self) -> TextModel:
        return Bag().fit([Demonstration(x, user(f"about {x}"), x) for x in taught.LABELS])

    def loads(self) -> Loads:
        return Loads(packages=PACKAGES)  # the large model's

    def owner(self) -> DataOwner:
        found = super().owner()
        pool = tuple(
            Demonstration(f"p{i}", user(f"about {taught.LABELS[i % 3]}"), "") for i in range(6)
        )
        return replace(found, model=self.small(), pool=pool)

    def open(self, *, meter: Any = None, ledger: Any = None, **options: Any) -> Session:
        return open_session(
            self.owner(),
            LMOwner(taught.shared()),
            self.strategy(),
            sampling=taught.SAMPLING,
            meter=meter,
            ledger=ledger,
            **options,
        )


def prepared(strategy: Any, session: Session) -> tuple[Any, Session]:
    return asyncio.run(strategy.prepare(session))


def kinds(ledger: MemoryLedger) -> list[str]:
    return [e.kind for e in ledger.entries() if e.direction == "up"]


def lessons(ledger: MemoryLedger) -> Tune:
    (found,) = [e.message for e in ledger.entries() if isinstance(e.message, Tune)]
    return found


def shares(tune: Tune) -> Any:
    return np.array(tune.shares) / 1000


def answered(strategy: Strategy, session: Session, text: str = "about 7") -> Answer:
    return asyncio.run(strategy.answer(session.bind("item"), user(text)))


def test_the_lm_learns_the_small_models_labels_and_no_gold_one_crosses() -> None:
    ledger = MemoryLedger()
    gold = tuple(Demonstration(f"g{i}", user(f"private {i}"), "delivery") for i in range(4))
    data = replace(taught.owner(learned=2), private=gold)
    strategy, session = taught.opened(data=data, ledger=ledger)
    strong, session = prepared(strategy, session)
    assert isinstance(strong, WeakToStrong)
    (card,) = session.cards
    grades = card.tables["grade on the tune items"]
    assert grades["large model as it was"] == 0
    assert grades["large model tuned on the small one's labels"] >= 0.5
    assert card.facts["the large model answers"] == "as tuned"
    assert card.facts["left out, the small model had learned from them"] == 2
    assert kinds(ledger) == ["Tune", *["Ask"] * 12]
    sent = lessons(ledger)
    assert [chat[-1].content for chat in sent.chats] == [f"about {i}" for i in range(2, 24)]
    said = [taught.LABELS[i] for i in shares(sent).argmax(1)]
    assert said == [taught.weak(chat) for chat in sent.chats], "its labels, wrong ones as well"
    assert not any("private" in p.text for e in ledger.entries() for p in e.message.passages())
    assert answered(strong, session).by == "large"
    last = [e.message for e in ledger.entries() if isinstance(e.message, Ask)][-1]
    assert last.adapter == strong.sent.name != ""


def test_soft_labels_say_how_likely_each_is() -> None:
    small = Bag().fit(
        [Demonstration(f"t{i}", user(f"about {i}"), taught.right(f"about {i}")) for i in range(6)]
    )
    found = {}
    for soft in (True, False):
        ledger = MemoryLedger()
        prepared(*taught.opened(data=taught.owner(small=small), ledger=ledger, soft=soft, steps=1))
        found[soft] = shares(lessons(ledger))
    assert np.allclose(found[True].sum(1), 1, atol=1e-2)
    assert ((found[True] > 0.05) & (found[True] < 0.95)).any()
    assert set(found[False].ravel().tolist()) == {0.0, 1.0}
    clear = found[True].max(1) > 0.51
    assert clear.any()
    assert (found[True].argmax(1) == found[False].argmax(1))[clear].all()


def test_where_it_is_no_better_the_lm_stays_as_it_was() -> None:
    strong, session = prepared(*taught.opened(learning_rate=1e-9))  # nothing is learned
    assert session.cards[0].facts["the large model answers"] == "as it was"
    ledger = MemoryLedger()
    again, session = prepared(*taught.opened(sent=strong.sent, ledger=ledger))
    assert kinds(ledger) == [], "nothing is tuned again"
    answered(again, session)
    (ask,) = [e.message for e in ledger.entries() if isinstance(e.message, Ask)]
    assert ask == Ask(chat=user("about 7"), sampling=taught.SAMPLING)


@pytest.mark.parametrize("streams", [False, True])
def test_what_the_owner_has_forgotten_is_tuned_again(streams: bool) -> None:
    ledger, large = MemoryLedger(), taught.tunable()
    strong, session = prepared(*taught.opened(large, ledger=ledger))
    first = answered(strong, session).text
    before = len(kinds(ledger))
    large._adapters._own.clear()
    large._adapters._plugged.clear()

    async def whole() -> Answer:
        if not streams:
            return await strong.answer(session.bind("item"), user("about 7"))
        return [p async for p in stream(strong, session.bind("item"), user("about 7"))][-1]  # type: ignore[return-value]

    assert asyncio.run(whole()).text == first
    assert answered(strong, session).text == first
    assert kinds(ledger)[before:] == ["Ask", "Tune", "Ask", "Ask"]


def test_a_bundle_holds_the_lessons_for_their_owner_alone(tmp_path: Path) -> None:
    strong, _ = prepared(*taught.opened(steps=2))
    sent = replace(strong.sent, name=32 * "a")
    sent.save(tmp_path / "sent")
    assert stat.S_IMODE((tmp_path / "sent" / "lessons.bin").stat().st_mode) == 0o600
    assert "about" not in repr(sent), "its texts are private"
    again = LessonsSent.load(tmp_path / "sent")
    assert (again.name, again.lessons) == (sent.name, sent.lessons)
    (tmp_path / "sent" / "lessons.bin").write_bytes(b"x")
    with pytest.raises(StoreError, match="no lessons"):
        LessonsSent.load(tmp_path / "sent")


def test_behind_pseudonyms_no_private_value_crosses() -> None:
    def text(i: int) -> str:
        return f"mail anna{i}@example.org about {i}"

    data = replace(
        taught.owner(),
        pool=tuple(Demonstration(f"p{i}", user(text(i)), "") for i in range(8)),
        calibration=tuple(
            Demonstration(f"c{i}", user(text(i)), taught.right(text(i))) for i in range(50, 54)
        ),
    )
    ledger = MemoryLedger()
    hides = defences.create("pseudonym", detectors=("patterns",))
    strong, session = prepared(*taught.opened(data=data, ledger=ledger, defences=(hides,), steps=4))
    answered(strong, session, text(9))
    assert kinds(ledger)[0] == "Tune"
    assert not any("@example" in p.text for e in ledger.entries() for p in e.message.passages())
    assert [taught.LABELS[i] for i in shares(lessons(ledger)).argmax(1)][4] == taught.LABELS[0]


# ── refused before anything is spent ─────────────────────────────────────────


def refused(error: type[CosiloError], **options: Any) -> str:
    ledger = MemoryLedger()
    with pytest.raises(error) as caught:
        prepared(*taught.opened(ledger=ledger, **options))
    assert "Tuned" not in [e.kind for e in ledger.entries()]
    assert "about" not in str(caught.value), "no text stands in an error"
    return str(caught.value)


def test_what_teaches_nothing_is_refused() -> None:
    assert "learned from all 24" in refused(DataError, data=taught.owner(learned=24))
    one_class = ScriptedModel(lambda chat: "billing", name="one class")
    assert "the same label, 'billing'" in refused(DataError, data=taught.owner(small=one_class))
    silent = ScriptedModel(lambda chat: "no idea", name="silent")
    assert "named no known label" in refused(DataError, data=taught.owner(small=silent))
    assert "'tune' split" in refused(DataError, data=taught.owner(tune=1))
    assert "pool" in refused(DataError, data=taught.owner(0))
    assert "'public'" in refused(DataError, pool="public")


def test_an_lm_whose_owner_tunes_for_nobody_is_refused() -> None:
    assert "'tunable'" in refused(CapabilityError, large=lent.plain_model())
    text_only = ScriptedModel(taught.weak, access=Access.TEXT)
    with pytest.raises(CapabilityError, match="logprobs"):
        taught.opened(soft=True, data=taught.owner(small=text_only))


def test_more_than_the_owner_tunes_or_a_budget_of_nothing_sends_no_question() -> None:
    assert "rank" in refused(RejectedError, large=taught.tunable(largest_rank=2))
    refused(BudgetExceededError, meter=Meter(Budget(messages=0)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0}, {"steps": 0}, {"batch": -1}, {"learning_rate": 1.1}, {"confidence": 1.0},
        {"confidence": -0.1}, {"warmup": 2.0}, {"texts": 1}, {"items": 1},
        {"learning_rate": float("nan")},
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        strategies.create("weak_to_strong", **wrong)


def test_what_is_forecast_is_no_less_than_what_is_sent() -> None:
    ledger = MemoryLedger()
    strategy, session = taught.opened(ledger=ledger, items=3, steps=2)
    prepared(strategy, session)
    expected = {e.message.__name__: e.count(6) for e in forecast(strategy) if e.about != "answers"}
    assert {k: kinds(ledger).count(k) for k in expected} == expected
