"""What the caller asks for and cannot have is told with a 4xx in each shape, and nothing is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosilo.defences import text_dp
from cosilo.errors import PrivacyError, UnprotectableError
from cosilo.gateway.refusals import refusal
from cosilo.models.asked import too_long
from cosilo.models.encoder.word_table import WordTable
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from house import Failing, House, house

PARAMETERS = {"type": "object", "properties": {"who": {"type": "string"}}}
FUNCTION = {"name": "look", "parameters": PARAMETERS}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "my card"}],
        "tools": [{"type": "function", "function": FUNCTION}],
    },
    "/v1/responses": {"input": "my card", "tools": [{"type": "function", **FUNCTION}]},
    "/v1/messages": {
        "messages": [{"role": "user", "content": "my card"}],
        "max_tokens": 5,
        "tools": [{"name": "look", "input_schema": PARAMETERS}],
    },
}


@pytest.fixture
async def replacing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[House, ScriptedModel]:
    def table(source: object, size: int) -> WordTable:
        words = ("the", "my", "card", "bank", "money", "shop")
        rows = np.random.default_rng(3).normal(size=(len(words), 6)).astype(np.float32)
        return WordTable(words[:size], rows[:size])

    monkeypatch.setattr(text_dp, "word_table", table)
    model = ScriptedModel()
    options = {"words": 6, "group": 2, "key_file": str(tmp_path / "key")}
    defence = DefenceConfig("words", "text_dp", options)
    return await house(large=[model], remote_embedder=ScriptedModel(), around=(defence,)), model


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_defence_cannot_protect(
    path: str, stream: bool, replacing: tuple[House, ScriptedModel]
) -> None:
    h, model = replacing
    reply = await h.send(path, {"model": "cosilo/x", "stream": stream, **ASKED[path]})
    assert reply.status == 400
    assert reply.headers["x-should-retry"] == "false"
    assert reply.error["type"] == "invalid_request_error"
    told = reply.error.get("details", {}).get("error_code") or reply.error["code"]
    assert told == "cannot_be_protected"
    assert "tools" in reply.error["message"]
    assert model.seen == []
    assert list(h.books.ledgers["x"].entries()) == []
    [(_, _, facts)] = h.books.settled
    assert (facts.outcome, facts.status) == ("error", 400)


async def test_vectors_behind_a_defence_of_chats(replacing: tuple[House, ScriptedModel]) -> None:
    h, model = replacing
    reply = await h.send("/v1/embeddings", {"model": "cosilo/x", "input": "my card"})
    assert (reply.status, reply.error["code"]) == (400, "cannot_be_protected")
    assert model.seen == []


def test_a_guard_in_doubt_is_no_doing_of_the_callers() -> None:
    assert refusal(PrivacyError("in doubt")).status == 503
    assert refusal(UnprotectableError("tools")).status == 400


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_model_at_home_cannot_take(stream: bool) -> None:
    small = Failing(fail=too_long("the prompt has 9 tokens, and the model's context 8"))
    h = await house(strategy="small", large=[], small=small)
    reply = await h.chat(stream=stream)
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert reply.error["param"] == "messages"
