"""The LM learns to write what the small model judges well, the small one learns from it, no text of the
owner's crosses."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

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
    UnknownAdapterError,
)
from cosilo.models.base import Access, TextModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.tunable import Learned, LessonPlan, Lessons
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, forecast, strategies
from cosilo.testing import StrategyContract
from cosilo.types import Chat, Demonstration, Sampling, last_user, user

LABELS = ("refund", "billing", "delivery")
COLOURS = ("red", "blue", "green", "grey", "black", "white", "pink", "brown")
OPTIONS = {"each": 6, "steps": 3, "least": 0.4}


def wanted(chat: Chat) -> str:
    return last_user(chat).partition("label '")[2].partition("'")[0]


@dataclass
class Writer(ScriptedModel):
    """Writes about any label, whatever is asked for; once tuned, about the label that is."""

    lessons: list[Lessons] = field(default_factory=list)
    forgetful: bool = False

    def __post_init__(self) -> None:
        self.replies = self.astray

    def astray(self, chat: Chat) -> str:
        number = len(self.seen)
        return f"{COLOURS[number % 8]} note {number} on {LABELS[number % 3]} x{number}"

    async def tune(self, client: str, lessons: Lessons, plan: LessonPlan) -> Learned:
        self.lessons.append(lessons)
        return Learned(32 * "a", 2.0, 1.0, 10)

    async def plugged(self, client: str, name: str) -> TextModel:
        if self.forgetful:
            self.forgetful = False
            raise UnknownAdapterError("no such adapter")
        return ScriptedModel(
            lambda chat: f"{COLOURS[len(self.seen) % 8]} t{self._next()} on {wanted(chat)}"
        )

    def _next(self) -> int:
        self.seen.append(())
        return len(self.seen)


def owner(count: int = 12, labels: int = 3) -> DataOwner:
    private = tuple(
        Demonstration(f"e{i}", user(f"secret{i} on {LABELS[i % labels]}"), LABELS[i % labels])
        for i in range(count)
    )
    return DataOwner(Bag(), private=private)


def opened(
    large: Any = None,
    *,
    data: DataOwner | None = None,
    ledger: MemoryLedger | None = None,
    meter: Meter | None = None,
    sampling: Sampling = Sampling(choices=LABELS),
    defences: Any = (),
    **options: Any,
) -> tuple[Any, Session]:
    strategy = strategies.create("crosslm", **OPTIONS | options)
    return strategy, open_session(
        data or owner(),
        LMOwner(large or Writer()),
        strategy,
        sampling=sampling,
        ledger=ledger,
        meter=meter,
        defences=defences,
    )


def prepared(strategy: Any, session: Session) -> tuple[Strategy, Session]:
    return asyncio.run(strategy.prepare(session))


class TestContract(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("crosslm", **OPTIONS)

    def small(self) -> TextModel:
        return Bag()

    def large(self) -> Any:
        return Writer()

    def owner(self) -> DataOwner:
        return replace(super().owner(), model=self.small())


def kinds(ledger: MemoryLedger) -> list[str]:
    return [e.kind for e in ledger.entries() if e.direction == "up"]


def test_the_lm_learns_to_write_of_the_label_and_no_text_of_the_owners_crosses() -> None:
    ledger, large = MemoryLedger(), Writer()
    after, session = prepared(*opened(large, ledger=ledger))
    assert kinds(ledger) == [*["Ask"] * 18, "Tune", *["Ask"] * 18]
    (lessons,) = large.lessons
    worth = {r: float(s) for r, s in zip(lessons.replies, lessons.shares[:, 0], strict=True)}
    for chat, reply in zip(lessons.chats, lessons.replies, strict=True):
        assert (worth[reply] > 0) == (reply.split()[4] == wanted(chat)), "by what it is about"
    assert len(lessons.replies) > sum(share > 0 for share in worth.values()) > 0
    (judged,) = [c for c in session.cards if c.title == "texts as the small model judges them"]
    shares = judged.tables["share that is worth learning from"]
    assert shares["round 0"] < 0.6 < shares["round 1"] == 1.0
    assert not any("secret" in p.text for e in ledger.entries() for p in e.message.passages())
    learned = session.owner.model.examples  # type: ignore[attr-defined]
    assert sum(e.id.startswith("e") for e in learned) == 12, "the records, too"
    made = [e for e in learned if e.id.startswith("synthetic")]
    assert len(made) > 18
    assert all(0.4 <= e.weight <= 1 for e in made), "by their scores"
    answer = asyncio.run(after.answer(session.bind("1"), user("grey thing on billing")))
    assert (answer.text, answer.by) == ("billing", "small")


def test_an_adapter_that_was_forgotten_is_tuned_again() -> None:
    ledger = MemoryLedger()
    prepared(*opened(Writer(forgetful=True), ledger=ledger))
    tunes = [e.message for e in ledger.entries() if isinstance(e.message, Tune)]
    assert [t.again for t in tunes] == [False, True]


def test_more_rounds_teach_on_all_texts_so_far() -> None:
    large = Writer()
    prepared(*opened(large, rounds=3))
    one, two = large.lessons
    assert set(one.replies) < set(two.replies)


def test_behind_pseudonyms_it_works() -> None:
    hides = defences.create("pseudonym", detectors=("patterns",))
    ledger = MemoryLedger()
    prepared(*opened(ledger=ledger, defences=(hides,)))
    assert "Tune" in kinds(ledger)


def test_what_is_forecast_is_no_less_than_what_is_sent() -> None:
    ledger = MemoryLedger()
    strategy, session = opened(ledger=ledger)
    prepared(strategy, session)
    expected = {e.message: e.count(3) for e in forecast(strategy)}
    assert expected == {Ask: 36, Tune: 1}
    assert kinds(ledger).count("Ask") == 36


def refused(error: type[CosiloError], **options: Any) -> tuple[str, list[str]]:
    ledger = MemoryLedger()
    with pytest.raises(error) as caught:
        prepared(*opened(ledger=ledger, **options))
    assert "secret" not in str(caught.value)
    return str(caught.value), kinds(ledger)


def test_what_cannot_be_judged_is_refused_before_anything_is_sent() -> None:
    for data in (owner(0), owner(labels=1)):
        assert "fewer than two labels" in refused(DataError, data=data)[0]
    assert refused(DataError, sampling=Sampling())[1] == []
    assert refused(BudgetExceededError, meter=Meter(Budget(messages=0)))[1] == []
    text_only = ScriptedModel(access=Access.TEXT)
    with pytest.raises(CapabilityError):
        opened(data=replace(owner(), model=text_only))


def test_an_lm_whose_owner_tunes_for_nobody_or_that_writes_nothing_of_the_label_is_refused() -> (
    None
):
    plain = ScriptedModel(Writer().astray)
    assert "'tunable'" in refused(CapabilityError, large=plain)[0]
    said, sent = refused(DataError, least=0.999)
    assert "0.999 or more" in said
    assert "Tune" not in sent


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0}, {"steps": 0}, {"batch": 0}, {"learning_rate": 2.0}, {"rounds": 1},
        {"least": 1.0}, {"weight": 0.0}, {"each": 0}, {"temperature": 3.0},
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        strategies.create("crosslm", **wrong)
