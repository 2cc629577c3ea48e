"""OpenAI's own library asks about documents through a gateway, and they stay at home."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError

from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat
from house import house

NOTES = "\n\n".join(
    f"Entry {i}: the {what} was seen to by crew {i * 7} and {who} signed for it."
    for i, (what, who) in enumerate(
        [("boiler", "Mr. Alan Turing"), ("roof", "Mrs. Grace Hopper"), ("lift", "Mr. Kurt Gödel"),
         ("pump", "Mrs. Emmy Noether"), ("gate", "Mr. Paul Erdős"), ("crane", "Mrs. Ada Lovelace")] * 4
    )
)  # fmt: skip
QUESTION = "Who signed for entry 5, the crane?"


class Says(ScriptedModel):
    """Repeats the finding that it is shown about the crane."""

    def __init__(self) -> None:
        self.read: list[str] = []
        super().__init__(self._said)

    def _said(self, chat: Chat) -> str:
        self.read.append("\n".join(turn.content for turn in chat))
        lines = self.read[-1].splitlines()
        return next((line for line in lines if line.startswith("- ") and "crane" in line), "nobody")


def replied(
    lm: Says, key: Path, content: str, *, streamed: bool, strategy: str, options: dict[str, Any]
) -> str:
    """What the client is told by a point behind pseudonyms."""
    hide = DefenceConfig("hide", "pseudonym", {"detectors": ["patterns"], "key_file": str(key)})

    async def run() -> str:
        h = await house(
            large=[lm], small=ScriptedModel({}), strategy=strategy, options=options, around=(hide,)
        )
        wire = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=h.gateway))
        asked: Any = [{"role": "user", "content": content}]
        async with AsyncOpenAI(
            base_url="http://gateway/v1", api_key="good", max_retries=0, http_client=wire
        ) as client:
            create = client.chat.completions.create
            if not streamed:
                whole = await create(model="cosilo/x", messages=asked)
                return whole.choices[0].message.content or ""
            pieces = await create(model="cosilo/x", messages=asked, stream=True)
            return "".join([p.choices[0].delta.content or "" async for p in pieces if p.choices])

    return asyncio.run(run())


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("strategy", ["decompose", "retrieve"])
def test_the_finding_comes_back_whole_and_the_document_stays(
    tmp_path: Path, strategy: str, streamed: bool
) -> None:
    lm = Says()
    options: dict[str, Any] = {"share": 0.6, "findings": 2, "planner": "question"}
    content = f"{NOTES}\n\n{QUESTION}"
    if strategy == "retrieve":
        folder, content = tmp_path / "notes", QUESTION
        folder.mkdir()
        (folder / "notes.txt").write_text(NOTES)
        options = {"share": 0.6, "documents": str(folder), "index": str(tmp_path / "index")}
    said = replied(
        lm, tmp_path / "key", content, streamed=streamed, strategy=strategy, options=options
    )
    assert "Mrs. Ada Lovelace signed for it" in said
    assert QUESTION in lm.read[0]
    assert "Lovelace" not in lm.read[0]
    assert len(lm.read[0]) < 0.5 * len(NOTES)


def test_what_is_not_clear_is_refused(tmp_path: Path) -> None:
    lm = Says()
    with pytest.raises(BadRequestError, match="document"):
        replied(
            lm,
            tmp_path / "key",
            "What? <document>",
            streamed=False,
            strategy="decompose",
            options={},
        )
    assert lm.read == []


class Plans(Says):
    """Answers every question with the same plan."""

    def _said(self, chat: Chat) -> str:
        self.read.append("\n".join(turn.content for turn in chat))
        return "SELECT who, cost FROM repairs WHERE part = :value_a ORDER BY cost"


@pytest.mark.parametrize("streamed", [False, True])
def test_rows_come_back_and_the_table_stays(tmp_path: Path, streamed: bool) -> None:
    file = tmp_path / "repairs.sqlite"
    with closing(sqlite3.connect(file)) as made, made:
        made.execute("CREATE TABLE repairs (part TEXT, who TEXT, cost INT)")
        rows = [("winch", "Ada Lovelace", 9120), ("keel", "Alan Turing", 77), ("winch", "Kurt", 40)]
        made.executemany("INSERT INTO repairs VALUES (?, ?, ?)", rows)
    lm = Plans()
    said = replied(
        lm,
        tmp_path / "key",
        "Who repaired the winch, and what was paid?",
        streamed=streamed,
        strategy="decompose_tables",
        options={"database": str(file)},
    )
    assert said == "who | cost\nKurt | 40\nAda Lovelace | 9120"
    (read,) = lm.read
    assert "CREATE TABLE repairs" in read
    for cell in ("winch", "keel", "Lovelace", "Turing", "9120"):
        assert cell not in read
