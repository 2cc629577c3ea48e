"""Reasons and labels are told apart in a reply, and taught as two tasks."""

from __future__ import annotations

import pytest

from bag import Bag
from cosilo.models.base import TextModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.strategies.downward.step_by_step import split, with_reasons
from cosilo.types import Chat, Demonstration, Sampling, Turn, last_user, user

CHOICES = ("lost card", "refund")
POOL = tuple(
    Demonstration(f"p{i}", user(f"item {i} {'gone' if i % 2 else 'money'}", system="Sort."), "")
    for i in range(8)
)


def reasons(chat: Chat) -> str:
    text = last_user(chat)
    if "gone" in text:
        return "They say it vanished.\nLabel: Lost-card."
    return (
        "Money shall come back.\n\n**Label:** refund" if "item 0" not in text else "Label: cheese"
    )


def session(small: TextModel) -> Session:
    owner = DataOwner(small, pool=POOL)
    return open_session(
        owner,
        LMOwner(ScriptedModel(reasons)),
        strategies.create("step_by_step"),
        sampling=Sampling(choices=CHOICES),
    )


@pytest.mark.parametrize(
    ("reply", "reason", "label"),
    [
        ("Because so.\nLabel: refund", "Because so.", "refund"),
        ("Label: a?\nNo, wait.\n- **Label**: 'refund'.", "Label: a?\nNo, wait.", "refund"),
        ("Because so.\nrefund", "Because so.", "refund"),
        ("refund", "", "refund"),
        ("", "", ""),
    ],
)
def test_a_reply_is_split(reply: str, reason: str, label: str) -> None:
    assert split(reply) == (reason, label)


def test_the_wish_stands_in_the_last_user_turn() -> None:
    chat = (Turn("system", "s"), Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))
    asked = with_reasons(chat)
    assert asked[:3] == chat[:3]
    assert asked[3].content.startswith("c\n\nFirst say")


async def test_a_classifier_reads_the_reasons_as_texts_of_the_label() -> None:
    _, after = await strategies.create("step_by_step", alpha=0.75).prepare(session(Bag()))
    model = after.owner.model
    taught = model.examples  # type: ignore[attr-defined]
    assert {(e.target, e.weight) for e in taught} == {
        (label, weight) for label in CHOICES for weight in (1.5, 0.5)
    }
    assert ("They say it vanished.", "lost card") in {(last_user(e.chat), e.target) for e in taught}
    assert all(e.chat[0] == Turn("system", "Sort.") for e in taught)
    (card,) = after.cards
    assert card.facts["kept"] == card.facts["with reasons"] == 7
    assert card.facts["dropped, not a known label"] == 1
    assert card.facts["taught to"] == "read"


class Writer(ScriptedModel):
    """A small model that writes."""

    taught: tuple[Demonstration, ...] = ()

    def fit(self, examples, *, seed: int = 0) -> Writer:  # type: ignore[no-untyped-def,override]
        found = Writer()
        found.taught = tuple(examples)
        return found


async def test_a_model_that_writes_learns_two_tasks() -> None:
    _, after = await strategies.create("step_by_step").prepare(session(Writer()))
    taught = after.owner.model.taught  # type: ignore[attr-defined]
    labels = [e for e in taught if not e.id.endswith("/why")]
    whys = [e for e in taught if e.id.endswith("/why")]
    assert len(labels) == len(whys) == 7
    assert all(e.chat == dict((p.id, p.chat) for p in POOL)[e.id] for e in labels)
    assert {e.target for e in whys} == {"They say it vanished.", "Money shall come back."}
    assert all("decides" in e.chat[0].content for e in whys)
    assert all(e.weight == 1 for e in taught)
    assert after.cards[0].facts["taught to"] == "write"


async def test_alpha_one_teaches_labels_alone() -> None:
    _, after = await strategies.create("step_by_step", alpha=1.0).prepare(session(Bag()))
    taught = after.owner.model.examples  # type: ignore[attr-defined]
    assert len(taught) == 7
    assert {e.weight for e in taught} == {2.0}


@pytest.mark.parametrize("option", [{"alpha": 0}, {"alpha": 1.1}, {"items": 0}, {"max_tokens": 3}])
def test_what_makes_no_sense_is_refused(option: dict[str, float]) -> None:
    with pytest.raises(Exception, match=next(iter(option))):
        strategies.create("step_by_step", **option)
