"""Where the document is in a chat, and how it is cut."""

from __future__ import annotations

import pytest

from cosilo.errors import RejectedError
from cosilo.strategies.documents.parting import LONGEST, parted, parts, pieces
from cosilo.types import Turn, user

LONG = "\n\n".join(
    f"Paragraph {i} of the lease says something dull at some length." for i in range(40)
)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (f"{LONG}\n\nWhen does it end?", "When does it end?"),
        (f"Sum up this lease:\n\n{LONG}", "Sum up this lease:"),
        (f"When does it end?\n\n{LONG}", "When does it end?"),
        (f"{LONG}\n\nTell me when it ends", "Tell me when it ends"),
        (f"Say when.\n<document>{LONG}</document>", "Say when."),
    ],
)
def test_the_question_stays_and_the_document_goes(text: str, question: str) -> None:
    found = parted(user(text, system="Be brief."))
    assert len(found.documents) == 1
    assert "Paragraph 3 of" in found.documents[0]
    assert question in found.question
    assert "Paragraph 3 of" not in str(found.chat)
    assert found.chat[0] == Turn("system", "Be brief.")
    assert "[document 1]" in found.question


def test_a_document_of_an_earlier_turn_is_taken_too() -> None:
    chat = (
        Turn("user", LONG),
        Turn("assistant", LONG),
        Turn("tool", LONG),
        Turn("user", "And now?"),
    )
    found = parted(chat)
    assert len(found.documents) == 2
    assert found.question == "And now?"
    assert found.chat[1].content == LONG, "what the model itself said is no document"


def test_short_turns_and_long_instructions_are_no_documents() -> None:
    assert parted(user("x" * LONGEST, system=LONG)).documents == ()


def test_a_marked_document_may_be_empty_or_in_the_instructions() -> None:
    found = parted(user("What now? <document> </document>", system="<document>a b</document>"))
    assert found.documents == ("a b", "")


@pytest.mark.parametrize(
    "text",
    ["What? <document>abc", "abc</document> What?", "x" * (LONGEST + 1), LONG.replace("\n\n", " ")],
)
def test_what_is_not_clear_is_refused(text: str) -> None:
    with pytest.raises(RejectedError, match="<document>") as caught:
        parted(user(text))
    assert "abc" not in str(caught.value)


def test_pieces_are_whole_sentences_and_lose_nothing() -> None:
    text = "One two three. Four five! Six seven eight nine ten eleven twelve.\n\nThirteen."
    cut = pieces(text, 6)
    assert cut == [
        "One two three. Four five!",
        "Six seven eight nine ten eleven",
        "twelve.",
        "Thirteen.",
    ]
    assert " ".join(cut).split() == text.split()
    assert parts(text, 6) == [*cut[:2], "twelve.\n\nThirteen."]
    assert parts("", 6) == pieces(" \n\n ", 6) == []
