"""Generated texts: what is asked for, what is let through, what is told of them, what leaves."""

from __future__ import annotations

import msgspec
import pytest

from bag import Bag
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import ConfigError, DataError
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.strategies.synthesis import Sieve, Synthetic, WantedTexts, question, usual_words, write
from cosilo.types import Chat, Demonstration, Generation, Sampling, last_user, user
from generated import owner, session, text_of, writer


async def test_nothing_of_the_owners_texts_leaves() -> None:
    ledger = MemoryLedger()
    await strategies.create("zerogen", each=10).prepare(session(writer(), ledger=ledger))
    sent = [str(e.message) for e in ledger.entries() if e.direction == "up"]
    assert len(sent) == 3 * 2
    assert all("Sort the mail" in text for text in sent)
    assert not any(word in text for text in sent for word in ("Ann", "Elm", "wants something"))


async def test_the_small_model_learns_the_task_from_generated_texts() -> None:
    strategy, after = await strategies.create("zerogen", each=20).prepare(session(writer()))
    answers = [
        (await strategy.answer(after.bind(e.id), e.chat)).text for e in after.owner.calibration
    ]
    assert answers == [e.target for e in after.owner.calibration]
    (card,) = after.cards
    assert card.facts["texts asked for"] == card.facts["received"] == 60
    kept = card.facts["kept"]
    assert isinstance(kept, int)
    assert kept == sum(card.tables["kept, by label"].values())
    assert kept + sum(card.tables["dropped"].values()) == 60
    assert card.facts["LM calls"] == 12
    assert float(card.facts["bytes up per kept text"]) > 100
    assert float(card.facts["USD per kept text"]) > 0
    assert 0 <= float(card.facts["nearest own text, distance, least"]) <= 1
    assert len(card.examples) == 3
    assert not any("Ann" in text for text in card.examples)


async def test_a_label_without_texts_is_a_clear_error() -> None:
    def texts(label: str, count: int) -> str:
        return "no" if label == "refund" else text_of(label, count)

    with pytest.raises(DataError, match=r"no text for 1 of 3 labels, 'refund'.* too short"):
        await strategies.create("zerogen", each=10, agree=False).prepare(session(writer(texts)))


async def test_texts_that_the_small_model_gives_to_another_label_are_dropped() -> None:
    def texts(label: str, count: int) -> str:
        true = "top_up" if label == "refund" and count % 5 == 0 else label
        return text_of(true, count)

    _, plain = await strategies.create("zerogen", each=40, agree=False).prepare(
        session(writer(texts))
    )
    _, agreed = await strategies.create("zerogen", each=40).prepare(session(writer(texts)))
    assert "label not agreed on" not in plain.cards[0].tables["dropped"]
    dropped = agreed.cards[0].tables["dropped"]["label not agreed on"]
    assert 6 <= dropped <= 9  # 8 of the 40 texts for refunds are about something else
    lost = agreed.cards[0].tables["kept, by label"]["lost_card"]
    assert lost == plain.cards[0].tables["kept, by label"]["lost_card"]


def test_the_sieve_says_why_it_drops() -> None:
    sieve = Sieve((3, 12))
    texts = [
        "where is my card gone to",
        "Where is my card gone to?",
        "too short",
        "word " * 13,
        "here are five texts for you:",
        "this one is about lost_card of course",
        "I lost card number one today",
        "lost card",
    ]
    kept = sieve([Synthetic(text, "lost_card") for text in texts])
    assert [text.text for text in kept] == [texts[0], texts[6]]
    assert sieve.received == 8
    assert sieve.dropped == {
        "near-duplicate": 1, "too short": 2, "too long": 1, "repeats the prompt": 2,
    }  # fmt: skip


async def test_a_reply_that_was_cut_off_loses_its_last_line() -> None:
    class Cut(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            reply = await super().generate(chat, sampling)
            return msgspec.structs.replace(reply, finish_reason="length")

    large = Cut(lambda chat: "1) first one\n- second one\nthird o", access=Access.TEXT)
    found = await write(session(large), WantedTexts(each=5))
    assert [t.text for t in found] == ["first one", "second one"] * 3
    whole = Cut(lambda chat: "a whole text\nof two lines", access=Access.TEXT)
    assert await write(session(whole), WantedTexts(each=1, lines=1)) == []


async def test_prompts_differ_by_seed_and_are_the_same_for_one() -> None:
    async def seen(seed: int) -> list[str]:
        large = writer()
        await write(session(large), WantedTexts(each=20), seed=seed)
        return sorted(map(str, large.seen))

    assert await seen(0) == await seen(0) != await seen(1)


async def test_system_turns_that_differ_may_be_private_and_stop_it() -> None:
    mixed = owner()
    other = Demonstration("x", user("hello", system="Patient: Ann Lee"), "refund")
    mixed = DataOwner(Bag(), private=(*mixed.private, other))
    large = writer()
    with pytest.raises(DataError, match="2 different system turns") as caught:
        await strategies.create("zerogen").prepare(session(large, of=mixed))
    assert "Ann" not in str(caught.value)
    assert not large.seen


async def test_free_text_tasks_are_refused_before_anything_is_sent() -> None:
    large = writer()
    free = open_session(owner(), LMOwner(large), strategies.create("zerogen"))
    with pytest.raises(DataError, match="closed set"):
        await strategies.create("zerogen").prepare(free)
    assert not large.seen


def test_good_examples_are_shown_in_the_question() -> None:
    chat = question("about", "refund", WantedTexts(each=5), shown=("one text",), tone="Be short.")
    assert "- one text" in last_user(chat)
    assert "Be short." in last_user(chat)
    assert "about" in chat[0].content


def test_lengths_are_the_owners_own_with_room() -> None:
    low, high, usual = usual_words(owner())
    assert low < usual == 20 < high
    assert usual_words(DataOwner(Bag())) == (3, 400, 20)


async def test_generated_texts_count_by_their_weight_beside_gold_ones() -> None:
    strategy = strategies.create("zerogen", each=10, gold=True, weight=0.2)
    _, after = await strategy.prepare(session(writer()))
    taught = after.owner.model.examples  # type: ignore[attr-defined]
    assert [e.weight for e in taught[:12]] == [1.0] * 12
    assert {e.weight for e in taught[12:]} == {0.2}
    with pytest.raises(ConfigError, match="weight = 0"):
        strategies.create("zerogen", weight=0)
