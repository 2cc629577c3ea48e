"""Sources write with settings of their own; texts that models of the others disown weigh less."""

from __future__ import annotations

import random

import pytest

from cosilo.boundary.messages import Ask
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import ConfigError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.strategies.base import forecast, strategies
from cosilo.types import last_user
from generated import owner, session, text_of, writer


async def test_each_source_writes_with_its_own_temperature_and_tones() -> None:
    ledger = MemoryLedger()
    strategy = strategies.create("fusegen", each=60, rounds=2, temperatures=(0.5, 1.5))
    answering, after = await strategy.prepare(session(writer(), ledger=ledger))
    up = [e for e in ledger.entries() if e.direction == "up"]
    tones: dict[str, set[str]] = {}
    for entry in up:
        assert isinstance(entry.message, Ask)
        _, turn, source, _, _ = entry.request.split("/")
        assert entry.message.sampling.temperature == (0.5, 1.5)[int(source)]
        text = last_user(entry.message.chat)
        assert ("good examples" in text) == (turn == "1")
        tones.setdefault(source, set()).add(text.partition("words. ")[2].partition("\n")[0])
        assert "Ann" not in text
    assert len(up) == forecast(strategy)[0].count(3)
    assert not tones["0"] & tones["1"]
    tables = after.cards[0].tables
    assert set(tables["kept, by source"]) == {"0: temperature 0.5", "1: temperature 1.5"}
    assert sum(tables["kept, by source"].values()) == after.cards[0].facts["kept"]
    reply = await answering.answer(after.bind("x"), after.owner.calibration[0].chat)
    assert reply.text == after.owner.calibration[0].target


async def test_texts_of_another_label_lose_weight() -> None:
    """Source 1 writes half its texts for another label: they weigh less, the wrong ones least."""
    rng = random.Random(0)
    wrong = set()

    def texts(label: str, count: int) -> str:
        text = text_of(label, count)
        if in_doubt[0] and rng.random() < 0.5:
            text = text_of({"refund": "top_up", "top_up": "lost_card"}.get(label, "refund"), count)
            wrong.add(text)
        return text

    in_doubt = [False]
    large = writer(texts)

    class Sources(ScriptedModel):
        async def generate(self, chat, sampling):  # type: ignore[no-untyped-def]
            in_doubt[0] = sampling.temperature > 1
            return await large.generate(chat, sampling)

    strategy = strategies.create("fusegen", each=90, rounds=1, temperatures=(0.5, 1.5))
    _, after = await strategy.prepare(session(Sources()))
    weights = after.cards[0].tables["mean weight, by source"]
    assert weights["1: temperature 1.5"] < 0.9 < 1 < weights["0: temperature 0.5"]
    taught = after.owner.model.examples  # type: ignore[attr-defined]
    bad = [e.weight for e in taught if last_user(e.chat) in wrong]
    good = [e.weight for e in taught if last_user(e.chat) not in wrong]
    assert len(bad) > 20
    assert sum(bad) / len(bad) < 0.5 * sum(good) / len(good)


async def test_one_round_needs_no_validation_examples() -> None:
    bare = DataOwner(owner().model, private=owner().private)
    _, after = await strategies.create("fusegen", rounds=1).prepare(session(writer(), of=bare))
    assert after.cards


@pytest.mark.parametrize("option", [{"temperatures": (1.0,)}, {"rounds": 0}, {"each": 0}])
def test_what_makes_no_sense_is_refused(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="fusegen"):
        strategies.create("fusegen", **option)
