"""A share of calls that is not reached says why."""

from __future__ import annotations

import msgspec
import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask
from cosilo.boundary.transports.inside import InProcess
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.base import Session
from cosilo.strategies.inference.cascade import Cascade, reached, share_threshold
from cosilo.strategies.inference.router import Router
from cosilo.types import Demonstration, user


@pytest.mark.parametrize(
    ("scores", "calls", "words"),
    [
        ([0.9] * 60, 0.4, "60 of 60 tune items have the same confidence"),
        ([0.1] * 5 + [1.0] * 55, 0.4, "55 of 60 tune items have the same confidence"),
        ([0.1, 0.9], 0.4, "0.4 of 2 tune items is less than one"),
        ([i / 100 for i in range(60)], 0.4, ""),
        ([i / 7 for i in range(7)], 0.5, ""),  # rounding down is no reason to say anything
        ([0.9] * 60, 0.0, ""),
        ([0.9] * 60, 1.0, ""),
    ],
)
def test_why_fewer_are_asked(scores: list[float], calls: float, words: str) -> None:
    card = reached("cascade", "confidence", scores, share_threshold(scores, calls), calls)
    assert (card is not None) == bool(words)
    if card is not None:
        assert words in str(card.facts["why"])
        assert card.facts["wanted"] == calls


@pytest.mark.parametrize("strategy", [Cascade(calls=0.4), Router(calls=0.4)])
async def test_one_that_will_call_nobody_says_so_when_it_is_prepared(
    strategy: Cascade | Router,
) -> None:
    examples = tuple(Demonstration(str(i), user("the same"), "a") for i in range(30))
    owner = DataOwner(
        ScriptedModel(lambda chat: "a", confidence=0.8),
        calibration=examples,
        grade=lambda item, text: float(text == item.target),
    )
    large = LMOwner(ScriptedModel(lambda chat: "a"))
    lm = Boundary(InProcess(large), declared=frozenset({Ask}))
    _, session = await strategy.prepare(Session(owner, lm))
    (card,) = session.cards
    assert card.facts["reached on tune items"] == 0
    assert "30 of 30 tune items" in str(card.facts["why"])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(card), type=type(card)) == card, "is kept"
