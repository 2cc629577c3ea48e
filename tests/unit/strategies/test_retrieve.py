"""Only passages found cross, no more of a document than its share; what changed is read anew."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import ConfigError, PrivacyError, StoreError
from cosilo.models.base import Array
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.strategies.documents.index import IndexChange, PassageIndex
from cosilo.strategies.documents.share import letters
from cosilo.strategies.inference.retrieve import TextFolder
from cosilo.types import Answer, Chat, user

FILLER = [
    "Vessels over nine metres berth at the outer wall and pay by the tide.",
    "Ropes are looked at every spring by two people of different crews.",
    "Whoever leaves a gate open answers for the sheep beyond it.",
    "Paint is kept in the shed behind the chandler's, away from the stove.",
    "A visiting yacht shows its papers to whoever holds the lantern.",
    "Old sails are sold on the last Friday before the regatta.",
]
FACT = "The crane may lift four tonnes in calm weather."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "documents"
    (made / "rules").mkdir(parents=True)
    (made / ".git").mkdir()
    (made / "rules" / "harbour.md").write_text("\n\n".join([*FILLER, FACT]))
    (made / "letters.txt").write_text("\n\n".join(line.upper() for line in reversed(FILLER[:3])))
    (made / "empty.txt").write_text("")
    (made / ".git" / "crane.txt").write_text("The crane is hidden.")
    (made / "crane.bin").write_bytes(b"\xff crane")
    (tmp_path / "elsewhere.txt").write_text("The crane of another folder.")
    (made / "link.txt").symlink_to(tmp_path / "elsewhere.txt")
    return made


def asked(folder: Path, questions: list[str], **options: object) -> tuple[list[Answer], list[str]]:
    read: list[str] = []

    def says(chat: Chat) -> str:
        read.append("\n".join(turn.content for turn in chat))
        return f"answer {len(read)}"

    given = {"documents": str(folder), "index": str(folder.parent / "index"), **options}
    strategy = strategies.create("retrieve", **given)
    session = open_session(
        DataOwner(ScriptedModel(says)),
        LMOwner(ScriptedModel(says)),
        strategy,
        ledger=MemoryLedger(),
    )

    async def run() -> list[Answer]:
        ready, opened = await strategy.prepare(session)
        chats = enumerate(map(user, questions))
        return [await ready.answer(opened.bind(str(i)), chat) for i, chat in chats]

    return asyncio.run(run()), read


def test_the_passage_found_crosses_and_no_other(folder: Path) -> None:
    (answer,), (read,) = asked(folder, ["How much may the crane lift?"], findings=1, share=0.3)
    assert answer.by == "both"
    assert f"- {FACT}" in read
    assert "Ropes" not in read
    assert "hidden" not in read
    assert "another" not in read


def test_the_small_model_answers_at_home(folder: Path) -> None:
    strategy = strategies.create("retrieve", documents=str(folder), to="small")
    assert strategy.needs.sends == frozenset()
    (answer,), (read,) = asked(folder, ["What may the crane lift?"], to="small", share=0.01)
    assert answer.by == "small"
    assert FACT in read, "what stays at home is not limited"


def test_the_share_of_each_document_holds_over_all_questions(folder: Path) -> None:
    words = [
        "berth tide",
        "ropes spring",
        "gate sheep",
        "paint stove",
        "yacht lantern",
        "crane lift",
    ] * 3
    _, read = asked(folder, words, share=0.3)
    whole = letters((folder / "rules" / "harbour.md").read_text())

    def places(read: list[str]) -> set[int]:
        """Letters of the document in findings that stand in it."""
        lines = {letters(line) for t in read for line in t.splitlines() if line.startswith("- ")}
        starts = {line: whole.find(line) for line in lines if line in whole}
        return {at + i for line, at in starts.items() for i in range(len(line))}

    assert 0 < len(places(read)) <= 0.3 * len(whole)
    kept = str(folder.parent / "kept")
    for _ in range(2):  # and over two processes, as it were
        read += asked(folder, words, share=0.3, kept=kept)[1]
    assert len(places(read)) <= 0.3 * len(whole)


def test_nothing_found_is_said_and_a_long_quotation_is_refused(folder: Path) -> None:
    _, (read,) = asked(folder, ["zebra quagga?"])
    assert read == "Nothing was found in the documents.\n\nzebra quagga?"
    with pytest.raises(PrivacyError, match="share"):
        asked(folder, [" ".join(FILLER)])


def test_prepare_reads_what_changed(folder: Path) -> None:
    index = PassageIndex(folder.parent / "index")
    assert index.update(TextFolder(folder)) == IndexChange(read=3, same=0, gone=0)
    (folder / "letters.txt").write_text("The crane was painted green.")
    (folder / "empty.txt").unlink()
    assert index.update(TextFolder(folder)) == IndexChange(read=1, same=1, gone=1)
    index.close()
    again = PassageIndex(folder.parent / "index")
    assert again.update(TextFolder(folder)) == IndexChange(read=0, same=2, gone=0)
    assert again.search("green paint", 1)[0].document == "letters.txt"
    assert again.search("BERTH", 9)[0].document == "rules/harbour.md"
    assert [p.document for p in again.search("sheep", 9)] == ["rules/harbour.md"], "none of before"
    again.close()
    other = PassageIndex(folder.parent / "index", passage=20)
    assert other.parts() == {}, "cut otherwise, so read anew"
    other.close()
    assert os.stat(folder.parent / "index").st_mode & 0o077 == 0


class ByLetter:
    """Vectors of how often each letter stands in a text."""

    def __init__(self) -> None:
        self.read = 0

    def embed(self, texts: list[str]) -> Array:
        self.read += len(texts)
        rows = np.array(
            [[t.casefold().count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts]
        )
        return np.asarray(rows / np.linalg.norm(rows + 1e-9, axis=1, keepdims=True), np.float32)


def test_vectors_are_kept_and_ranked_as_one_by_one(folder: Path) -> None:
    encoder = ByLetter()
    index = PassageIndex(folder.parent / "index", encoder, encoded_by="letters")
    index.update(TextFolder(folder))
    assert encoder.read == 10
    index.close()
    index = PassageIndex(folder.parent / "index", encoder, encoded_by="letters")
    index.update(TextFolder(folder))
    assert encoder.read == 10
    query = "qqq ccc rrr"  # no word of these
    found = [p.text for p in index.search(query, 10)]
    vector = encoder.embed([query])[0]
    assert found == sorted(found, key=lambda t: -float(encoder.embed([t])[0] @ vector))
    assert len(found) == 10
    index.close()


def test_an_update_that_fails_leaves_the_index_as_it_was(folder: Path) -> None:
    index = PassageIndex(folder.parent / "index")
    index.update(TextFolder(folder))
    (folder / "rules" / "harbour.md").write_text("Nothing of before.")
    (folder / "zz.txt").write_bytes(b"\xff\xfe no UTF-8")
    with pytest.raises(ConfigError, match=r"zz\.txt"):
        index.update(TextFolder(folder))
    assert index.search("crane", 1)[0].text == FACT
    index.close()


@pytest.mark.parametrize(
    "query", ['"', "a AND OR NOT (", "crane* NEAR", "text:crane", "", "  ", "-"]
)
def test_a_query_is_words_and_never_a_program(folder: Path, query: str) -> None:
    index = PassageIndex(None)
    index.update(TextFolder(folder))
    found = index.search(query, 3)
    assert bool(found) == ("crane" in query or "a" in query)
    index.close()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"documents": ""}, "documents"),
        ({"documents": "d", "to": "small", "findings": 0}, "findings"),
        ({"documents": "d", "share": 0}, "share"),
        ({"documents": "d", "passage": 1}, "passage"),
        ({}, "documents"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        strategies.create("retrieve", **options)


def test_what_cannot_be_read_is_said_before_anything_is_sent(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        asked(folder / "nowhere", ["crane?"])
    (folder / "none").mkdir()
    with pytest.raises(ConfigError, match="no text file"):
        asked(folder / "none", ["crane?"])
    (folder.parent / "index").write_text("this is no database " * 99)
    with pytest.raises(StoreError, match="index"):
        asked(folder, ["crane?"])
