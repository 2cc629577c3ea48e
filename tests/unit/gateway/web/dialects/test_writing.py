"""Answers and the events of streams have OpenAI's shape."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from cosilo.gateway.web.dialects.base import Continuation, Envelope
from cosilo.gateway.web.dialects.chat import ChatChunks, ChatCompletions
from cosilo.gateway.web.dialects.completions import Completions, TextChunks
from cosilo.gateway.web.dialects.openai import usage
from cosilo.types import Delta, Generation, TokenLogprob, ToolCall, ToolCallDelta

REPLY = Generation(
    "né",
    tokens=(TokenLogprob("n", -0.5, (("n", -0.5), ("m", -1.0))), TokenLogprob("é", float("-inf"))),
    prompt_tokens=3,
    completion_tokens=2,
)
CALLING = Generation("", tool_calls=(ToolCall("c1", "f", '{"a": 1}'),), finish_reason="tool_calls")


def around(**wanted: Any) -> Envelope:
    return Envelope("r", 1, "cosilo/x", Continuation(model="cosilo/x", chats=(), **wanted))


def test_a_finished_chat_is_what_the_client_library_expects() -> None:
    made = ChatCompletions().whole(around(logprobs=1), [REPLY, CALLING])
    found = ChatCompletion.model_validate(json.loads(made), strict=True)
    assert found.choices[0].message.content == "né"
    assert found.choices[0].logprobs is not None
    tokens = found.choices[0].logprobs.content or []
    assert [(t.token, t.bytes, len(t.top_logprobs)) for t in tokens] == [
        ("n", [110], 1), ("é", [195, 169], 0),
    ]  # fmt: skip
    assert tokens[1].logprob == -9999.0
    assert found.choices[1].message.content is None
    assert found.choices[1].finish_reason == "tool_calls"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (3, 5)


def test_a_finished_text_is_what_the_client_library_expects() -> None:
    made = Completions().whole(around(logprobs=1), [REPLY])
    found = Completion.model_validate(json.loads(made), strict=True)
    assert found.choices[0].text == "né"
    assert found.choices[0].logprobs is not None
    assert found.choices[0].logprobs.text_offset == [0, 1]


def events(data: bytes) -> list[ChatCompletionChunk]:
    found = []
    for block in data.decode().split("\n\n"):
        if block.startswith("data: {"):
            found.append(ChatCompletionChunk.model_validate_json(block[6:], strict=True))
    return found


def test_chunks_are_what_the_client_library_expects() -> None:
    writer = ChatChunks(around(include_usage=True))
    data = (
        writer.first(0)
        + writer.piece(0, Delta("né\n\n"))
        + writer.piece(1, Delta("x"))
        + writer.piece(0, Delta(tool_calls=(ToolCallDelta(0, "c1", "f"),)))
        + writer.piece(0, Delta(tool_calls=(ToolCallDelta(0, arguments='{"a"'),)))
        + writer.last(0, REPLY)
        + writer.end([REPLY], {"by": "small"})
    )
    found = events(data)
    assert [c.choices[0].delta.content for c in found[:3]] == ["", "né\n\n", "x"]
    assert [c.choices[0].index for c in found[:3]] == [0, 0, 1]
    opened, more = (c.choices[0].delta.tool_calls or [] for c in found[3:5])
    assert (opened[0].id, opened[0].function and opened[0].function.name) == ("c1", "f")
    assert more[0].function is not None
    assert (more[0].id, more[0].function.arguments) == (None, '{"a"')
    assert found[5].choices[0].finish_reason == "stop"
    assert found[6].choices == []
    assert found[6].usage is not None
    assert found[6].usage.total_tokens == 5
    assert all(c.usage is None for c in found[:6])


def test_the_pieces_show_log_probabilities_where_they_are_wanted() -> None:
    token = TokenLogprob("x", -0.1, (("y", -2.0),))
    [found] = events(ChatChunks(around(logprobs=0)).piece(0, Delta("x", tokens=(token,))))
    assert found.choices[0].logprobs is not None
    [shown] = found.choices[0].logprobs.content or []
    assert (shown.token, shown.top_logprobs) == ("x", [])


def test_a_piece_that_holds_nothing_for_the_client_is_not_sent() -> None:
    for chunks in (ChatChunks, TextChunks):
        writer = chunks(around(logprobs=0))
        assert writer.piece(0, Delta(finish_reason="stop", prompt_tokens=3)) == b""
        assert writer.piece(0, Delta(tokens=(TokenLogprob("", -1),))) != b""


@given(st.text())
def test_an_event_is_one_event_whatever_the_text(text: str) -> None:
    data = ChatChunks(around()).piece(0, Delta(text + "x"))
    assert data.count(b"\n\n") == 1
    assert b"\r" not in data
    assert events(data)[0].choices[0].delta.content == text + "x"


def test_tokens_that_were_read_before_are_told_as_openai_tells_them() -> None:
    read = Generation("a", prompt_tokens=9, completion_tokens=1, cached_tokens=7)
    odd = [
        Generation("a", prompt_tokens=2, cached_tokens=50),
        Generation("a", prompt_tokens=-1, cached_tokens=-1),
    ]
    found = ChatCompletion.model_validate_json(ChatCompletions().whole(around(), [read])).usage
    assert found is not None
    assert found.prompt_tokens_details is not None
    assert found.prompt_tokens_details.cached_tokens == 7
    assert usage([read, *odd])["prompt_tokens_details"] == {"cached_tokens": 9}
    assert "prompt_tokens_details" not in usage([Generation("a", prompt_tokens=9)])
