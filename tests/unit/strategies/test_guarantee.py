"""A share of wrong answers that holds, and what is said where none can be shown to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask
from cosilo.boundary.transports.inside import InProcess
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.base import Session, forecast
from cosilo.strategies.inference.cascade import ALWAYS, Cascade
from cosilo.strategies.inference.guarantee import (
    Promise,
    divided,
    safe_threshold,
    steps_from,
)
from cosilo.strategies.inference.router import NOTHING_KEPT, Router
from cosilo.types import Demonstration, last_user, user


def test_the_most_lenient_threshold_that_holds_is_taken() -> None:
    scores = np.linspace(1, 0, 400)
    losses = np.arange(400) >= 200  # right above 0.5, wrong below
    found = safe_threshold(
        scores, losses, Promise(wrong=0.2), steps=[0.8, 0.6, 0.45, 0.4, 0.3, 0.1]
    )
    assert found.threshold == 0.45
    assert found.kept == 220
    assert found.losses == 20


def test_the_first_failure_ends_the_sequence() -> None:
    scores = np.array([1.0] * 60 + [0.5] * 10 + [0.2] * 900)
    losses = np.array([False] * 60 + [True] * 10 + [False] * 900)
    found = safe_threshold(scores, losses, Promise(wrong=0.1), steps=[0.9, 0.4, 0.1])
    assert found.threshold == 0.9  # although 10 of 970 wrong would do at 0.1


def test_where_nothing_holds_nothing_is_kept() -> None:
    scores, losses = np.linspace(1, 0, 100), np.ones(100, dtype=bool)
    found = divided(scores, losses, Promise(wrong=0.1), seed=0)
    assert math.isinf(found.threshold)
    assert found.least == pytest.approx(1.0)


def test_equal_scores_are_not_parted() -> None:
    scores = np.array([1.0] * 50 + [0.5] * 50)
    steps = steps_from(scores, np.zeros(100, dtype=bool), Promise(wrong=0.1), 100)
    assert set(steps) <= {1.0, 0.5}


@pytest.mark.parametrize(
    ("option", "value"),
    [("wrong", 0.0), ("wrong", 1.0), ("delta", 0.0), ("ahead", 0), ("right", 0.0), ("right", 1.1)],
)
@pytest.mark.parametrize("strategy", [Cascade, Router])
def test_what_cannot_be_promised_is_refused(strategy: type, option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        strategy(**{"wrong": 0.1, option: value})


@pytest.mark.parametrize("strategy", [Cascade, Router])
def test_a_promise_stands_alone(strategy: type) -> None:
    with pytest.raises(ValueError, match="one of threshold, calls and wrong"):
        strategy(wrong=0.1, calls=0.3)


def session(right: float, *, n: int = 300) -> Session:
    """A small model that is right about easy items and, of the hard ones, about a share `right`."""

    def example(i: int) -> Demonstration:
        return Demonstration(str(i), user(f"{'easy' if i % 2 else 'hard'} item number {i}"), "a")

    def small(chat: object) -> str:
        words = last_user(chat).split()  # type: ignore[arg-type]
        return "a" if words[0] == "easy" or int(words[-1]) % 100 < 100 * right else "b"

    owner = DataOwner(
        ScriptedModel(small, confidence=0.8), calibration=tuple(map(example, range(n)))
    )
    lm = Boundary(InProcess(LMOwner(ScriptedModel())), declared=frozenset({Ask}))
    return Session(owner, lm)


async def test_a_router_keeps_what_it_can_promise_and_asks_nobody_meanwhile() -> None:
    opened = session(0.2)
    router, prepared = await Router(wrong=0.1).prepare(opened)
    assert isinstance(router, Router)
    gains = router.expected_gain(["easy item number 1001", "hard item number 1050"])
    assert gains[0] <= (router.threshold or 0) < gains[1]
    assert opened.lm.totals.messages == 0
    (card,) = prepared.cards
    assert "95 % confidence at most 10 % of the answers kept at home are wrong" in str(
        card.facts["promise"]
    )
    assert [e.about for e in forecast(Router(wrong=0.1))] == ["answers"]


async def test_a_router_that_can_promise_nothing_keeps_nothing() -> None:
    router, prepared = await Router(wrong=0.01).prepare(session(0.2, n=60))
    assert isinstance(router, Router)
    assert router.threshold == NOTHING_KEPT
    assert "nothing is kept at home" in str(prepared.cards[0].facts["promise"])


async def test_a_cascade_with_a_promise() -> None:
    kept, _ = await Cascade(wrong=0.3).prepare(session(0.9))
    asked, told = await Cascade(wrong=0.1).prepare(session(0.2))  # all alike confident
    assert isinstance(kept, Cascade)
    assert isinstance(asked, Cascade)
    assert kept.threshold == pytest.approx(0.8)
    assert asked.threshold == ALWAYS
    assert "nothing is kept at home" in str(told.cards[0].facts["promise"])


async def test_what_counts_as_right_can_be_said() -> None:
    half, _ = await Cascade(wrong=0.1, right=0.5).prepare(graded(0.6))
    full, _ = await Cascade(wrong=0.1).prepare(graded(0.6))
    assert isinstance(half, Cascade)
    assert isinstance(full, Cascade)
    assert half.threshold == pytest.approx(0.8)
    assert full.threshold == ALWAYS


def graded(grade: float) -> Session:
    examples = tuple(Demonstration(str(i), user(f"item {i}"), "a") for i in range(100))
    owner = DataOwner(
        ScriptedModel(lambda chat: "a", confidence=0.8),
        calibration=examples,
        grade=lambda example, text: grade,
    )
    lm = Boundary(InProcess(LMOwner(ScriptedModel())), declared=frozenset({Ask}))
    return Session(owner, lm)
