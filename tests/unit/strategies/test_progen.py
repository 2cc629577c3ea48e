"""What helped on the owner's validation examples is shown in the next round, nothing else of theirs."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import CapabilityError, DataError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.strategies.base import forecast, strategies
from cosilo.strategies.influence import most_helpful
from cosilo.strategies.synthesis import Synthetic
from cosilo.types import last_user
from generated import owner, session, writer


async def test_rounds_show_the_best_texts_so_far() -> None:
    ledger, large = MemoryLedger(), writer()
    strategy = strategies.create("progen", each=30, rounds=3, shown=2)
    answering, after = await strategy.prepare(session(large, ledger=ledger))
    up = [e for e in ledger.entries() if e.direction == "up"]
    assert len(up) == 3 * 3 * 2
    written = " ".join(str(e.message) for e in ledger.entries() if e.direction == "down")
    prompts = [line for chat in large.seen for line in last_user(chat).splitlines()]
    shown = [line[2:] for line in prompts if line[:2] == "- "]
    assert len(shown) == 2 * 3 * 2 * 2
    assert all(text in written for text in shown)
    for entry in up:
        text = str(entry.message)
        first = entry.request.startswith("synthetic/round 0/")
        assert ("good examples" in text) == (not first)
        assert "Ann" not in text
    kept = after.cards[0].facts["kept"]
    assert isinstance(kept, int)
    assert kept > 60
    reply = await answering.answer(after.bind("x"), after.owner.calibration[0].chat)
    assert reply.text == after.owner.calibration[0].target


def test_the_most_helpful_are_shown_best_first() -> None:
    texts = [Synthetic(f"t{i}", "ab"[i % 2]) for i in range(6)]
    best = most_helpful(texts, np.array([0.1, 0.5, 0.9, -1.0, 0.3, 0.6]), 2)
    assert best == {"a": ["t2", "t4"], "b": ["t5", "t1"]}


async def test_it_needs_validation_examples_and_a_model_that_can_judge() -> None:
    large = writer()
    bare = DataOwner(owner().model, private=owner().private)
    with pytest.raises(DataError, match="'tune' split, which holds 0"):
        await strategies.create("progen").prepare(session(large, of=bare))
    assert not large.seen
    blind = DataOwner(ScriptedModel(), private=owner().private, calibration=owner().calibration)
    with pytest.raises(CapabilityError, match="ScriptedModel shows none"):
        await strategies.create("progen").prepare(session(large, of=blind))


def test_its_calls_are_forecast() -> None:
    expected = forecast(strategies.create("progen", each=30, rounds=3, lines=5))
    assert [(e.about, e.each) for e in expected] == [("labels", 6)]
