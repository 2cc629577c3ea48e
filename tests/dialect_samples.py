"""How each shape that clients speak is spoken, for the tests that try all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cosilo.gateway.web.dialects import DIALECTS
from cosilo.gateway.web.dialects.base import Dialect
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat, Generation, Sampling
from house import House, Reply, house

HEADERS: dict[str, list[tuple[bytes, bytes]]] = {}
"""What a dialect demands beside the key, by its endpoint."""


@dataclass(frozen=True)
class Sample:
    """How a dialect is spoken.

    Attributes:
        body: a request of one user's text.
        text: what a whole answer's body says.
        streamed: what the events of a stream say.
        used: (prompt, completion) tokens that a whole answer states.
        counted: the same of a stream, which is asked for them with the fields `counting`.
        error: the message in the body of a refusal, which has the dialect's own shape.
        places: fields of requests that each have the same text somewhere, in every place that the
            shape has for one and that is passed on.
        kept: the same, in places that are read at home and never passed on.
    """

    body: Callable[[str], dict[str, Any]]
    text: Callable[[Any], str]
    streamed: Callable[[list[Any]], str]
    used: Callable[[Any], tuple[int, int]]
    error: Callable[[Any], str]
    places: Callable[[str], dict[str, dict[str, Any]]]
    kept: Callable[[str], dict[str, dict[str, Any]]]
    counted: Callable[[list[Any]], tuple[int, int]]
    counting: dict[str, Any] = field(default_factory=dict)


def openai_error(body: Any) -> str:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return str(body["error"]["message"])


def anthropic_error(body: Any) -> str:
    assert body["type"] == "error"
    assert {"type", "message"} <= set(body["error"])
    return str(body["error"]["message"])


def chunked(piece: Callable[[Any], str | None]) -> Callable[[list[Any]], str]:
    """The text of a stream of OpenAI's chunks, each of whose choices says `piece`."""
    return lambda events: "".join(piece(c) or "" for e in events for c in e.get("choices", ()))


def openai_used(body: Any) -> tuple[int, int]:
    return body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]


def token_counts(body: Any) -> tuple[int, int]:
    return body["usage"]["input_tokens"], body["usage"]["output_tokens"]


USER = {"role": "user", "content": "hi"}


def chat_places(text: str) -> dict[str, dict[str, Any]]:
    def turns(*said: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [USER, *said, USER]}

    arguments = json.dumps({"q": text})
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    legacy = {"role": "assistant", "function_call": {"name": "f", "arguments": arguments}}
    done = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    tool = {"name": "f", "description": text, "parameters": {"type": "object"}}
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": text}}}
    return {
        "system": turns({"role": "system", "content": text}),
        "developer": turns({"role": "developer", "content": text}),
        "user": turns({"role": "user", "content": text}),
        "part": turns({"role": "user", "content": [{"type": "text", "text": text}]}),
        "name": turns({"role": "user", "content": "hi", "name": text}),
        "assistant": turns({"role": "assistant", "content": text}),
        "refusal": turns({"role": "assistant", "refusal": text}),
        "reasoning": turns({"role": "assistant", "content": "a", "reasoning": text}),
        "thoughts": turns({"role": "assistant", "content": "a", "reasoning_content": text}),
        "arguments": turns({"role": "assistant", "tool_calls": [call]}),
        "legacy": turns(legacy),
        "output": turns(
            {"role": "assistant", "tool_calls": [done]},
            {"role": "tool", "tool_call_id": "c", "content": text},
        ),
        "description": turns() | {"tools": [{"type": "function", "function": tool}]},
        "parameters": turns()
        | {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]},
        "format": turns()
        | {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "s", "description": text, "schema": schema},
            }
        },
    }


def chat_kept(text: str) -> dict[str, dict[str, Any]]:
    return {
        "user": {"user": text},
        "safety_identifier": {"safety_identifier": text},
        "metadata": {"metadata": {"about": text}},
        "cache": {"prompt_cache_key": text},
    }


def response_places(text: str) -> dict[str, dict[str, Any]]:
    def items(*said: dict[str, Any]) -> dict[str, Any]:
        return {"input": [USER, *said, USER]}

    def part(kind: str, **fields: str) -> list[dict[str, Any]]:
        return [{"type": kind, **(fields or {"text": text})}]

    arguments = json.dumps({"q": text})
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}
    done = {**call, "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c"}
    tool = {"type": "function", "name": "f"}
    group = {"type": "namespace", "name": "g", "description": "a", "tools": [tool]}
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": text}}}
    form = {"type": "json_schema", "name": "s", "description": text, "schema": schema}
    return {
        "input": {"input": text},
        "instructions": items() | {"instructions": text},
        "system": items({"role": "system", "content": text}),
        "developer": items({"role": "developer", "content": text}),
        "part": items({"role": "user", "content": part("input_text")}),
        "assistant": items({"role": "assistant", "content": text}),
        "output_text": items({"role": "assistant", "content": part("output_text")}),
        "refusal": items({"role": "assistant", "content": part("refusal", refusal=text)}),
        "summary": items({"type": "reasoning", "summary": part("summary_text")}),
        "thoughts": items({"type": "reasoning", "summary": [], "content": part("reasoning_text")}),
        "arguments": items(call),
        "output": items(done, {**output, "output": text}),
        "output part": items(done, {**output, "output": part("input_text")}),
        "description": items() | {"tools": [{**tool, "description": text}]},
        "parameters": items() | {"tools": [{**tool, "parameters": schema}]},
        "group": items() | {"tools": [{**group, "description": text}]},
        "grouped": items() | {"tools": [{**group, "tools": [{**tool, "description": text}]}]},
        "format": items() | {"text": {"format": form}},
    }


def message_places(text: str) -> dict[str, dict[str, Any]]:
    def turns(*said: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [USER, *said, USER]}

    def blocks(role: str, *content: dict[str, Any]) -> dict[str, Any]:
        return turns({"role": role, "content": list(content)})

    part = {"type": "text", "text": text}
    plain = {"type": "document", "source": {"type": "text", "data": text}}
    nested = {"type": "document", "source": {"type": "content", "content": [part]}}
    short = {"type": "document", "source": {"type": "text", "data": "a"}}
    search = {"type": "search_result", "source": "s", "title": "t", "content": [part]}
    used = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c"}
    tool = {"name": "f", "input_schema": {"type": "object"}}
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": text}}}

    def results(**fields: Any) -> dict[str, Any]:
        return turns(
            {"role": "assistant", "content": [used]},
            {"role": "user", "content": [{**result, **fields}]},
        )

    return {
        "system": turns() | {"system": text},
        "system block": turns() | {"system": [part]},
        "later system": turns({"role": "system", "content": text}),
        "user": turns({"role": "user", "content": text}),
        "block": blocks("user", part),
        "document": blocks("user", plain),
        "nested document": blocks("user", nested),
        "title": blocks("user", {**short, "title": text}),
        "context": blocks("user", {**short, "context": text}),
        "search": blocks("user", search),
        "search's title": blocks("user", {**search, "title": text, "content": []}),
        "assistant": turns({"role": "assistant", "content": text}),
        "assistant block": blocks("assistant", part),
        "thoughts": blocks("assistant", {"type": "thinking", "thinking": text}, part),
        "input": blocks("assistant", {**used, "input": {"q": text}}),
        "result": results(content=text),
        "result block": results(content=[part]),
        "failed result": results(content=text, is_error=True),
        "result's document": results(content=[plain]),
        "description": turns() | {"tools": [{**tool, "description": text}]},
        "parameters": turns() | {"tools": [{**tool, "input_schema": schema}]},
        "examples": turns() | {"tools": [{**tool, "input_examples": [{"q": text}]}]},
        "format": turns()
        | {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    }


def message_kept(text: str) -> dict[str, dict[str, Any]]:
    signed = {"type": "thinking", "thinking": "a", "signature": text}
    sealed = {"type": "redacted_thinking", "data": text}
    return {
        "user_id": {"metadata": {"user_id": text}},
        "signature": {"messages": [USER, {"role": "assistant", "content": [signed, sealed]}, USER]},
        "profile": {"user_profile_id": text},
        "service_tier": {"service_tier": text},
    }


def response_kept(text: str) -> dict[str, dict[str, Any]]:
    return {
        **chat_kept(text),
        "client": {"client_metadata": {"workspace": text}},
        "sealed": {
            "input": [USER, {"type": "reasoning", "summary": [], "encrypted_content": text}]
        },
    }


SAMPLES = {
    "chat": Sample(
        lambda text: {"messages": [{"role": "user", "content": text}]},
        lambda body: str(body["choices"][0]["message"]["content"]),
        chunked(lambda choice: choice["delta"].get("content")),
        openai_used,
        openai_error,
        chat_places,
        chat_kept,
        lambda events: openai_used(events[-1]),
        {"stream_options": {"include_usage": True}},
    ),
    "completions": Sample(
        lambda text: {"prompt": text},
        lambda body: str(body["choices"][0]["text"]),
        chunked(lambda choice: choice["text"]),
        openai_used,
        openai_error,
        lambda text: {"prompt": {"prompt": text}, "prompts": {"prompt": [text]}},
        chat_kept,
        lambda events: openai_used(events[-1]),
        {"stream_options": {"include_usage": True}},
    ),
    "responses": Sample(
        lambda text: {"input": text},
        lambda body: "".join(p["text"] for item in body["output"] for p in item["content"]),
        lambda events: "".join(
            e["delta"] for e in events if e["type"] == "response.output_text.delta"
        ),
        token_counts,
        openai_error,
        response_places,
        response_kept,
        lambda events: token_counts(events[-1]["response"]),
    ),
    "messages": Sample(
        lambda text: {"max_tokens": 64, "messages": [{"role": "user", "content": text}]},
        lambda body: "".join(block["text"] for block in body["content"]),
        lambda events: "".join(e.get("delta", {}).get("text", "") for e in events),
        token_counts,
        anthropic_error,
        message_places,
        message_kept,
        lambda events: token_counts(next(e for e in events if e["type"] == "message_delta")),
    ),
}

every = pytest.mark.parametrize("dialect", DIALECTS, ids=[d.endpoint for d in DIALECTS])


class Echo(ScriptedModel):
    """Says what it was told last, or with `all` everything it was told; and keeps all it was told."""

    def __init__(self, all: bool = False) -> None:
        super().__init__({})
        self.all = all
        self.told: list[tuple[Chat, Sampling]] = []

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        self.told.append((chat, sampling))
        said = told(chat, sampling) if self.all else chat[-1].content
        return Generation(said, prompt_tokens=11, completion_tokens=5)


def told(chat: Chat, sampling: Sampling) -> str:
    """All that a model is told, as one text."""
    found = [sampling.tools, sampling.response_format]
    for turn in chat:
        found += [turn.name, turn.content, *(text for _, text in turn.other_texts)]
        found += [call.arguments for call in turn.tool_calls]
    return "\n".join(filter(None, found))


async def private(folder: Path, all: bool = False) -> tuple[House, Echo]:
    model = Echo(all)
    options = {"detectors": ["patterns"], "key_file": str(folder / "key")}
    return await house(large=[model], around=(DefenceConfig("hide", "pseudonym", options),)), model


async def ask(h: House, dialect: Dialect, said: str, /, **fields: Any) -> Reply:
    body = {"model": "cosilo/x", **SAMPLES[dialect.endpoint].body(said), **fields}
    return await h.send(dialect.path, body, headers=HEADERS.get(dialect.endpoint))
