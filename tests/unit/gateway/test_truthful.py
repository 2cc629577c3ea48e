"""What an upstream says of a reply, as the clients of each shape are told it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cosilo.models.remote.openai_compatible import OpenAIModel
from house import Reply, house
from wire import DONE, SSE_HEAD, Wire, data, delta, http

PATHS = {
    "chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages",
}  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "q"}]},
    "responses": {"input": "q"},
    "messages": {"messages": [{"role": "user", "content": "q"}], "max_tokens": 64},
}
every = pytest.mark.parametrize("endpoint", sorted(PATHS))


def usage(reasoning: Any = 5, cached: Any = 2) -> dict[str, Any]:
    return {
        "prompt_tokens": 8, "completion_tokens": 9,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        "prompt_tokens_details": {"cached_tokens": cached},
    }  # fmt: skip


async def ask(
    wire: Wire, endpoint: str, *, options: dict[str, Any] | None = None, **fields: Any
) -> Reply:
    async with wire.serve() as url:
        model = OpenAIModel(url, "m", retries=0, **(options or {}))
        h = await house(large=[model])
        try:
            return await h.send(
                PATHS[endpoint], {"model": "cosilo/x", **BODIES[endpoint], **fields},
                headers=[(b"anthropic-version", b"2023-06-01")],
            )  # fmt: skip
        finally:
            await model.close()


def answer(**more: Any) -> list[Any]:
    choice = {"message": {"content": "Yes."}, "finish_reason": "stop"}
    return [http(json.dumps({"choices": [choice], "usage": usage(), **more}).encode())]


async def test_what_was_thought_with_and_read_before_is_told() -> None:
    told = (await ask(Wire(answer()), "chat")).json["usage"]
    assert told == {
        "prompt_tokens": 8, "completion_tokens": 9, "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }  # fmt: skip
    told = (await ask(Wire(answer()), "responses")).json["usage"]
    assert told["output_tokens_details"] == {"reasoning_tokens": 5}
    assert told["input_tokens_details"]["cached_tokens"] == 2
    told = (await ask(Wire(answer()), "messages")).json["usage"]
    assert (told["input_tokens"], told["cache_read_input_tokens"]) == (6, 2)


async def test_a_stream_tells_the_same() -> None:
    stream = delta(content="Yes.") + delta("stop") + data({"choices": [], "usage": usage()}) + DONE
    told = await ask(
        Wire([SSE_HEAD + stream]), "chat", stream=True, stream_options={"include_usage": True}
    )
    assert told.events[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 5}
    told = await ask(Wire([SSE_HEAD + stream]), "responses", stream=True)
    assert '"reasoning_tokens":5' in told.body.decode().replace(" ", "")


@pytest.mark.parametrize("reasoning", [10**6, -4, "many", 0, None, 10])
async def test_what_cannot_be_part_of_the_reply_is_not_told(reasoning: Any) -> None:
    told = (await ask(Wire(answer(usage=usage(reasoning))), "chat")).json["usage"]
    if reasoning == 10:  # beside the reply, as some count it: then it is booked with it
        assert told["completion_tokens_details"] == {"reasoning_tokens": 10}
        assert told["completion_tokens"] == 19
    else:
        assert "completion_tokens_details" not in told


@every
async def test_a_field_that_the_upstream_refuses_is_told_as_its_refusal(endpoint: str) -> None:
    error = {
        "message": "Unrecognized request argument supplied: top_k",
        "type": "invalid_request_error",
    }
    wire = Wire([http(json.dumps({"error": error}).encode(), 400)])
    told = await ask(wire, endpoint, top_k=4)
    assert told.status == 400
    assert wire.requests[0]["top_k"] == 4
    if endpoint != "messages":
        assert (told.error["code"], told.error["param"]) == ("unsupported_parameter", "top_k")
    assert "top_k" in told.body.decode()
    # Where the model's table leaves it out, or says it otherwise, the client's is not sent.
    wire = Wire(answer())
    for options in ({"omit": ["top_k"]}, {"extra": {"top_k": 9}}):
        assert (await ask(wire, endpoint, top_k=4, options=options)).status == 400
    assert wire.requests == []


@pytest.mark.parametrize(
    ("said", "told"),
    [("stop", "stop"), ("eos", "stop"), ("length", "length"), ("max_tokens", "length"),
     ("content_filter", "content_filter"), ("SAFETY", "content_filter"), ("a new word", "length")],
)  # fmt: skip
async def test_why_a_reply_ended(said: str, told: str) -> None:
    choice = {"message": {"content": "Yes."}, "finish_reason": said}
    reply = await ask(Wire(answer(choices=[choice])), "chat")
    assert reply.json["choices"][0]["finish_reason"] == told
