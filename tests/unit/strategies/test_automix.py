"""The small model's check of its own answer decides who answers."""

from __future__ import annotations

import math

import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask
from cosilo.boundary.transports.inside import InProcess
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.base import Session
from cosilo.strategies.inference.automix import QUESTION, Automix, agreed
from cosilo.types import Chat, Demonstration, Generation, TokenLogprob, last_user, user


def says(chat: Chat) -> str:
    """Always writes "a"; knows that it is wrong about odd items."""
    if last_user(chat) != QUESTION:
        return "a"
    item = next(t.content for t in chat if t.role == "user")
    return "no" if int(item.split()[-1]) % 2 else "yes"


def opened(small: ScriptedModel) -> Session:
    examples = tuple(
        Demonstration(str(i), user(f"item {i}"), "b" if i % 2 else "a") for i in range(40)
    )
    lm = Boundary(InProcess(LMOwner(ScriptedModel({"item": "b"}))), declared=frozenset({Ask}))
    return Session(DataOwner(small, calibration=examples), lm)


async def test_what_the_check_doubts_is_asked() -> None:
    session = opened(ScriptedModel(says, confidence=0.9))
    strategy, session = await Automix().prepare(session)
    kept = await strategy.answer(session.bind("x"), user("item 100"))
    asked = await strategy.answer(session.bind("y"), user("item 101"))
    assert (kept.text, kept.by) == ("a", "small")
    assert (asked.text, asked.by) == ("b", "large")


async def test_an_empty_answer_is_no_answer() -> None:
    session = opened(ScriptedModel(lambda chat: "", confidence=0.9))
    answer = await Automix(threshold=0.1).answer(session.bind("x"), user("item 1"))
    assert answer.by == "large"


async def test_the_check_reads_the_answer_in_its_conversation() -> None:
    seen: list[Chat] = []

    def note(chat: Chat) -> str:
        seen.append(chat)
        return "<think>hm</think>an answer"

    await Automix(threshold=0.0).answer(opened(ScriptedModel(note)).bind("x"), user("item 1"))
    assert [t.role for t in seen[-1]] == ["user", "assistant", "user"]
    assert seen[-1][1].content.strip() == "an answer"


def shown(text: str, *top: tuple[str, float]) -> Generation:
    token = TokenLogprob(text, math.log(0.9), tuple((t, math.log(p)) for t, p in top))
    return Generation(text, tokens=(token,))


@pytest.mark.parametrize(
    ("check", "sure"),
    [
        (shown("yes", ("yes", 0.6), ("no", 0.2)), 0.75),
        (shown("no", ("no", 0.6), ("yes", 0.2)), 0.25),
        (shown("yes"), 0.9),
        (shown("no"), 0.1),
        (shown("No."), 0.1),
        (Generation("Yes, it is"), 1.0),
        (Generation("<think>no?</think>Yes"), 1.0),
        (Generation("perhaps"), 0.0),
        (Generation(""), 0.0),
    ],
)
def test_how_much_a_check_agrees(check: Generation, sure: float) -> None:
    assert agreed(check) == pytest.approx(sure)


def test_a_threshold_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="threshold"):
        Automix(threshold=-0.5)
