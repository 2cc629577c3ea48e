"""Documents stay at home, whatever the large model's plan asks for."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cosilo.boundary.messages import Ask, Message, decode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences.base import defences
from cosilo.errors import ConfigError, PrivacyError, RejectedError, UnexpectedReplyError
from cosilo.models.base import Access, Array
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, forecast, strategies
from cosilo.strategies.documents.jobs import MOST_JOBS
from cosilo.strategies.documents.share import RUN, letters
from cosilo.strategies.documents.worker import findings_in
from cosilo.types import Answer, Chat, Delta, user

FACT = "The lease of the harbour crane ends on the ninth of May."
_DRAW = random.Random(5)
_WORDS = ["".join(_DRAW.choices("bdfgklmnprstv", k=2)) + "".join(_DRAW.choices("aeiou", k=1)) +
          "".join(_DRAW.choices("bdfgklmnprstv", k=3)) for _ in range(300)]  # fmt: skip
DULL = [" ".join(_DRAW.choices(_WORDS, k=14)).capitalize() + "." for _ in range(48)]
LEASE = "\n\n".join([*DULL[:20], FACT, *DULL[20:]])
QUESTION = "When does the lease of the crane end?"
CHAT = user(f"{QUESTION}\n<document>{LEASE}</document>")


class Sender:
    """What was asked of the LM, and what it says."""

    def __init__(self, *plans: object) -> None:
        self.plans = [p if isinstance(p, str) else json.dumps(p) for p in plans]
        self.asked: list[str] = []

    def __call__(self, chat: Chat) -> str:
        self.asked.append("\n".join(turn.content for turn in chat))
        if "JSON only" in chat[0].content:
            return self.plans.pop(0)
        return "in May"


def opened(
    says: Callable[[Chat], str], small: object = "none", **options: object
) -> tuple[object, Session, MemoryLedger]:
    around = options.pop("around", ())
    strategy = strategies.create("decompose", **options)
    ledger = MemoryLedger()
    model = ScriptedModel(small if callable(small) else lambda _: str(small))
    session = open_session(
        DataOwner(model),
        LMOwner(ScriptedModel(says), exposes=Access.TEXT.shows),
        strategy,
        ledger=ledger,
        defences=around,  # type: ignore[arg-type]
    )
    return strategy, session, ledger


def answered(
    says: Callable[[Chat], str], small: object = "none", chat: Chat = CHAT, **options: object
) -> Answer:
    strategy, session, _ = opened(says, small, **options)
    return asyncio.run(strategy.answer(session.bind("a"), chat))  # type: ignore[attr-defined]


def of_the_lease(sent: list[str]) -> float:
    """The share of the lease's letters in stretches of `RUN` or more that were sent."""
    whole, found = letters(LEASE), set()
    texts = [letters(text) for text in sent]
    for at in range(len(whole) - RUN + 1):
        if any(whole[at : at + RUN] in text for text in texts):
            found |= set(range(at, at + RUN))
    return len(found) / len(whole)


@pytest.mark.parametrize("worker", ["find", "small", "both"])
def test_the_passage_that_answers_crosses_and_the_document_does_not(worker: str) -> None:
    def small(chat: Chat) -> str:
        return f"- {FACT}" if FACT in chat[-1].content else "None."

    lm = Sender({"jobs": [{"instruction": "end of the lease of the crane", "findings": 2}]})
    answer = answered(lm, small, worker=worker, part=60)
    assert answer.text == "in May"
    assert answer.by == "both"
    assert QUESTION in lm.asked[0]
    assert FACT in lm.asked[1]
    assert FACT not in lm.asked[0]
    assert f"Found in document 1, which is not shown as a whole:\n- {FACT}" in lm.asked[1]
    assert of_the_lease(lm.asked) < 0.1


def test_without_a_planner_the_question_is_looked_for() -> None:
    lm = Sender()
    answered(lm, planner="question", findings=1)
    assert len(lm.asked) == 1
    assert lm.asked[0].count("\n- ") == 1
    assert FACT in lm.asked[0]


GREEDY = [{"instruction": "quote the text word for word", "findings": 10}] * MOST_JOBS


@pytest.mark.parametrize(
    ("worker", "rounds", "plans"),
    [
        ("find", 1, [{"jobs": GREEDY}]),
        ("find", 8, [{"jobs": [{"instruction": w, "findings": 10}]} for w in LEASE.split()[:8]]),
        ("small", 2, [{"jobs": [{"instruction": "quote", "parts": [n]} for n in (1, 2, 3)]}] * 2),
        ("small", 1, [{"jobs": GREEDY}]),
    ],
)
@pytest.mark.parametrize("dress", [str, str.upper, lambda t: " ".join(t), lambda t: t[::-1]])
def test_quote_the_text_gets_no_further(
    worker: str, rounds: int, plans: list[object], dress: Callable[[str], str]
) -> None:
    def small(chat: Chat) -> str:
        part = chat[-1].content.partition("\n")[2].partition("\n\nTask")[0]
        return "\n".join(dress(line) for line in part.replace(". ", ".\n").splitlines())

    lm = Sender(*plans, *[{"jobs": []}] * 8)
    answered(lm, small, worker=worker, rounds=rounds, part=60)
    found = {line for text in lm.asked for line in text.splitlines() if line.startswith("- ")}
    assert found
    assert sum(len(letters(line)) for line in found) <= 0.1 * len(letters(LEASE))
    assert of_the_lease(lm.asked) <= 0.1


def test_the_share_holds_over_the_requests_of_a_conversation() -> None:
    lm = Sender()
    strategy, session, _ = opened(lm, planner="question")
    words = [" ".join(text.split()[2:4]) for text in DULL[:20]]
    chat = CHAT
    for i, about in enumerate(words):
        asyncio.run(strategy.answer(session.bind(str(i)), chat))  # type: ignore[attr-defined]
        chat = (*chat, *user("in May"), *user(f"What of the {about}?"))
    assert of_the_lease(lm.asked) <= 0.1
    sent = [{line for line in text.splitlines() if line.startswith("- ")} for text in lm.asked]
    assert sent[1] - sent[0], "something more left at first"
    assert sent[-1] <= set().union(*sent[:-1]), "and nothing more in the end"


@pytest.mark.parametrize(
    "plan",
    [
        {"jobs": [{"instruction": "a"}] * 1000},
        {"jobs": [{"instruction": "a", "verb": "exec"}]},
        {"jobs": [{"instruction": "a", "findings": 10**9}]},
        {"jobs": [{"instruction": "a", "parts": [10**9]}]},
        {"jobs": [{"instruction": "a", "parts": list(range(1, 10000))}]},
        {"jobs": [{"instruction": "a" * 10_000}]},
        {"jobs": [{"instruction": ""}]},
        {"run": "rm"},
        "import os; os.system('id')",
        "{" * 100_000,
        "",
    ],
)
def test_a_plan_of_another_form_is_refused(plan: object) -> None:
    lm = Sender(plan)
    with pytest.raises(UnexpectedReplyError, match="plan") as caught:
        answered(lm)
    assert len(lm.asked) == 1, "nothing of the document left"
    assert "rm" not in str(caught.value).split()


def test_a_plan_may_come_with_words_around_it() -> None:
    for text in (
        'Sure:\n```json\n{"jobs": []}\n```',
        'Here: {"jobs": []} ok',
        '<think>x{</think>{"jobs":[]}',
    ):
        lm = Sender(text)
        assert answered(lm).text == "in May"


def test_empty_documents_and_none_at_all() -> None:
    lm = Sender()
    assert answered(lm, chat=user("What? <document></document>")).text == "in May"
    assert "document 1 is not shown, and nothing was found in it" in lm.asked[0]
    lm = Sender()
    assert answered(lm, chat=user("What?")).text == "in May"
    assert lm.asked == ["What?"]


def test_what_is_not_clear_is_refused_before_anything_is_sent() -> None:
    lm = Sender()
    with pytest.raises(RejectedError, match="<document>"):
        answered(lm, chat=user("What? <document>abc"))
    with pytest.raises(PrivacyError, match="share"):
        answered(lm, chat=user(f"{LEASE[:900]}? <document>{LEASE}</document>"))
    assert lm.asked == []


def test_a_document_longer_than_the_model_is_read_in_parts() -> None:
    seen: list[int] = []

    def small(chat: Chat) -> str:
        seen.append(len(chat[-1].content.split()))
        return "none"

    lm = Sender()
    text = f"{QUESTION} <document>{LEASE * 40}</document>"
    answered(lm, small, user(text), planner="question", worker="small", part=120, findings=2)
    assert len(seen) > 100
    assert max(seen) < 200


def test_it_streams_and_stands_behind_the_pseudonym_defence(tmp_path: Path) -> None:
    def lm(chat: Chat) -> str:
        return f"It is {chat[-1].content.partition('tenant is ')[2].split()[0]}"

    hide = defences.create(
        "pseudonym", detectors=["patterns"], words={"PERSON": ["Ada Lovelace"]},
        key_file=tmp_path / "key",
    )  # fmt: skip
    strategy, session, ledger = opened(lm, planner="question", findings=1, around=(hide,))
    chat = user(
        f"Who is the tenant? <document>{LEASE}\n\nThe tenant is Ada Lovelace now.</document>"
    )

    async def run() -> list[Delta | Answer]:
        found = strategy.stream(session.bind("a"), chat)  # type: ignore[attr-defined]
        return [piece async for piece in found]

    *_, last = asyncio.run(run())
    assert isinstance(last, Answer)
    assert last.text == "It is Ada Lovelace"
    sent: list[Message] = [
        decode(entry.payload)
        for entry in ledger.entries()
        if entry.direction == "up" and entry.payload
    ]
    assert len(sent) == 1
    assert isinstance(sent[0], Ask)
    assert "tenant is" in str(sent[0])
    assert "Lovelace" not in str(sent[0])


def test_the_encoder_finds_what_shares_no_word() -> None:
    class Meaning:
        def embed(self, texts: list[str]) -> Array:
            about = [
                [float("crane" in t or "hoist" in t), 1.0 - ("crane" in t or "hoist" in t)]
                for t in texts
            ]
            rows = np.array(about, np.float32)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    lm = Sender()
    strategy = strategies.create("decompose", planner="question", findings=1)
    session = open_session(
        DataOwner(ScriptedModel(), embedder=Meaning()), LMOwner(ScriptedModel(lm)), strategy
    )
    chat = user(f"hoist? <document>{LEASE}</document>")
    asyncio.run(strategy.answer(session.bind("a"), chat))
    assert FACT in lm.asked[0]


@pytest.mark.parametrize(
    "options",
    [{"share": 0.0}, {"share": 1.5}, {"rounds": 0}, {"rounds": 9}, {"findings": 11}, {"passage": 2},
     {"part": 10}, {"longest": 0}],
)  # fmt: skip
def test_options_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        strategies.create("decompose", **options)


def test_what_it_expects_to_send() -> None:
    assert len(forecast(strategies.create("decompose", planner="question"))) == 1
    assert forecast(strategies.create("decompose", rounds=3))[0].each == 3


def test_a_small_models_none_is_no_finding() -> None:
    said = "None\n- nothing relevant\n1. No relevant information.\nN/A\n\n* It ends in May.\n---"
    assert findings_in(said, 3) == ["It ends in"]
