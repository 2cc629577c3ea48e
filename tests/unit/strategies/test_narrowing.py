"""The small model leaves the LM a few labels of what it is least sure of; both make the target."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bag import Bag
from cosilo.boundary.messages import Ask
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import CapabilityError, ConfigError, DataError
from cosilo.models.base import Access, Shows
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.strategies.narrowing import blended, least_sure, narrowed
from cosilo.types import Chat, Demonstration, Generation, Sampling, TokenLogprob, Turn, user

CHOICES = ("card", "loan", "flat", "car")
SYSTEM = "Sort it.\n\nLabels:\n- card: of plastic\n- loan\n- flat\n- car"
WORDS = {"card": "plastic pin", "loan": "rate bank", "flat": "rent room", "car": "wheel road"}


def test_lines_of_labels_that_are_left_out_go() -> None:
    chat = user("- loan is what I want", system=SYSTEM)
    left = narrowed(chat, CHOICES, ("card", "car"))
    assert left == user(
        "- loan is what I want", system="Sort it.\n\nLabels:\n- card: of plastic\n- car"
    )
    assert narrowed(chat, CHOICES, CHOICES) == chat


def test_the_least_sure_come_in_their_own_order() -> None:
    p = np.array([[0.9, 0.1, 0], [0.4, 0.35, 0.25], [0.5, 0.3, 0.2], [0.34, 0.33, 0.33]])
    assert least_sure(p, 2) == [1, 3]
    assert least_sure(p, None) == [0, 1, 2, 3]


def shown(**probabilities: float) -> Generation:
    top = tuple((c, math.log(p)) for c, p in probabilities.items())
    return Generation(top[0][0], tokens=(TokenLogprob(*top[0], top),))


def test_views_are_multiplied_and_small_rests_dropped() -> None:
    view = np.array([0.6, 0.3, 0.1, 0.0])
    both = blended(view, ("card", "loan"), CHOICES, shown(loan=0.8, card=0.2), 1.0)
    assert both == pytest.approx({"card": 0.12 / 0.36, "loan": 0.24 / 0.36})
    alone = blended(view, ("card", "loan"), CHOICES, shown(loan=0.8, card=0.2), 0.0)
    assert alone == pytest.approx({"card": 2 / 3, "loan": 1 / 3})
    sure = blended(
        view, ("card", "loan", "car"), CHOICES, shown(loan=0.98, card=0.01, car=0.01), 2.0
    )
    assert sure == {"loan": 1.0}
    with pytest.raises(CapabilityError, match="exposes = 'logprobs'"):
        blended(view, ("card", "loan"), CHOICES, Generation("card"), 1.0)


def example(i: int, words: str, label: str) -> Demonstration:
    return Demonstration(f"e{i}", user(words, system=SYSTEM), label)


def session(large: ScriptedModel, ledger: MemoryLedger | None = None, **owner: object) -> Session:
    gold = tuple(example(i, f"{WORDS[c]} {i}", c) for i, c in enumerate(CHOICES * 3))
    pool = (
        example(100, "plastic pin plastic pin", ""),  # sure
        example(101, "rate pin rate pin", ""),  # card or loan
        example(102, "room wheel", ""),  # flat or car
        example(103, "bank rate bank", ""),  # sure
    )
    given = {"private": gold, "pool": pool, **owner}
    return open_session(
        DataOwner(Bag(), **given),  # type: ignore[arg-type]
        LMOwner(large, exposes=Access.LOGPROBS.shows),
        strategies.create("narrow_labels", trust=1.0),
        sampling=Sampling(choices=CHOICES),
        ledger=ledger,
    )


def oracle(chat: Chat) -> str:
    return "loan" if "pin" in chat[-1].content else "car"


async def test_only_the_unsure_are_asked_about_with_few_labels() -> None:
    ledger = MemoryLedger()
    _, after = await strategies.create("narrow_labels", items=2, candidates=2).prepare(
        session(ScriptedModel(oracle), ledger)
    )
    up = {e.request: e.message for e in ledger.entries() if e.direction == "up"}
    assert set(up) == {"pool/e101", "pool/e102"}
    first = up["pool/e101"]
    assert isinstance(first, Ask)
    assert set(first.sampling.choices) == {"card", "loan"}
    assert first.chat[0] == Turn("system", "Sort it.\n\nLabels:\n- card: of plastic\n- loan")
    taught = after.owner.model.examples[12:]  # type: ignore[attr-defined]
    assert [(e.id, e.target, e.weight) for e in taught] == [
        ("e101", "loan", 0.3),
        ("e102", "car", 0.3),
    ]
    assert all(e.chat[0].content == SYSTEM for e in taught)
    facts = after.cards[0].facts
    assert facts["asked"] == facts["kept"] == 2


async def test_with_trust_an_item_counts_for_each_label_by_its_share() -> None:
    class Doubts(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            a, b = sampling.choices
            return shown(**{b: 0.6, a: 0.4})

    strategy = strategies.create("narrow_labels", items=1, candidates=2, trust=1.0, weight=0.5)
    _, after = await strategy.prepare(session(Doubts()))
    taught = after.owner.model.examples[12:]  # type: ignore[attr-defined]
    assert len(taught) == 2
    assert len({(e.id, e.target) for e in taught}) == 2
    assert len({e.id for e in taught}) == 1
    assert sum(e.weight for e in taught) == pytest.approx(0.5)


async def test_a_label_that_was_not_among_the_candidates_is_dropped() -> None:
    with_all = session(ScriptedModel(lambda chat: "cheese"))
    _, after = await strategies.create("narrow_labels", items=2).prepare(with_all)
    assert after.cards[0].facts["dropped, not a known label"] == 2
    assert len(after.owner.model.examples) == 12  # type: ignore[attr-defined]


async def test_without_gold_examples_it_says_so_and_asks_nothing() -> None:
    large = ScriptedModel(oracle)
    with pytest.raises(DataError, match="no gold example"):
        await strategies.create("narrow_labels").prepare(session(large, private=()))
    assert not large.seen


def test_trust_needs_log_probabilities_of_the_large_model() -> None:
    assert strategies.create("narrow_labels").needs.shown == Shows.TEXT
    assert strategies.create("narrow_labels", trust=0.5).needs.shown == Access.LOGPROBS.shows
    for option in ({"items": 0}, {"candidates": 1}, {"trust": -1.0}, {"weight": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(option))):
            strategies.create("narrow_labels", **option)
