"""The real library `anthropic` against a gateway over HTTP, whose upstream is scripted byte by byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import AsyncAnthropic

from cosilo.gateway.accounts.accounts import Limits
from cosilo.session import DefenceConfig
from house import House, house
from listening import listening
from wire import DONE, SSE_HEAD, USAGE, Wire, apart, delta, http, model

MAIL = "ada@lovelace.example"
CARD = "4111 1111 1111 1111"
HI: list[Any] = [{"role": "user", "content": "hi"}]
LONG: list[Any] = [{"role": "user", "content": "x" * 20_000}]
WEATHER: Any = {
    "name": "weather",
    "description": f"The weather at a place; ask {MAIL} about it.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}},
}


@asynccontextmanager
async def client(
    wire: Wire, *, folder: Path | None = None, limits: Limits | None = None, **options: Any
) -> AsyncIterator[tuple[AsyncAnthropic, House]]:
    """The library before a gateway before `wire`; with a pseudonym defence where there is a folder."""
    around: tuple[DefenceConfig, ...] = ()
    if folder is not None:
        settings = {
            "detectors": ["patterns"], "conversation": "first-turn", "key_file": str(folder / "key"),
        }  # fmt: skip
        around = (DefenceConfig("hide", "pseudonym", settings),)
    async with wire.serve() as url:
        h = await house(large=[model(url, retries=0)], around=around, limits=limits)
        async with listening(h.gateway) as port:
            told: dict[str, Any] = {"api_key": "good", "max_retries": 0, **options}
            async with AsyncAnthropic(base_url=f"http://127.0.0.1:{port}", **told) as found:
                yield found, h
        await h.gateway.close()


def whole(message: dict[str, Any], finish: str = "stop", **usage: Any) -> list[Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    used = {"prompt_tokens": 11, "completion_tokens": 3, **usage}
    return [http(json.dumps({"choices": [choice], "usage": used}).encode())]


def streamed(*pieces: bytes, finish: str = "stop") -> list[Any]:
    return apart(SSE_HEAD, *pieces, delta(finish) + USAGE + DONE)


def called(index: int, arguments: str, id: str | None = None, name: str | None = None) -> bytes:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    call = {"index": index, "function": function, **({"id": id, "type": "function"} if id else {})}
    return delta(tool_calls=[call])


async def test_a_chat() -> None:
    wire = Wire(whole({"content": "Hello."}, prompt_tokens_details={"cached_tokens": 4}))
    async with client(wire) as (c, h):
        told = await c.messages.create(
            model="cosilo/x", max_tokens=50, system="Be short.", messages=HI,
            stop_sequences=["END"], metadata={"user_id": "u1"},
            extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 5},
        )  # fmt: skip
    assert [(b.type, b.text) for b in told.content if b.type == "text"] == [("text", "Hello.")]
    assert (told.stop_reason, told.stop_sequence, told.role) == ("end_turn", None, "assistant")
    assert (told.usage.input_tokens, told.usage.cache_read_input_tokens) == (7, 4)
    assert told.usage.output_tokens == 3
    sent = wire.requests[0]
    assert sent["messages"] == [{"role": "system", "content": "Be short."}, *HI]
    assert (sent["max_tokens"], sent["temperature"], sent["top_p"], sent["top_k"]) == (
        50,
        0.5,
        0.9,
        5,
    )
    assert sent["stop"] == ["END"]
    assert "u1" not in json.dumps(sent)
    assert told._request_id == h.books.settled[0][2].request


async def test_a_stream_says_the_same() -> None:
    wire = Wire(
        streamed(delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo."))
    )
    async with client(wire) as (c, _):
        async with c.messages.stream(model="cosilo/x", max_tokens=50, messages=HI) as stream:
            pieces = [text async for text in stream.text_stream]
            told = await stream.get_final_message()
        raw = await c.messages.create(model="cosilo/x", max_tokens=50, messages=HI, stream=True)
        kinds = [event.type async for event in raw]
    assert pieces == ["Hel", "lo."]
    assert told.content[0].to_dict() == {"type": "text", "text": "Hello."}
    assert (told.stop_reason, told.usage.input_tokens, told.usage.output_tokens) == (
        "end_turn",
        11,
        3,
    )
    assert kinds == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip


CALLS = [
    {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"place":"Ulm"}'},
    },
    {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"n": 1e400}'}},
]


@pytest.mark.parametrize("mixed", [False, True])
async def test_parallel_tools_whole_and_streamed(mixed: bool) -> None:
    pieces = [
        called(0, "", "c1", "weather"), called(0, '{"place":'), called(0, '"Ulm"}'),
        called(1, "", "c2", "weather"), called(1, '{"place"'), called(1, ':"Bonn"}'),
    ]  # fmt: skip
    if mixed:  # as back ends send them that write both at once
        pieces = [pieces[i] for i in (0, 3, 1, 4, 2, 5)]
    calls = [
        CALLS[0],
        {**CALLS[1], "function": {"name": "weather", "arguments": '{"place":"Bonn"}'}},
    ]
    wire = Wire(
        whole({"content": "Wait.", "tool_calls": calls}, "tool_calls"),
        streamed(delta(content="Wait."), *pieces, finish="tool_calls"),
    )
    async with client(wire) as (c, _):
        asked: dict[str, Any] = {
            "model": "cosilo/x", "max_tokens": 50, "messages": HI, "tools": [WEATHER],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": False},
        }  # fmt: skip
        told = await c.messages.create(**asked)
        async with c.messages.stream(**asked) as stream:
            again = await stream.get_final_message()
    for found in (told, again):
        assert found.stop_reason == "tool_use"
        assert [b.to_dict() for b in found.content] == [
            {"type": "text", "text": "Wait."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"place": "Ulm"}},
            {"type": "tool_use", "id": "c2", "name": "weather", "input": {"place": "Bonn"}},
        ]
    sent = wire.requests[0]
    assert sent["tool_choice"] == "required"
    assert sent["tools"] == [{
        "type": "function",
        "function": {"name": "weather", "description": WEATHER["description"],
                     "parameters": WEATHER["input_schema"]},
    }]  # fmt: skip


async def test_the_next_turn_holds_calls_and_results_by_their_ids() -> None:
    wire = Wire(
        whole({"content": None, "tool_calls": CALLS[:1]}, "tool_calls"), whole({"content": "Wet."})
    )
    async with client(wire) as (c, _):
        asked: dict[str, Any] = {"model": "cosilo/x", "max_tokens": 50, "tools": [WEATHER]}
        told = await c.messages.create(messages=HI, **asked)
        result: Any = {"type": "tool_result", "tool_use_id": "c1", "content": "rain"}
        failed: Any = {**result, "tool_use_id": "c2", "is_error": True,
                       "content": [{"type": "text", "text": "no"}]}  # fmt: skip
        more: Any = {"role": "user", "content": [result, failed, {"type": "text", "text": "So?"}]}
        messages: Any = [*HI, {"role": "assistant", "content": told.content}, more]
        await c.messages.create(messages=messages, **asked)
    assert wire.requests[1]["messages"] == [
        *HI,
        {"role": "assistant", "content": "", "tool_calls": CALLS[:1]},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
        {"role": "tool", "content": "The tool failed:\nno", "tool_call_id": "c2"},
        {"role": "user", "content": "So?"},
    ]


THOUGHT = {"reasoning_content": "2+2", "content": "4"}


async def test_thinking_is_shown_to_those_who_ask_and_comes_back() -> None:
    pieces = (delta(reasoning_content="2+"), delta(reasoning_content="2"), delta(content="4"))
    wire = Wire(whole(THOUGHT), streamed(*pieces), whole(THOUGHT))
    async with client(wire) as (c, _):
        asked: dict[str, Any] = {"model": "cosilo/x", "max_tokens": 5000}
        thinking: Any = {"type": "enabled", "budget_tokens": 2000}
        told = await c.messages.create(messages=HI, thinking=thinking, **asked)
        async with c.messages.stream(messages=HI, thinking=thinking, **asked) as stream:
            again = await stream.get_final_message()
        messages: Any = [*HI, {"role": "assistant", "content": told.content}, *HI]
        plain = await c.messages.create(messages=messages, **asked)
    blocks = [
        {"type": "thinking", "thinking": "2+2", "signature": "cosilo"},
        {"type": "text", "text": "4"},
    ]
    assert [b.to_dict() for b in told.content] == [b.to_dict() for b in again.content] == blocks
    assert [b.to_dict() for b in plain.content] == blocks[1:]
    assert wire.requests[0]["reasoning_effort"] == "low"
    assert wire.requests[2]["messages"][1] == {"role": "assistant", **THOUGHT}


SIGNED = {"google": {"thought_signature": "Q2lBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWg=="}}


@pytest.mark.parametrize("stream", [False, True])
async def test_signatures_of_the_upstream_come_back_to_it(stream: bool) -> None:
    call = {**CALLS[0], "extra_content": SIGNED}
    message: dict[str, Any] = {"content": None, "tool_calls": [call], "extra_content": {"a": 1}}
    piece = delta(tool_calls=[{"index": 0, **call}], extra_content={"a": 1})
    first = streamed(piece, finish="tool_calls") if stream else whole(message, "tool_calls")
    wire = Wire(first, whole({"content": "Wet."}))
    async with client(wire) as (c, _):
        asked: dict[str, Any] = {"model": "cosilo/x", "max_tokens": 50, "tools": [WEATHER]}
        if stream:
            async with c.messages.stream(messages=HI, **asked) as events:
                told = await events.get_final_message()
        else:
            told = await c.messages.create(messages=HI, **asked)
        result: Any = {"type": "tool_result", "tool_use_id": "c1", "content": "rain"}
        messages: Any = [
            *HI, {"role": "assistant", "content": told.content}, {"role": "user", "content": [result]}
        ]  # fmt: skip
        await c.messages.create(messages=messages, **asked)
    assert wire.requests[1]["messages"][1] == {
        "role": "assistant", "content": "", "tool_calls": [call], "extra_content": {"a": 1},
    }  # fmt: skip


class Person(pydantic.BaseModel):
    name: str
    age: int


async def test_structured_output() -> None:
    wire = Wire(whole({"content": '{"name":"Ada","age":36}'}))
    async with client(wire) as (c, _):
        told = await c.messages.parse(
            model="cosilo/x", max_tokens=50, messages=HI, output_format=Person
        )
    assert told.parsed_output == Person(name="Ada", age=36)
    form = wire.requests[0]["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    assert set(form["json_schema"]["schema"]["properties"]) == {"name", "age"}


async def test_the_tool_runner() -> None:
    @anthropic.beta_async_tool
    async def weather(place: str) -> str:
        """The weather.

        Args:
            place: a town.
        """
        return f"rain in {place}"

    wire = Wire(
        whole({"content": None, "tool_calls": CALLS[:1]}, "tool_calls"), whole({"content": "Wet."})
    )
    async with client(wire) as (c, _):
        told = await c.beta.messages.tool_runner(
            model="cosilo/x", max_tokens=50, messages=HI, tools=[weather]
        ).until_done()
    assert told.content[0].to_dict()["text"] == "Wet."
    assert wire.requests[1]["messages"][2]["content"] == "rain in Ulm"


PRIVATE = [MAIL, CARD]


def everywhere() -> dict[str, Any]:
    """A request with a private value in each place that has a text."""
    used: Any = {
        "type": "tool_use",
        "id": "c0",
        "name": "weather",
        "input": {"place": MAIL, "n": [CARD]},
    }
    nested: Any = [
        {"type": "text", "text": MAIL},
        {"type": "search_result", "source": f"https://x.example/{MAIL}", "title": MAIL,
         "content": [{"type": "text", "text": CARD}]},
    ]  # fmt: skip
    document: Any = {
        "type": "document", "title": MAIL, "context": CARD,
        "source": {"type": "text", "media_type": "text/plain", "data": f"About {MAIL}"},
    }  # fmt: skip
    return {
        "model": "cosilo/x",
        "max_tokens": 50,
        "system": [
            {"type": "text", "text": f"You serve {MAIL}.", "cache_control": {"type": "ephemeral"}}
        ],
        "metadata": {"user_id": MAIL},
        "stop_sequences": [f"{MAIL}!"],
        "tools": [{**WEATHER, "input_examples": [{"place": MAIL}]}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": f"I am {MAIL}"}, document]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": f"about {CARD}", "signature": MAIL},
                {"type": "redacted_thinking", "data": MAIL},
                {"type": "text", "text": CARD}, used,
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c0", "content": nested},
                {"type": "text", "text": f"pay with {CARD}"},
            ]},
        ],
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_private_values_leave_in_no_place_and_come_back(stream: bool, tmp_path: Path) -> None:
    """The upstream is first asked for its placeholder, and then answers with it in every place."""
    wire = Wire(whole({"content": "ok"}))
    async with client(wire, folder=tmp_path) as (c, _):
        await c.messages.create(**everywhere())
        sent = wire.requests[0]
        for value in (MAIL, CARD, "lovelace", "4111"):
            assert value not in json.dumps(sent)
        hidden = sent["messages"][1]["content"].partition("\n")[0].removeprefix("I am ")
        half = len(hidden) // 2
        arguments = json.dumps({"place": f"at {hidden}"})
        call = {**CALLS[0], "function": {"name": "weather", "arguments": arguments}}
        cut = arguments.index(hidden) + half
        first, second = hidden[:half], hidden[half:]
        if stream:
            answer = streamed(
                delta(reasoning_content=f"It is {first}"), delta(reasoning_content=second),
                delta(content=f"To {first}"), delta(content=f"{second}."),
                called(0, "", "c1", "weather"), called(0, arguments[:cut]), called(0, arguments[cut:]),
                finish="tool_calls",
            )  # fmt: skip
        else:
            said = {"content": f"To {hidden}.", "reasoning_content": f"It is {hidden}"}
            answer = whole({**said, "tool_calls": [call]}, "tool_calls")
        wire.answers = [answer]
        asked = {**everywhere(), "thinking": {"type": "adaptive"}}
        if stream:
            async with c.messages.stream(**asked) as events:
                told = await events.get_final_message()
        else:
            told = await c.messages.create(**asked)
    blocks: list[Any] = [b.to_dict() for b in told.content]
    # Of a stream the end of each may come last: what follows may forbid that it is restored.
    assert "".join(b["thinking"] for b in blocks if b["type"] == "thinking") == f"It is {MAIL}"
    assert "".join(b["text"] for b in blocks if b["type"] == "text") == f"To {MAIL}."
    assert [b["input"] for b in blocks if b["type"] == "tool_use"] == [{"place": f"at {MAIL}"}]


@pytest.mark.parametrize(
    ("answer", "fields", "options", "error"),
    [
        (None, {}, {"api_key": "bad"}, anthropic.AuthenticationError),
        (None, {"model": "cosilo/y"}, {}, anthropic.NotFoundError),
        (None, {"max_tokens": -1}, {}, anthropic.BadRequestError),
        (None, {"messages": LONG}, {}, anthropic.ContentTooLargeError),
        (429, {}, {}, anthropic.RateLimitError),
        (500, {}, {}, anthropic.InternalServerError),
    ],
    ids=["key", "model", "field", "size", "upstream 429", "upstream 500"],
)  # fmt: skip
async def test_refusals_become_the_librarys_exceptions(
    answer: int | None,
    fields: dict[str, Any],
    options: dict[str, Any],
    error: type[anthropic.APIStatusError],
) -> None:
    wire = Wire([http(b"{}", answer or 200)])
    asked: dict[str, Any] = {"model": "cosilo/x", "max_tokens": 50, "messages": HI, **fields}
    async with client(wire, **options) as (c, _):
        for call in (c.messages.create(**asked), c.messages.create(**asked, stream=True)):
            with pytest.raises(error) as caught:
                await call
            body: Any = caught.value.body
            assert (body["type"], bool(body["error"]["message"])) == ("error", True)
            assert caught.value.type == body["error"]["type"]
            assert caught.value.request_id


async def test_a_budget_that_is_out_is_not_tried_again() -> None:
    wire = Wire(whole({"content": "Hello."}))
    async with client(wire, limits=Limits(usd=0.0), max_retries=3) as (c, _):
        with pytest.raises(anthropic.RateLimitError):
            await c.messages.create(model="cosilo/x", max_tokens=50, messages=HI)
    assert wire.requests == []


async def test_a_stream_that_breaks_off_raises() -> None:
    wire = Wire([SSE_HEAD + delta(content="Hel")])
    async with client(wire) as (c, _):
        with pytest.raises(anthropic.APIStatusError, match="error"):
            async with c.messages.stream(model="cosilo/x", max_tokens=50, messages=HI) as stream:
                assert [text async for text in stream.text_stream] == ["Hel"]


async def test_tokens_are_not_counted_by_guessing_and_models_are_listed() -> None:
    wire = Wire(whole({"content": "Hello."}))
    async with client(wire) as (c, _):
        with pytest.raises(anthropic.NotFoundError, match="how many tokens"):
            await c.messages.count_tokens(model="cosilo/x", messages=HI)
        assert [m.id async for m in await c.models.list()] == ["cosilo/x"]
        assert (await c.models.retrieve("cosilo/x")).display_name == "cosilo/x"
        with pytest.raises(anthropic.NotFoundError):
            await c.models.retrieve("cosilo/y")
    assert wire.requests == []


async def test_a_bearer_and_a_base_url_that_ends_in_v1() -> None:
    wire = Wire(whole({"content": "Hello."}))
    async with client(wire, api_key=None, auth_token="good") as (c, _):
        c.base_url = f"{c.base_url}/v1"
        told = await c.messages.create(model="cosilo/x", max_tokens=50, messages=HI)
    assert told.content[0].to_dict()["text"] == "Hello."
