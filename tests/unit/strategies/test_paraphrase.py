"""The owner's examples in other words, each with its example's label, beside the examples."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bag import Bag
from cosilo.boundary.messages import Ask
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import ConfigError, DataError, RejectedError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.types import Chat, Demonstration, Sampling, last_user, user

SYSTEM = "Sort it.\n\nLabels:\n- card\n- loan"
SAYS = {"card": "my plastic is gone", "loan": "lend me money"}
OTHER = {
    "my plastic is gone": "the piece of polymer vanished",
    "lend me money": "advance funds to us",
}


def rewriter(chat: Chat) -> str:
    text = last_user(chat).partition("Text: ")[2]
    said, _, number = text.rpartition(" ")
    other = f"{OTHER[said]} {noise(number)}"
    return f"1. {other}\n- {text}\n{other}\nno"


def noise(number: str) -> str:
    """Words of its own for each example: no two rewrites are near-duplicates."""
    rng = random.Random(number)
    return " ".join("".join(rng.choices("bcdfghjklm", k=18)) for _ in range(2))


def opened(
    lm: Any = None, *, ledger: MemoryLedger | None = None, count: int = 8, **options: Any
) -> tuple[Any, Session]:
    private = tuple(
        Demonstration(f"e{i}", user(f"{SAYS[label]} {i}", system=SYSTEM), label)
        for i, label in enumerate(["card", "loan"] * (count // 2))
    )
    how = strategies.create("paraphrase", **options)
    party = LMOwner(lm or ScriptedModel(rewriter))
    session = open_session(
        DataOwner(Bag(), private=private),
        party,
        how,
        sampling=Sampling(choices=("card", "loan")),
        ledger=ledger,
    )
    return how, session


async def test_other_words_are_learned_with_the_label_of_what_they_were_made_of() -> None:
    how, session = opened(each=3, weight=0.5)
    lessons, after = await how.lessons(session, Bag())
    gold, made = lessons[:8], lessons[8:]
    assert gold == session.owner.private
    assert {e.target for e in made if "polymer" in last_user(e.chat)} == {"card"}
    assert {e.target for e in made if "advance" in last_user(e.chat)} == {"loan"}
    assert {e.weight for e in made} == {0.5}
    assert all(e.chat[0].content == SYSTEM for e in made)
    assert after.cards[-1].examples == ()  # a report quotes no rewrite of a private text
    facts, dropped = after.cards[-1].facts, after.cards[-1].tables["dropped"]
    assert facts["texts asked for"] == 24
    assert facts["kept"] == len(made) == 8
    assert dropped == {"near-duplicate": 16, "too short": 8}  # the example itself is one
    _, taught = await how.prepare(session)
    rows = taught.owner.model.probabilities(["polymer", "funds"])
    assert [taught.owner.model.labels[i] for i in rows.argmax(axis=1)] == ["card", "loan"]


async def test_the_text_crosses_and_its_label_does_not() -> None:
    ledger = MemoryLedger()
    how, session = opened(ledger=ledger, items=3)
    await how.prepare(session)
    up = [e for e in ledger.entries() if e.direction == "up"]
    assert [e.request for e in up] == ["pool/e0", "pool/e1", "pool/e2"]
    for i, entry in enumerate(up):
        assert isinstance(entry.message, Ask)
        said = "\n".join(t.content for t in entry.message.chat)
        assert f"{SAYS[('card', 'loan')[i % 2]]} {i}" in said
        assert "Labels" not in said
        assert not entry.message.sampling.choices


async def test_rewrites_that_the_small_model_gives_to_another_label_can_be_dropped() -> None:
    def liar(chat: Chat) -> str:
        text = last_user(chat).partition("Text: ")[2]
        if text.endswith(" 0"):
            return "lend money to me now"
        return rewriter(chat)

    how, session = opened(ScriptedModel(liar), each=3, agree=True)
    lessons, after = await how.lessons(session, Bag())
    assert after.cards[-1].tables["dropped"]["label not agreed on"] == 1
    assert not any("lend money to me" in last_user(e.chat) for e in lessons)


async def test_a_reply_that_was_cut_off_loses_its_last_line_only() -> None:
    class Cut(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Any:
            import msgspec

            return msgspec.structs.replace(
                await super().generate(chat, sampling), finish_reason="length"
            )

    how, session = opened(Cut(lambda chat: f"{rewriter(chat).splitlines()[0]}\nhalf a sen"), each=3)
    lessons, _ = await how.lessons(session, Bag())
    assert len(lessons) == 16
    assert not any("half" in last_user(e.chat) for e in lessons)


async def test_when_every_example_is_refused_the_refusal_is_told() -> None:
    class Refuses(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Any:
            raise RejectedError("not this")

    how, session = opened(Refuses())
    with pytest.raises(RejectedError, match="not this"):
        await how.prepare(session)


async def test_without_examples_there_is_nothing_to_rewrite() -> None:
    how, session = opened(count=0)
    with pytest.raises(DataError, match="no example"):
        await how.prepare(session)


@pytest.mark.parametrize(
    "options", [{"each": 0}, {"items": 0}, {"temperature": 3.0}, {"weight": 0.0}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        strategies.create("paraphrase", **options)
