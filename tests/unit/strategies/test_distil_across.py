"""Distillation across tokenisers: two tiny models that cut the same words differently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cosilo.boundary.messages import Score, Scored, Scores
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.wire.logits import top_k, unpack
from cosilo.errors import CapabilityError, UnexpectedReplyError
from cosilo.models.base import Access
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.strategies.downward.scoring import Opinion
from cosilo.testing import LABELS, StrategyContract
from cosilo.types import Sampling, user

pytest.importorskip("torch")

from cosilo.strategies.downward.distil_across import lessons_from
from white_box import opened, tiny

WORDS = ("refund", " the", "bill", "ing", "del", "ivery")


def teacher() -> Any:
    return tiny(0, words=WORDS)


@pytest.mark.parametrize("method", ["aligned", "uld"])
async def test_the_small_model_comes_nearer_to_a_large_one_with_other_tokens(method: str) -> None:
    ledger = MemoryLedger()
    strategy, session = opened("distil_across", large=teacher(), method=method, ledger=ledger)
    _, after = await strategy.prepare(session)
    facts = after.cards[-1].facts
    assert facts["loss on these after"] < facts["loss on these before"]  # type: ignore[operator]
    for entry in ledger.entries():
        if isinstance(entry.message, Scores):
            named = unpack(entry.message.packed).ids is not None
            assert named == (method == "aligned")
            assert bool(entry.message.spelt) == named


async def test_words_alone_need_no_logits() -> None:
    ledger = MemoryLedger()
    strategy, session = opened(
        "distil_across",
        large=teacher(),
        exposes=Access.TEXT.shows,
        weight=0,
        steps=2,
        ledger=ledger,
    )
    await strategy.prepare(session)
    assert {e.kind for e in ledger.entries()} == {"Ask", "Completion"}
    with pytest.raises(CapabilityError, match="needs logits"):
        opened("distil_across", large=teacher(), exposes=Access.TEXT.shows)


async def test_between_equal_tokenisers_aligning_changes_nothing() -> None:
    """Then every place is shared, and each token is its own spelling."""
    model = tiny(1)
    large = LMOwner(tiny(0), exposes=Access.LOGITS.shows)
    item = Scored(user("about 1"), "the refund is unused")
    scores = await large.handle(Score(items=(item,), top=12, pieces=True))
    assert isinstance(scores, Scores)
    top = unpack(scores.packed)
    assert top.ids is not None
    spelt = dict(zip(np.unique(top.ids).tolist(), scores.spelt, strict=True))
    (lesson,) = lessons_from(model, [item], [Opinion(top, scores.pieces[0], spelt)])
    assert lesson.places.tolist() == list(range(len(top)))
    assert lesson.top.ids is not None
    for row in range(len(top)):
        before = dict(zip(top.ids[row].tolist(), np.exp(top.logprobs[row]), strict=True))
        after = dict(
            zip(lesson.top.ids[row].tolist(), np.exp(lesson.top.logprobs[row]), strict=True)
        )
        special = {i for i in before if not model.piece(i)}
        for id in before.keys() - special:
            assert after[id] == pytest.approx(before[id], abs=1e-6)
        end = int(lesson.tokens.ids[-1])
        assert after.get(end, 0) == pytest.approx(sum(before[i] for i in special), abs=1e-6)


def test_an_opinion_of_another_text_is_refused() -> None:
    item = Scored(user("about 1"), "the refund")
    model = tiny(1)
    other = model.tokenize(item.chat, "the bill")
    known = top_k(np.zeros((len(other.pieces), 9), np.float32), 3)
    with pytest.raises(UnexpectedReplyError):
        lessons_from(model, [item], [Opinion(known, other.pieces, {})])


class TestContract(StrategyContract):
    def strategy(self) -> Any:
        return strategies.create("distil_across", steps=3, batch=4, items=8)

    def open(self, **kwargs: Any) -> Session:
        given = self.owner()
        held = DataOwner(tiny(1), given.private, given.pool, calibration=given.calibration)
        lm = LMOwner(teacher(), exposes=Access.LOGITS.shows)
        choices = Sampling(choices=LABELS)
        return open_session(held, lm, self.strategy(), sampling=choices, **kwargs)


class TestContractSorted(TestContract):
    def strategy(self) -> Any:
        return strategies.create("distil_across", method="uld", steps=3, batch=4, items=8)
