"""How sure the small model is of its own answer, as one view of a router's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from cosilo.errors import CapabilityError
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session
from cosilo.strategies.inference.certainty import certainty, view_of
from cosilo.strategies.inference.gain import GainModel, fit_gain
from cosilo.strategies.inference.router import Router
from cosilo.types import (
    Answer,
    Chat,
    Demonstration,
    Generation,
    Sampling,
    TokenLogprob,
    last_user,
    user,
)

LETTERS = ("A", "B", "C", "D")


class Doubting:
    """Answers A, surely where the question has an even number; only then is it right."""

    name = identity = "doubting"
    access = Access.LOGPROBS

    def __init__(self) -> None:
        self.asked = 0

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        self.asked += 1
        best = 0.94 if number(chat) % 2 == 0 else 0.4
        chances = (best, *(3 * ((1 - best) / 3,)))
        top = tuple((c, math.log(p)) for c, p in zip(LETTERS, chances, strict=True))
        return Generation("A", tokens=(TokenLogprob("A", top[0][1], top),))

    async def close(self) -> None: ...


def number(chat: Chat) -> int:
    return int(last_user(chat).split()[1])


def opened(strategy: Router, small: object, *, choices: tuple[str, ...] = LETTERS) -> Session:
    def right(chat: Chat) -> str:
        return "AB"[number(chat) % 2]

    rng = np.random.default_rng(0)  # the words say nothing of which questions are hard
    words = ("lamp", "tree", "coat", "road")
    examples = []
    for i in range(80):
        chat = user(f"item {i} about a {rng.choice(words)}")
        examples.append(Demonstration(str(i), chat, right(chat)))
    owner = DataOwner(small, calibration=tuple(examples))  # type: ignore[arg-type]
    return open_session(
        owner, LMOwner(ScriptedModel(right)), strategy, sampling=Sampling(choices=choices)
    )


async def test_a_router_sends_what_the_small_model_is_unsure_of() -> None:
    strategy = Router(certainty=True, calls=0.5)
    session = opened(strategy, Doubting())
    prepared, session = await strategy.prepare(session)
    (card,) = session.cards
    assert card.facts["the small model's certainty"] == "is read"
    sent = session.totals.messages
    for i in range(200, 210):
        answer = await prepared.answer(session.bind(str(i)), user(f"item {i} about a lamp"))
        assert (answer.text, answer.by) == (("A", "small") if i % 2 == 0 else ("B", "large"))
    assert session.totals.messages == sent + 5


async def test_what_is_kept_is_the_answer_that_was_read() -> None:
    strategy = Router(certainty=True, calls=0.5)
    small = Doubting()
    prepared, session = await strategy.prepare(opened(strategy, small))
    before = small.asked
    answer = await prepared.answer(session.bind("x"), user("item 300 about a lamp"))
    assert small.asked == before + 1
    assert answer.confidence == pytest.approx(0.94)
    stream = prepared.stream(session.bind("y"), user("item 300 about a lamp"))  # type: ignore[attr-defined]
    *pieces, whole = [piece async for piece in stream]
    assert isinstance(whole, Answer)
    assert "".join(piece.text for piece in pieces) == whole.text == "A"
    assert small.asked == before + 2


async def test_the_promise_is_held_with_it() -> None:
    strategy = Router(certainty=True, wrong=0.2)
    prepared, session = await strategy.prepare(opened(strategy, Doubting()))
    assert [card.title for card in session.cards] == ["views", "guarantee"]
    answer = await prepared.answer(session.bind("x"), user("item 301 about a lamp"))
    assert answer.by == "large"


async def test_a_view_that_says_nothing_is_left_out() -> None:
    """The small model is then not asked to find out who answers."""
    strategy = Router(certainty=True, calls=0.5)
    small = ScriptedModel(lambda chat: "A", confidence=0.7)
    prepared, session = await strategy.prepare(opened(strategy, small))
    assert session.cards[0].facts["the small model's certainty"] == "was of no use"
    seen = len(small.seen)
    answers = [
        await prepared.answer(session.bind(str(i)), user(f"item {i} about a tree"))
        for i in range(300, 312)
    ]
    assert len(small.seen) == seen + sum(a.by == "small" for a in answers)


async def test_it_needs_a_closed_set_and_probabilities() -> None:
    strategy = Router(certainty=True)
    with pytest.raises(CapabilityError, match="closed set"):
        await strategy.prepare(opened(strategy, Doubting(), choices=()))

    class Mute(Doubting):
        access = Access.TEXT

    with pytest.raises(CapabilityError, match="logprobs"):
        opened(strategy, Mute())


def test_certainty_is_of_the_choice_and_not_of_its_letter() -> None:
    (found,) = certainty([np.log([0.1, 0.7, 0.15, 0.05])])
    entropy = -sum(p * math.log(p) for p in (0.1, 0.7, 0.15, 0.05)) / math.log(4)
    expected = [math.log(0.7), math.log(0.7 / 0.15), math.log(0.7 / 0.1), 0.55, entropy]
    assert found == pytest.approx(expected)
    turned = certainty([np.log([0.05, 0.1, 0.15, 0.7]) + 3])
    assert turned[0] == pytest.approx(found)
    assert certainty([np.log([0.5, 0.5])])[0][-1] == pytest.approx(1)
    assert np.isfinite(certainty([view_of(None, LETTERS)])).all()


def test_a_model_with_it_comes_back_from_its_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sure = rng.normal(size=(60, 5))
    texts = [f"question {i}" for i in range(60)]
    model, _ = fit_gain(texts, (sure[:, 0] > 0).astype(np.float64), certainty=sure)
    assert model.reads_certainty
    model.save(tmp_path)
    again = GainModel.load(tmp_path)
    assert np.array_equal(again.predict(texts, sure), model.predict(texts, sure))
    with pytest.raises(ValueError, match="give it, too"):
        again.predict(texts)
    without, _ = fit_gain(texts, sure[:, 0])
    without.save(tmp_path / "other")
    assert not GainModel.load(tmp_path / "other").reads_certainty
