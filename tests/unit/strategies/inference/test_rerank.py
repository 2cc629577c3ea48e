"""A small energy chooses among the LM's samples: what it learns, what crosses, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from a_writer import WordEmbedder
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import CapabilityError, ConfigError, DataError, PrivacyError
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, forecast, strategies
from cosilo.strategies.inference.agreement import distinct
from cosilo.strategies.inference.energy import Candidates, Energy, learned
from cosilo.strategies.inference.rerank import Rerank
from cosilo.types import Chat, Demonstration, Generation, Sampling, last_user, user

LABELS = ("refund", "billing", "parcel")


class Wavering:
    """Says each label that `says` names for the request in turn, by the sample's seed."""

    name = identity = "wavering"
    access = Access.TEXT

    def __init__(self, says: Callable[[str], tuple[str, ...]]) -> None:
        self.says = says
        self.asked: list[Sampling] = []

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        self.asked.append(sampling)
        words = self.says(last_user(chat))
        return Generation(words[sampling.seed % len(words)])

    async def close(self) -> None: ...


def mostly_wrong(text: str) -> tuple[str, ...]:
    """The label after the right one three times of five."""
    right = next((i for i, label in enumerate(LABELS) if label in text), 0)
    wrong = LABELS[(right + 1) % 3]
    return (wrong, LABELS[right], wrong, LABELS[right], wrong)


def example(i: int, label: str | None = None) -> Demonstration:
    label = label or LABELS[i % 3]
    return Demonstration(f"e{i}", user(f"request {i} about my {label}"), label)


def opened(
    strategy: Rerank,
    says: Callable[[str], tuple[str, ...]] = mostly_wrong,
    *,
    count: int = 30,
    encoder: bool = True,
    choices: tuple[str, ...] = LABELS,
    ledger: MemoryLedger | None = None,
) -> tuple[Session, Wavering]:
    large = Wavering(says)
    owner = DataOwner(
        ScriptedModel(),
        calibration=tuple(example(i) for i in range(count)),
        embedder=WordEmbedder() if encoder else None,
    )
    session = open_session(
        owner, LMOwner(large), strategy, sampling=Sampling(choices=choices), ledger=ledger
    )
    return session, large


async def test_it_finds_the_right_answer_that_most_samples_miss() -> None:
    session, large = opened(Rerank())
    strategy, session = await Rerank().prepare(session)
    chat = user("something new about my refund")
    answer = await strategy.answer(session.bind("1"), chat)
    assert (answer.text, answer.by) == ("refund", "both")
    assert answer.confidence is not None
    assert answer.confidence > 0.5
    majority = await Rerank(judge="majority").answer(session.bind("2"), chat)
    assert (majority.text, majority.by, majority.confidence) == ("billing", "large", 0.6)
    assert len(large.asked) == 30 * 5 + 5 + 5


async def test_samples_differ_by_their_seeds_at_the_temperature_asked_for() -> None:
    session, large = opened(Rerank())
    await Rerank(judge="majority", samples=3, temperature=0.7, seed=11).answer(
        session.bind("1"), user("x")
    )
    assert sorted(s.seed for s in large.asked) == [11, 12, 13]
    assert {s.temperature for s in large.asked} == {0.7}


async def test_the_same_seed_learns_the_same_and_nothing_but_questions_cross() -> None:
    ledger = MemoryLedger()
    found = []
    for _ in range(2):
        session, _ = opened(Rerank(seed=4), ledger=ledger)
        strategy, _ = await Rerank(seed=4).prepare(session)
        assert isinstance(strategy, Rerank)
        assert strategy.energy is not None
        found.append(strategy.energy.weights)
    assert np.array_equal(*found)
    assert {e.kind for e in ledger.entries() if e.direction == "up"} == {"Ask"}


async def test_a_free_answer_is_learned_from_too() -> None:
    def says(text: str) -> tuple[str, ...]:
        label = next(x for x in LABELS if x in text)
        return ("I do not know.", f"it is my {label}", "I do not know.", "i do  NOT know.", "Hm")

    session, _ = opened(Rerank(), says, choices=())
    examples = tuple(
        Demonstration(e.id, e.chat, f"it is my {e.target}") for e in session.owner.calibration
    )
    session = replace(session, owner=replace(session.owner, calibration=examples))
    strategy, session = await Rerank().prepare(session)
    answer = await strategy.answer(session.bind("1"), user("request 99 about my parcel"))
    assert answer.text == "it is my parcel"


async def test_without_a_known_answer_the_best_graded_sample_is_the_right_one() -> None:
    session, _ = opened(Rerank())
    wanted = {e.id: e.target for e in session.owner.calibration}
    examples = tuple(Demonstration(e.id, e.chat, "") for e in session.owner.calibration)
    owner = replace(
        session.owner, calibration=examples, grade=lambda e, text: 0.5 * (text == wanted[e.id])
    )
    strategy, session = await Rerank().prepare(replace(session, owner=owner))
    assert (
        await strategy.answer(session.bind("1"), user("it is about my parcel"))
    ).text == "parcel"


async def test_an_lm_that_is_always_right_or_empty_leaves_the_choice_to_the_majority() -> None:
    def says(text: str) -> tuple[str, ...]:
        return ((next((x for x in LABELS if x in text), "")),)

    session, _ = opened(Rerank(), says)
    strategy, session = await Rerank().prepare(session)
    assert isinstance(strategy, Rerank)
    assert strategy.energy is not None
    assert not strategy.energy.weights.any()
    assert session.cards[-1].facts["wrong answers learned from"] == 0
    assert (await strategy.answer(session.bind("1"), user("my parcel"))).text == "parcel"
    nothing = await strategy.answer(session.bind("2"), user("hello"))
    assert (nothing.text, nothing.confidence) == ("", 0.0)


async def test_what_is_missing_is_said_before_anything_is_spent() -> None:
    session, large = opened(Rerank(), encoder=False)
    with pytest.raises(CapabilityError, match="embedder"):
        await Rerank().prepare(session)
    session, large_too = opened(Rerank(), count=5)
    with pytest.raises(DataError, match="at least 20"):
        await Rerank().prepare(session)
    assert large.asked == large_too.asked == []
    with pytest.raises(ValueError, match="prepare it first"):
        await Rerank().answer(session, user("x"))


async def test_items_that_are_refused_are_left_out_and_all_refused_is_an_error() -> None:
    class Refusing(Wavering):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            if "parcel" in last_user(chat) or self.all:
                raise PrivacyError("not this one")
            return await super().generate(chat, sampling)

        all = False

    large = Refusing(mostly_wrong)
    session, _ = opened(Rerank())
    session = open_session(
        session.owner, LMOwner(large), Rerank(), sampling=Sampling(choices=LABELS)
    )
    _, told = await Rerank().prepare(session)
    assert told.cards[-1].facts["tune items"] == 20
    large.all = True
    with pytest.raises(PrivacyError, match="not this one"):
        await Rerank().prepare(session)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 1}, "between 2 and"),
        ({"samples": 1000}, "between 2 and"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": float("nan")}, "above 0"),
        ({"rounds": 0}, "1 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        strategies.create("rerank", **options)


def test_the_estimate_counts_every_sample() -> None:
    assert [(e.about, e.count(10)) for e in forecast(Rerank(samples=4))] == [
        ("tune", 40),
        ("answers", 40),
    ]
    assert [e.about for e in forecast(Rerank(judge="majority"))] == ["answers"]


def test_samples_that_say_the_same_are_one_answer() -> None:
    said = ["Refund.", "none", "it is a refund", "billing"]
    found = distinct([Generation(text) for text in said], LABELS)
    assert found == {("refund",): [0, 2], ("billing",): [3]}


def test_what_was_learned_comes_back_from_its_folder(tmp_path: Path) -> None:
    energy = Energy(np.arange(5.0), 0.1, 0.2, 7)
    energy.save(tmp_path / "kept")
    found = Energy.load(tmp_path / "kept")
    assert np.array_equal(found.weights, energy.weights)
    assert (found.alpha, found.ridge, found.pairs) == (0.1, 0.2, 7)
    (tmp_path / "kept" / Energy.file).write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="holds no learned energy"):
        Energy.load(tmp_path / "kept")
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        Energy.load(tmp_path / "nowhere")
    (tmp_path / "kept" / "energy.npz").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds no learned energy"):
        Energy.load(tmp_path / "kept")


def test_later_rounds_draw_what_was_learned_to_look_right() -> None:
    """The samples hardly ever give the answer that the first round's energy comes to like."""
    question = Candidates(
        np.array([[0.0, 1.0], [1.0, 0.9]]),
        np.array([0.99, 0.01]),
        np.array([False, False]),
        np.array([1.0, 0.0]),
    )
    one, more = (learned([question] * 10, 0.02, 0.01, draws=3, rounds=r, seed=0) for r in (1, 6))
    assert question.gold is not None
    gap = [w @ question.gold - w @ question.features[1] for w in (one, more)]
    assert gap[1] > gap[0] + 0.1
