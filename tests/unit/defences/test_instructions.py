"""The task's own words stay; secrets that stand among them do not leave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences.detection import Span
from cosilo.defences.patterns import PatternDetector
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.session import DefenceConfig, PointConfig, with_instructions
from cosilo.tasks.config import load_task, parse_task
from cosilo.types import Turn

INSTRUCTIONS = (
    "Extract these fields from the user's text for the desk of Anna Keller.\n"
    "Questions go to desk@example.org, card 4111 1111 1111 1111, only\n\n"
    "Fields:\n- Due Date\n- Total"
)
GUESSES = ("Extract", "Fields", "Due Date", "Total", "Anna Keller", "Meridian", "Invoice")


class Guesses:
    """Takes words for names, as a model does, beside the patterns."""

    def __init__(self, words: Sequence[str] = GUESSES) -> None:
        self.words = words
        self.patterns = PatternDetector()

    def detect(self, text: str, public: str = "") -> list[Span]:
        found = self.patterns.detect(text, public)
        for word in self.words:
            at = text.find(word)
            if at >= 0:
                found.append(Span(at, at + len(word), "PERSON", 0.85))
        return found


def defence(folder: Path, *instructions: str) -> Pseudonym:
    made = Pseudonym(
        detectors=["patterns"], key_file=folder / "key", instructions=instructions or ()
    )
    made.hiding.reader.detectors = (Guesses(),)
    return made


async def hidden(made: Pseudonym, *turns: Turn) -> list[list[str]]:
    """The values that would be hidden in each turn."""
    spans = await made.hiding.spans(Ask(chat=turns))
    return [
        [turn.content[s.start : s.end] for s in here]
        for turn, here in zip(turns, spans, strict=True)
    ]


async def test_words_of_the_instructions_stay_and_values_of_a_form_do_not(tmp_path: Path) -> None:
    made = defence(tmp_path, INSTRUCTIONS)
    system, text = await hidden(made, Turn("system", INSTRUCTIONS), Turn("user", "Meridian wrote"))
    assert system == ["desk@example.org", "4111 1111 1111 1111"]
    assert text == ["Meridian"]


async def test_a_secret_of_the_item_is_hidden_in_the_instructions_too(tmp_path: Path) -> None:
    made = defence(tmp_path, INSTRUCTIONS)
    system, text = await hidden(
        made, Turn("system", INSTRUCTIONS), Turn("user", "Anna Keller asks about the Invoice")
    )
    assert "Anna Keller" in system
    assert text == ["Anna Keller", "Invoice"]
    assert "Extract" not in system


async def test_a_word_that_the_item_writes_otherwise_stays(tmp_path: Path) -> None:
    made = defence(tmp_path, "Give the invoice.")
    system, text = await hidden(
        made, Turn("system", "Give the invoice."), Turn("user", "Invoice of Meridian")
    )
    assert system == []
    assert "Invoice" in text


async def test_what_follows_the_instructions_is_looked_at_as_ever(tmp_path: Path) -> None:
    made = defence(tmp_path, INSTRUCTIONS)
    longer = f"{INSTRUCTIONS}\n\nMeridian is a client.\nTotal means gross."
    system, _ = await hidden(made, Turn("system", longer), Turn("user", "hello"))
    assert "Meridian" in system
    assert "Extract" not in system


@pytest.mark.parametrize(
    "turn",
    [
        Turn("user", INSTRUCTIONS),  # in a user's mouth they are the user's words
        Turn("system", "Extract what Anna Keller said."),  # a client's own system turn
        Turn("system", INSTRUCTIONS.replace("Extract", "Extract,")),
    ],
)
async def test_what_a_client_says_is_private(tmp_path: Path, turn: Turn) -> None:
    found, _ = await hidden(defence(tmp_path, INSTRUCTIONS), turn, Turn("user", "hello"))
    assert "Anna Keller" in found


async def test_without_instructions_nothing_is_public(tmp_path: Path) -> None:
    system, _ = await hidden(defence(tmp_path), Turn("system", INSTRUCTIONS), Turn("user", "hello"))
    assert {"Anna Keller", "Due Date"} <= set(system)


async def test_what_was_hidden_earlier_in_the_conversation_stays_hidden(tmp_path: Path) -> None:
    made = defence(tmp_path, INSTRUCTIONS)
    seen = []

    async def forward(message: object) -> object:
        seen.append(message)
        raise ValueError

    for text in ("Anna Keller asks", "and now?"):
        ask = Ask(chat=(Turn("system", INSTRUCTIONS), Turn("user", text)))
        with pytest.raises(ValueError):  # noqa: PT011
            await made.guard(ask, forward, request="one")  # type: ignore[arg-type]
    for ask in seen:
        assert isinstance(ask, Ask)
        assert "Anna" not in ask.chat[0].content
        assert "Extract" in ask.chat[0].content


def test_points_are_told_unless_the_plan_tells_them() -> None:
    silent = DefenceConfig("quiet", "pseudonym", {"instructions": ()})
    point = PointConfig("p", "large", {}, (DefenceConfig("pseudonym", "pseudonym"), silent))
    told = with_instructions(point, INSTRUCTIONS, "")
    assert told.defences[0].options == {"instructions": (INSTRUCTIONS,)}
    assert told.defences[1].options == {"instructions": ()}
    assert told.options == {}
    span = PointConfig("p", "secure_forward", {"protect": "span"})
    assert with_instructions(span, INSTRUCTIONS).options["instructions"] == (INSTRUCTIONS,)


@pytest.mark.parametrize(
    ("kind", "target"), [("classification", "a"), ("text", "a"), ("extraction", {"f": "a"})]
)
def test_a_task_says_what_its_own_words_are(tmp_path: Path, kind: str, target: object) -> None:
    rows = [
        {"text": f"question {i}", "label": target if i % 2 else "b", "notes": f"on {i}"}
        for i in range(90)
    ]
    if kind == "extraction":
        rows = [{**row, "label": {"f": "a"}} for row in rows]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"context": "notes"}
    table = {"kind": kind, "file": "d.jsonl", "columns": columns, "instructions": "Do this."}
    task = load_task(parse_task(table), tmp_path)
    assert task.instructions.startswith("Do this.")
    for example in task.splits["test"]:
        system = example.chat[0].content
        assert system.startswith(task.instructions + "\n\non ")
        assert "on " not in task.instructions  # an item's own context is its own
