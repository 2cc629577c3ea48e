"""Labels are read as people would, and what could not be used is counted."""

from __future__ import annotations

import pytest

from bag import Bag
from cosilo.boundary.messages import Ask, Message
from cosilo.errors import DataError, PrivacyError, RejectedError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.strategies.labelling import balanced, read_labels, replies, require_classes
from cosilo.types import Chat, Demonstration, Generation, Sampling, last_user, user

CHOICES = ("lost_card", "card", "refund")
POOL = tuple(Demonstration(f"p{i}", user(f"message {i}"), "") for i in range(6))


def test_replies_are_mapped_where_it_is_clear_which_label_they_name() -> None:
    said = ["card", "Lost card.", "It is a refund", "card or refund", "cheese", None]
    labels = read_labels(POOL, said, CHOICES)
    assert [(e.id, e.target) for e in labels.examples] == [
        ("p0", "card"),
        ("p1", "lost_card"),
        ("p2", "refund"),
    ]
    assert labels.rows == (0, 1, 2)
    assert (labels.mapped, labels.invented, labels.refused) == (2, 2, 1)
    card = labels.card("here", CHOICES)
    assert list(card.facts.values()) == [6, 3, 2, 2, 1, 0]
    assert card.tables["labels"] == {"lost_card": 1, "card": 1, "refund": 1}


def test_without_a_closed_set_any_text_is_a_label_but_none_is_not() -> None:
    labels = read_labels(POOL[:2], ["whatever it says ", " "], ())
    assert [e.target for e in labels.examples] == ["whatever it says"]
    assert labels.invented == 1
    assert not labels.card("here", ()).tables


@pytest.mark.parametrize(
    ("said", "why"),
    [(["x", "y"], "none names a known label"), (["card", "card"], "all name the same one, 'card'")],
)
def test_labels_of_no_class_or_one_are_refused(said: list[str], why: str) -> None:
    with pytest.raises(DataError, match=why):
        require_classes(read_labels(POOL[:2], said, CHOICES), closed=True)
    require_classes(read_labels(POOL[:2], ["card", "refund"], CHOICES), closed=True)


def test_balanced_labels_count_the_same_however_often_they_are_said() -> None:
    labels = read_labels(POOL[:4], ["card", "card", "card", "refund"], CHOICES)
    found = balanced(labels.examples)
    assert [e.weight for e in found] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert [(e.id, e.target) for e in found] == [(e.id, e.target) for e in labels.examples]


class Refuses:
    """A guard in doubt about some messages."""

    def __init__(self, words: tuple[str, ...], error: Exception) -> None:
        self.words, self.error = words, error

    def protect(self, owner: DataOwner) -> DataOwner:
        return owner

    async def guard(self, message: Message, forward, *, request: str) -> Message:
        if any(word in str(message) for word in self.words):
            raise self.error
        return await forward(message)


def session(*, defence: Refuses, large: ScriptedModel | None = None) -> Session:
    owner = DataOwner(ScriptedModel(), pool=POOL)
    lm = LMOwner(large or ScriptedModel({"message": "card", "message 3": "refund"}))
    strategy = strategies.create("distil_labels")
    return open_session(owner, lm, strategy, defences=[defence], sampling=Sampling(choices=CHOICES))


def question(item: Demonstration) -> Ask:
    return Ask(chat=item.chat)


async def test_a_refused_item_is_left_out_and_the_others_are_asked() -> None:
    found = await replies(
        session(defence=Refuses(("message 1",), PrivacyError("x"))), POOL, question
    )
    assert [isinstance(r, Generation) for r in found] == [True, False, True, True, True, True]


async def test_when_all_are_refused_the_reason_is_raised() -> None:
    with pytest.raises(PrivacyError, match="in doubt"):
        await replies(
            session(defence=Refuses(("message",), PrivacyError("in doubt"))), POOL, question
        )


async def test_an_endpoint_that_refuses_everything_ends_it() -> None:
    broken = Refuses(("message 2",), RejectedError("wrong key", everything=True))
    with pytest.raises(RejectedError, match="wrong key"):
        await replies(session(defence=broken), POOL, question)


async def test_distil_labels_says_what_it_found() -> None:
    _, after = await (s := strategies.create("distil_labels")).prepare(
        session(defence=Refuses(("message 1",), PrivacyError("x")))
    )
    (card,) = after.cards
    assert card.by == "distil_labels"
    assert card.facts["kept"] == 5
    assert card.tables["labels"] == {"lost_card": 0, "card": 4, "refund": 1}
    assert s == strategies.create("distil_labels")


async def test_an_empty_pool_is_a_clear_error() -> None:
    empty = open_session(
        DataOwner(ScriptedModel()), LMOwner(ScriptedModel()), strategies.create("distil_labels")
    )
    with pytest.raises(DataError, match="no private pool"):
        await strategies.create("distil_labels").prepare(empty)


async def test_labels_that_the_small_model_takes_for_mistakes_are_dropped_and_counted() -> None:
    words = {"lost_card": "gone stolen vanished away", "refund": "money back shop paid"}

    def item(i: int) -> Demonstration:
        said = words[CHOICES[2 * (i % 2)]].split()
        return Demonstration(f"p{i}", user(f"{said[i % 4]} {said[(i + 1) % 4]} {i}"), "")

    def label(chat: Chat) -> str:
        text = last_user(chat)
        right = any(word in text for word in words["refund"].split())
        return CHOICES[2 * (right != (int(text.split()[-1]) < 6))]  # the first six are wrong

    pool = tuple(item(i) for i in range(60))
    opened = open_session(
        DataOwner(Bag(), pool=pool),
        LMOwner(ScriptedModel(label)),
        strategies.create("distil_labels"),
        sampling=Sampling(choices=CHOICES),
    )
    _, plain = await strategies.create("distil_labels").prepare(opened)
    _, clean = await strategies.create("distil_labels", agree=True).prepare(opened)
    assert [s.cards[0].facts["kept"] for s in (plain, clean)] == [60, 54]
    assert list(clean.cards[0].facts.values())[-1] == 6
    taught = clean.owner.model.examples  # type: ignore[attr-defined]
    assert {e.id for e in taught} == {f"p{i}" for i in range(6, 60)}
