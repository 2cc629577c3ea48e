"""Scores that are not about what was sent are refused, whichever way they are wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cosilo.boundary.messages import Message, Scored, Scores
from cosilo.errors import CapabilityError, UnexpectedReplyError
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session
from cosilo.strategies.downward.distil_across import DistilAcross
from cosilo.strategies.downward.scoring import TOGETHER, Question, opinions
from cosilo.types import user
from toy_lm import ToyLM

ITEMS = [Scored(user(f"question {i}"), f"answer {i}") for i in range(TOGETHER + 3)]


def opened(change: Any = None, **options: Any) -> Session:
    class Changing(LMOwner):
        async def handle(self, message: Message) -> Message:
            reply = await super().handle(message)
            assert isinstance(reply, Scores)
            return msgspec.structs.replace(reply, **change(reply)) if change else reply

    lm = Changing(ToyLM(), exposes=Access.LOGITS.shows)
    small = ScriptedModel(access=Access.WEIGHTS)
    return open_session(DataOwner(small), lm, DistilAcross(gold=True), **options)


async def test_each_item_gets_its_own_opinion_in_order() -> None:
    session = opened()
    found, vocabulary = await opinions(session, ITEMS, Question(5, pieces=True))
    assert vocabulary == "bytes"
    assert [b"".join(o.pieces).decode() for o in found] == [i.reply for i in ITEMS]
    for opinion in found:
        assert opinion.top.ids is not None
        assert len(opinion.top) == len(opinion.pieces)
        assert set(opinion.top.ids.ravel().tolist()) <= set(opinion.spelt)
    assert session.lm.totals.messages == 2
    assert session.lm.totals.tokens_in > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {"lengths": s.lengths[:-1]},
        lambda s: {"lengths": (*s.lengths[:-1], s.lengths[-1] + 1)},
        lambda s: {"pieces": s.pieces[:-1]},
        lambda s: {"pieces": ()},
        lambda s: {"spelt": s.spelt[:-1]},
        lambda s: {"packed": s.packed[:-1]},
        lambda s: {"packed": b""},
        lambda s: {"vocabulary": s.vocabulary + str(len(s.lengths))},
    ],
)
async def test_scores_of_something_else_are_refused(change: Any) -> None:
    with pytest.raises(UnexpectedReplyError):
        await opinions(opened(change), ITEMS, Question(5, pieces=True))


async def test_ids_that_were_not_asked_for_are_refused() -> None:
    other = await LMOwner(ToyLM(), exposes=Access.LOGITS.shows).handle(Question(5).about(ITEMS[:1]))
    assert isinstance(other, Scores)
    with pytest.raises(UnexpectedReplyError):
        await opinions(
            opened(lambda s: {"packed": other.packed}), ITEMS[:1], Question(5, ids=False)
        )


async def test_an_owner_that_shows_no_logits_is_asked_nothing() -> None:
    lm = LMOwner(ToyLM(), exposes=Access.LOGPROBS.shows)
    with pytest.raises(CapabilityError, match="exposes only logprobs"):
        open_session(DataOwner(ScriptedModel(access=Access.WEIGHTS)), lm, DistilAcross(gold=True))
