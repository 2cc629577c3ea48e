"""Strategies set their thresholds although a model takes an example or two not at all."""

from __future__ import annotations

import math

import pytest

from cosilo.errors import CosiloError, PrivacyError, RejectedError, UnreachableError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy
from cosilo.strategies.calibration import large_answers, small_answers
from cosilo.strategies.inference.cascade import Cascade
from cosilo.strategies.inference.ends import Large
from cosilo.strategies.upward.supericl import SuperICL
from cosilo.types import Chat, Demonstration, Generation, Sampling, last_user, user

EXAMPLES = tuple(Demonstration(str(i), user(f"q{i}"), f"q{i}") for i in range(10))


class Refusing(ScriptedModel):
    """Says what it was asked, and raises what is given for a question."""

    def __init__(self, refusals: dict[str, CosiloError], confidence: float = 1.0) -> None:
        super().__init__(confidence=confidence)
        self.refusals = refusals

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        if (error := self.refusals.get(last_user(chat))) is not None:
            raise error
        return await super().generate(chat, sampling)


def session(
    strategy: Strategy,
    *,
    small: dict[str, CosiloError] | None = None,
    large: dict[str, CosiloError] | None = None,
) -> Session:
    owner = DataOwner(Refusing(small or {}, confidence=0.9), calibration=EXAMPLES)
    return open_session(owner, LMOwner(Refusing(large or {})), strategy)


@pytest.mark.parametrize("refusal", [RejectedError("too long"), PrivacyError("in doubt")])
async def test_a_refused_example_counts_as_answered_wrongly(refusal: CosiloError) -> None:
    refused = {"q3": refusal}
    made = session(Large(), small=refused, large=refused)
    for graded in (await small_answers(made, EXAMPLES), await large_answers(made, EXAMPLES)):
        assert [g.example for g in graded] == list(EXAMPLES)
        assert [g.grade for g in graded] == [float(i != 3) for i in range(10)]
        assert [g.refused for g in graded] == [i == 3 for i in range(10)]
        assert graded[3].reply.text == ""


async def test_thresholds_are_set_all_the_same() -> None:
    too_long = RejectedError("too long")
    cascade = Cascade(calls=0.2)
    prepared, _ = await cascade.prepare(session(cascade, small={"q3": too_long, "q4": too_long}))
    assert isinstance(prepared, Cascade)
    assert prepared.threshold is not None
    assert 0 < prepared.threshold <= math.exp(math.log(0.9)) + 1e-9
    judged = Cascade()
    prepared, _ = await judged.prepare(session(judged, large={"q3": too_long}))
    assert isinstance(prepared, Cascade)
    assert prepared.threshold is not None


async def test_what_was_refused_is_no_worked_example() -> None:
    strategy = SuperICL(examples=6)
    made = session(strategy, small={"q0": RejectedError("too long")})
    prepared, _ = await strategy.prepare(made)
    assert isinstance(prepared, SuperICL)
    assert prepared.shown
    assert not any(turn.content.startswith("q0") for turn in prepared.shown)


@pytest.mark.parametrize(
    "refusals",
    [
        {f"q{i}": RejectedError("no such model") for i in range(10)},
        {"q3": RejectedError("wrong key", everything=True)},
        {"q3": UnreachableError("down")},
    ],
)
async def test_what_is_wrong_with_every_example_is_raised(refusals: dict[str, CosiloError]) -> None:
    made = session(Large(), small=refusals, large=refusals)
    for answers in (small_answers, large_answers):
        with pytest.raises(CosiloError) as raised:
            await answers(made, EXAMPLES)
        expected = refusals["q3"]
        assert type(raised.value) is type(expected)
        assert str(raised.value) == str(expected)
