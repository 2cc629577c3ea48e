"""OpenAI's own library asks about documents through a gateway, and they stay at home."""

from __future__ import annotations

import asyncio
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


@pytest.mark.parametrize("streamed", [False, True])
def test_decompose(tmp_path: Path, streamed: bool) -> None:
    lm = Says()
    options = {"detectors": ["patterns"], "key_file": str(tmp_path / "key")}

    async def run() -> str:
        h = await house(
            large=[lm],
            small=ScriptedModel({}),
            strategy="decompose",
            options={"planner": "question", "findings": 2, "share": 0.6},
            around=(DefenceConfig("hide", "pseudonym", options),),
        )
        wire = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=h.gateway))
        async with AsyncOpenAI(
            base_url="http://gateway/v1", api_key="good", max_retries=0, http_client=wire
        ) as client:
            asked: Any = [{"role": "user", "content": f"{NOTES}\n\n{QUESTION}"}]
            unclear: Any = [{"role": "user", "content": "What? <document>"}]
            with pytest.raises(BadRequestError, match="document"):
                await client.chat.completions.create(model="cosilo/x", messages=unclear)
            if not streamed:
                whole = await client.chat.completions.create(model="cosilo/x", messages=asked)
                return whole.choices[0].message.content or ""
            pieces = await client.chat.completions.create(
                model="cosilo/x", messages=asked, stream=True
            )
            return "".join([p.choices[0].delta.content or "" async for p in pieces if p.choices])

    said = asyncio.run(run())
    assert "Mrs. Ada Lovelace signed for it" in said
    assert QUESTION in lm.read[0]
    assert "Lovelace" not in lm.read[0]
    assert "boiler" not in lm.read[0]
    assert len(lm.read[0]) < 0.5 * len(NOTES)
