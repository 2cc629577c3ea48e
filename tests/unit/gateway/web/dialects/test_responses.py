"""OpenAI's Responses API: what is asked becomes turns, and a reply becomes items and events."""

from __future__ import annotations

import contextlib
import copy
import json
import typing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from cosilo.gateway.refusals import Refusal, RequestError
from cosilo.gateway.web.dialects.base import Continuation, Envelope
from cosilo.gateway.web.dialects.responses import Responses, read_response
from cosilo.types import Delta, Generation, TokenLogprob, ToolCall, ToolCallDelta, Turn, assemble

DIALECT = Responses()
F = {"type": "function", "name": "f", "parameters": {"type": "object"}}
EVENTS: dict[str, Any] = {
    typing.get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in typing.get_args(typing.get_args(ResponseStreamEvent)[0])
}
"""The events of OpenAI's library, by their types."""


def read(**fields: Any) -> Continuation:
    body = {"model": "cosilo/x", "input": "hi", **fields}
    return read_response(json.dumps(body, separators=(",", ":")).encode())


def turns(*items: Any) -> tuple[Turn, ...]:
    return read(input=list(items)).chats[0]


def refused(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(**fields)
    return caught.value


def said(part: Any) -> dict[str, Any]:
    """A user's message of one text, or of one part."""
    return {"role": "user", "content": part if isinstance(part, str) else [part]}


def around(**wanted: Any) -> Envelope:
    return Envelope("r", 7, "cosilo/x", Continuation(model="cosilo/x", chats=(), **wanted))


def whole(generation: Generation, **wanted: Any) -> dict[str, Any]:
    body = DIALECT.whole(around(**wanted), [generation])
    Response.model_validate_json(body)
    return dict(json.loads(body))


def streamed(*deltas: Delta, **wanted: Any) -> list[dict[str, Any]]:
    """The events of a stream, each valid for OpenAI's own library."""
    events = DIALECT.events(around(**wanted))
    generation = assemble(deltas)
    data = events.first(0) + b"".join(events.piece(0, d) for d in deltas)
    data += events.last(0, generation) + events.end([generation], {"by": "large"})
    return parsed(data)


def parsed(data: bytes) -> list[dict[str, Any]]:
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        if block.startswith(": cosilo "):
            continue
        head, _, rest = block.partition("\n")
        event = json.loads(rest.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        EVENTS[event["type"]].model_validate(event)
        found.append(event)
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    return found


# What is asked.


def test_a_text_and_instructions_are_a_chat() -> None:
    found = read(instructions="be kind")
    assert found.chats == ((Turn("system", "be kind"), Turn("user", "hi")),)
    assert (found.n, found.stream, found.sampling, found.others) == (1, False, {}, {})


def test_null_is_not_given() -> None:
    names = ("instructions", "max_output_tokens", "temperature", "tools", "tool_choice", "text",
             "reasoning", "include", "previous_response_id", "conversation", "prompt", "background",
             "stream", "truncation", "metadata", "top_logprobs", "a_field_nobody_knows")  # fmt: skip
    assert read(**dict.fromkeys(names)) == read()


def test_messages_in_every_form() -> None:
    assert turns(
        {"role": "developer", "content": "a"},
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "b"}]},
        {"role": "user", "content": [{"type": "input_text", "text": t} for t in ("c", "d")]},
        {"role": "assistant", "content": "e"},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
         "content": [{"type": "output_text", "text": "f", "annotations": []}]},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ) == (
        Turn("system", "a"), Turn("system", "b"), Turn("user", "c\nd"), Turn("assistant", "e"),
        Turn("assistant", "f"), Turn("assistant", "", other_texts=(("refusal", "No."),)),
    )  # fmt: skip


def test_what_an_assistant_thinks_says_and_calls_is_one_turn() -> None:
    thought = {
        "type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}],
        "content": [{"type": "reasoning_text", "text": "t"}], "encrypted_content": "x",
    }  # fmt: skip
    calls = [
        {"type": "function_call", "call_id": f"c{i}", "name": "f", "arguments": "{}"}
        for i in range(3)
    ]
    outputs = [
        {"type": "function_call_output", "call_id": f"c{i}", "output": "4"} for i in range(3)
    ]
    ok = {"role": "assistant", "content": "ok"}
    made = [ToolCall(f"c{i}", "f", "{}") for i in range(3)]
    others = (("reasoning_content", "t"), ("reasoning", "s"))
    assert turns(thought, ok, *calls[:2], *outputs[:2], calls[2], outputs[2], ok, ok) == (
        Turn("assistant", "ok", tool_calls=tuple(made[:2]), other_texts=others),
        Turn("tool", "4", tool_call_id="c0"),
        Turn("tool", "4", tool_call_id="c1"),
        Turn("assistant", "", tool_calls=(made[2],)),
        Turn("tool", "4", tool_call_id="c2"),
        Turn("assistant", "ok"),
        Turn("assistant", "ok"),
    )
    thinks_again = turns(calls[0], thought, calls[1])
    assert [len(t.tool_calls) for t in thinks_again] == [1, 1]


def test_a_thought_that_is_sealed_is_no_turn() -> None:
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    assert turns(said("a"), sealed, said("b")) == (Turn("user", "a"), Turn("user", "b"))
    assert turns(sealed, {"role": "assistant", "content": "c"}) == (Turn("assistant", "c"),)


def test_an_output_may_have_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    [turn] = turns({"type": "function_call_output", "call_id": "c", "output": parts})
    assert turn == Turn("tool", "a\nb", tool_call_id="c")


def test_tools_and_formats_are_those_of_a_chat_with_every_number_as_it_was_written() -> None:
    body = (
        b'{"model":"m","input":"x","tools":[{"type":"function","name":"f","description":"d",'
        b'"strict":true,"parameters":{"maximum":1.50,"minimum":1e400}}],'
        b'"tool_choice":{"type":"function","name":"f"},'
        b'"text":{"format":{"type":"json_schema","name":"s","strict":true,"schema":{"multipleOf":0.10}}}}'
    )
    found = read_response(body).sampling
    assert found["tools"] == (
        '[{"type":"function","function":{"name":"f","description":"d",'
        '"parameters":{"maximum":1.50,"minimum":1e400},"strict":true}}]'
    )
    assert json.loads(found["tool_choice"]) == {"type": "function", "function": {"name": "f"}}
    assert found["response_format"] == (
        '{"type":"json_schema","json_schema":{"name":"s","schema":{"multipleOf":0.10},"strict":true}}'
    )
    assert "response_format" not in read(text={"format": {"type": "text"}}).sampling
    assert read(text={"format": {"type": "json_object"}}).sampling == {
        "response_format": '{"type":"json_object"}'
    }
    assert read(tools=[]).sampling == {}
    assert read(tool_choice="auto").sampling == {}
    assert read(tools=[F], tool_choice="required").sampling["tool_choice"] == '"required"'


def test_of_a_list_of_allowed_tools_the_others_are_left_out() -> None:
    allowed = {"type": "allowed_tools", "mode": "required",
               "tools": [{"type": "function", "name": "g"}]}  # fmt: skip
    found = read(tools=[F, {**F, "name": "g"}], tool_choice=allowed).sampling
    assert [t["function"]["name"] for t in json.loads(found["tools"])] == ["g"]
    assert found["tool_choice"] == '"required"'


CRM = {"type": "namespace", "name": "crm", "description": "Customers.",
       "tools": [{**F, "description": "Finds one."}, {**F, "name": "g"}]}  # fmt: skip


def test_tools_of_a_group_are_functions_that_are_told_by_their_two_names_again() -> None:
    found = read(tools=[F, CRM])
    functions = [t["function"] for t in json.loads(found.sampling["tools"])]
    assert [(f["name"], f.get("description")) for f in functions] == [
        ("f", None), ("crm__f", "Customers.\n\nFinds one."), ("crm__g", "Customers."),
    ]  # fmt: skip
    calls = tuple(ToolCall(f"c{i}", name, "{}") for i, name in enumerate(["f", "crm__f", "other"]))
    reply = Generation("", tool_calls=calls)
    items = whole(reply, echo=found.echo)["output"]
    assert [(i["name"], i.get("namespace")) for i in items] == [
        ("f", None), ("f", "crm"), ("other", None),
    ]  # fmt: skip
    [turn] = turns(*items)
    assert turn.tool_calls == calls
    pieces = [Delta(tool_calls=(ToolCallDelta(1, "c1", "crm__f"),)), Delta(finish_reason="stop")]
    for deltas in (pieces, [*pieces, Delta(tool_calls=(ToolCallDelta(1, arguments="{}"),))]):
        events = streamed(*deltas, echo=found.echo)
        said_of = [e["item"] for e in events if "item" in e]
        assert [(i["name"], i["namespace"]) for i in said_of] == [("f", "crm")] * 2


def test_how_the_reply_is_drawn() -> None:
    found = read(
        max_output_tokens=9, temperature=0.5, top_p=0.9, top_logprobs=3, stream=True,
        stream_options={"include_obfuscation": False}, truncation="auto", max_tool_calls=3,
        reasoning={"effort": "low", "summary": "auto"}, text={"verbosity": "high"},
        parallel_tool_calls=False, user="ann", metadata={"a": "b"},
        include=["reasoning.encrypted_content"],
    )  # fmt: skip
    assert found.sampling == {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_logprobs": 3,
    }  # fmt: skip
    assert (found.stream, found.logprobs, found.user) == (True, 3, b'"ann"')
    assert found.others["reasoning_effort"] == b'"low"'
    assert found.others["verbosity"] == b'"high"'
    assert found.others["parallel_tool_calls"] == b"false"
    assert read(include=["message.output_text.logprobs"]).sampling == {"top_logprobs": 1}
    assert read(include=["message.output_text.logprobs"]).logprobs == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
        ({"input": ["a", {"role": "user", "content": "x"}]}, "input[0]"),
        ({"input": [said("a"), said({"type": "input_text", "text": 3})]}, "input[1].content[0].text"),
        ({"input": [said({"type": "input_text"})]}, "input[0].content[0].text"),
        ({"input": [said({"type": "input_audio"})]}, "input[0].content[0]"),
        ({"input": [said({"type": "refusal"}) | {"role": "assistant"}]},
         "input[0].content[0].refusal"),
        ({"input": [said({"type": "refusal", "refusal": "No."})]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call_output", "role": "assistant", "output": "x"}]},
         "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "action": {}}]}, "input[0].type"),
        ({"input": [{"type": "computer_call_output", "output": {}}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]}, "input"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "messages"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"seed": 3}, "seed"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "c"}}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"truncation": "middle"}, "truncation"),
        ({"stream_options": {}}, "stream_options"),
        ({"include": ["everything"]}, "include[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"reasoning": {"effort": "vast"}}, "reasoning.effort"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "s"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"tools": [F, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "custom", "name": "f"}]}, "tools[0].type"),
        ({"tools": [F, {**CRM, "tools": [{"type": "custom", "name": "f"}]}]}, "tools[1].tools[0].type"),
        ({"tools": [{**CRM, "tools": [{"type": "function"}]}]}, "tools[0].tools[0].name"),
        ({"tools": [F, F]}, "tools[1].name"),
        ({"tools": [{**F, "name": "crm__g"}, CRM]}, "tools[1].tools[1].name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
        ({"tools": [{**F, "parameters": "x"}]}, "tools[0].parameters"),
        ({"tools": [F], "tool_choice": "always"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert (error.status, error.param) == (400, param)
    assert param.split("[")[0].split(".")[0] in str(error)


def test_no_refusal_quotes_what_stood_in_the_field() -> None:
    secret = "Ada-Lovelace-1815"
    for fields in (
        {"input": [{"role": secret, "content": "x"}]},
        {"input": [{"type": secret}]},
        {"input": [{"role": "user", "content": [{"type": secret}]}]},
        {"input": {secret: secret}},
        {"include": [secret]},
        {"truncation": secret},
        {"previous_response_id": secret},
        {"reasoning": {"effort": secret}},
        {"text": {"verbosity": secret}},
        {"text": {"format": {"type": secret}}},
        {"tools": [{"type": secret}]},
        {"tools": [F], "tool_choice": secret},
        {"tools": [F], "tool_choice": {"type": secret}},
        {"tools": [F], "tool_choice": {"type": "function", "name": secret}},
    ):
        assert secret not in str(refused(**fields))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=10,
)
_ITEM = st.dictionaries(
    st.sampled_from(["type", "role", "content", "call_id", "name", "arguments", "output", "summary",
                     "extra_content", "x"]),
    st.sampled_from(["message", "user", "assistant", "reasoning", "function_call",
                     "function_call_output"]) | _JSON,
    max_size=6,
)  # fmt: skip
_FIELDS = st.fixed_dictionaries({}, optional={
    **{name: _JSON for name in ("model", "instructions", "text", "reasoning", "tools", "tool_choice",
                                "include", "user", "stream", "stream_options", "truncation", "y")},
    "input": st.lists(_ITEM, max_size=4) | _JSON,
})  # fmt: skip


@given(_FIELDS)
@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
def test_any_json_is_a_request_or_a_refusal(fields: dict[str, Any]) -> None:
    for body in (fields, {"model": "m", "input": "x", **fields}):
        with contextlib.suppress(RequestError):
            read_response(json.dumps(body).encode())


# What is answered.

_WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
_CALLS = st.lists(
    st.builds(
        ToolCall,
        id=st.uuids().map(str),
        name=_WORDS,
        arguments=st.just("") | _WORDS,
        extra=st.sampled_from(["", '{"signature":"Q2lB"}']),
    ),
    max_size=3,
)
_OTHERS = st.fixed_dictionaries(
    {}, optional={name: _WORDS for name in ("refusal", "reasoning_content", "reasoning")}
).map(lambda d: tuple((n, d[n]) for n in ("refusal", "reasoning_content", "reasoning") if n in d))
_REPLIES = st.builds(
    Generation,
    text=st.just("") | _WORDS,
    tool_calls=_CALLS.map(tuple),
    finish_reason=st.sampled_from(["stop", "length", "content_filter", "tool_calls"]),
    prompt_tokens=st.integers(-1, 99),
    completion_tokens=st.integers(-1, 99),
    cached_tokens=st.integers(-1, 200),
    other_texts=_OTHERS,
    extra=st.sampled_from(["", '{"google":1}']),
)


@given(st.lists(_REPLIES, min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60)
def test_replies_that_are_sent_back_are_the_turns_they_were(replies: list[Generation]) -> None:
    """A conversation as clients go on: what was answered, what tools said, the next question."""
    items: list[Any] = [said("a")]
    made = [Turn("user", "a")]
    for reply in replies:
        items += whole(reply)["output"]
        made.append(
            Turn(
                "assistant", reply.text, tool_calls=reply.tool_calls,
                other_texts=reply.other_texts, extra=reply.extra,
            )
        )  # fmt: skip
        for call in reply.tool_calls:
            items.append({"type": "function_call_output", "call_id": call.id, "output": "4"})
            made.append(Turn("tool", "4", tool_call_id=call.id))
        items.append(said("b"))
        made.append(Turn("user", "b"))
    assert turns(*items) == tuple(made)


def cut(draw: Any, reply: Generation) -> list[Delta]:
    """`reply` in pieces, of which those of different kinds come in any order."""
    pieces: list[list[Delta]] = []

    def halves(text: str) -> list[str]:
        at = draw(st.integers(0, len(text)))
        return [part for part in (text[:at], text[at:]) if part]

    pieces.append([Delta(text=t) for t in halves(reply.text)])
    for name, text in reply.other_texts:
        pieces.append([Delta(other_texts=((name, t),)) for t in halves(text)])
    for i, call in enumerate(reply.tool_calls):
        opened = ToolCallDelta(i, call.id, call.name, "", call.extra)
        pieces.append(
            [Delta(tool_calls=(opened,))]
            + [Delta(tool_calls=(ToolCallDelta(i, arguments=t),)) for t in halves(call.arguments)]
        )
    found: list[Delta] = []
    while pieces := [p for p in pieces if p]:
        found.append(draw(st.sampled_from(pieces)).pop(0))
    last = Delta(
        extra=reply.extra, finish_reason=reply.finish_reason, prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens, cached_tokens=reply.cached_tokens,
    )  # fmt: skip
    return [*found, last]


@given(st.data(), _REPLIES)
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60, deadline=None)
def test_a_stream_says_what_the_whole_answer_says(data: Any, reply: Generation) -> None:
    deltas = cut(data.draw, reply)
    events = streamed(*deltas)
    final = events[-1]["response"]
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == final["output"]
    answer = whole(assemble(deltas))
    assert {**final, "output": sorted_by_id(final)} == {**answer, "output": sorted_by_id(answer)}
    state = ResponseStreamState[Any](input_tools=[], text_format=omit)
    texts: dict[tuple[Any, ...], str] = {}
    for event in events:
        state.handle_event(EVENTS[event["type"]].model_validate(event))
        kind, _, what = event["type"].rpartition(".")
        place = kind, event.get("output_index"), event.get("content_index")
        if what == "delta":
            texts[place] = texts.get(place, "") + event["delta"]
        elif "item_id" in event and what == "done" and "part" not in event:
            ended = next(event[n] for n in ("text", "refusal", "arguments") if n in event)
            assert texts.get(place, "") == ended


def sorted_by_id(response: dict[str, Any]) -> list[dict[str, Any]]:
    """What it says, in whatever order it began; the last item alone says whether it is complete."""
    items = copy.deepcopy(response["output"])
    for item in items:
        del item["status"]
        if item["type"] == "message":
            item["content"].sort(key=lambda part: str(part["type"]))
    return sorted(items, key=lambda item: str(item["id"]))


def test_the_events_of_a_text_come_in_openais_order() -> None:
    events = streamed(Delta("Hel"), Delta("lo"), Delta(finish_reason="stop", prompt_tokens=3))
    assert [e["type"].removeprefix("response.") for e in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [e["response"]["status"] for e in (events[0], events[1], events[-1])] == [
        "in_progress", "in_progress", "completed",
    ]  # fmt: skip
    assert events[0]["response"]["output"] == []
    assert events[-1]["cosilo"] == {"by": "large"}
    assert events[-1]["response"]["usage"]["input_tokens"] == 3


def test_the_events_of_thoughts_and_parallel_calls() -> None:
    first, second = ToolCallDelta(0, "c0", "f", ""), ToolCallDelta(1, "c1", "g", "")
    events = streamed(
        Delta(other_texts=(("reasoning_content", "hm"),)),
        Delta(other_texts=(("reasoning", "so"),)),
        Delta(tool_calls=(first,)),
        Delta(tool_calls=(ToolCallDelta(0, arguments='{"a"'),)),
        Delta(tool_calls=(second, ToolCallDelta(0, arguments=":1}"))),
        Delta(finish_reason="tool_calls"),
    )
    assert [e["type"].removeprefix("response.") for e in events] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta",
        "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "output_item.added",
        "reasoning_text.done", "content_part.done", "reasoning_summary_text.done",
        "reasoning_summary_part.done", "output_item.done",
        "function_call_arguments.done", "output_item.done",
        "function_call_arguments.done", "output_item.done", "completed",
    ]  # fmt: skip
    added = [e["item"] for e in events if e["type"] == "response.output_item.added"]
    assert [(i["type"], i.get("call_id"), i.get("name")) for i in added] == [
        ("reasoning", None, None), ("function_call", "c0", "f"), ("function_call", "c1", "g"),
    ]  # fmt: skip


def test_an_id_and_a_name_that_come_in_pieces_are_whole_when_the_item_begins() -> None:
    events = streamed(
        Delta(tool_calls=(ToolCallDelta(0, "c", "get_"),)),
        Delta(tool_calls=(ToolCallDelta(0, "0", "weather"),)),
        Delta(tool_calls=(ToolCallDelta(0, arguments="{}"),)),
    )
    [item] = [e["item"] for e in events if e["type"] == "response.output_item.added"]
    assert (item["call_id"], item["name"]) == ("c0", "get_weather")


def test_a_call_without_an_id_gets_one_that_its_result_can_name() -> None:
    legacy = ToolCall("", "f", "{}", legacy=True)
    [item] = whole(Generation("", tool_calls=(legacy,)))["output"]
    assert item["call_id"] == "call_r_0"
    [event] = [
        e for e in streamed(Delta(tool_calls=(ToolCallDelta(0, "", "f", "{}", legacy=True),)))
        if e["type"] == "response.output_item.added"
    ]  # fmt: skip
    assert event["item"]["call_id"] == "call_r_0"


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_a_reply_that_was_cut_off_says_so(finish: Any, reason: str) -> None:
    answer = whole(Generation("a", finish_reason=finish))
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert [i["status"] for i in answer["output"]] == ["incomplete"]
    last = streamed(Delta("a"), Delta(finish_reason=finish))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")


def test_an_empty_reply_is_an_empty_message() -> None:
    [item] = whole(Generation(""))["output"]
    assert item["content"] == [
        {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    ]
    assert streamed(Delta(finish_reason="stop"))[-1]["response"]["output"] == [item]


def test_usage_and_what_the_client_set_stand_in_the_answer() -> None:
    body = {
        "model": "cosilo/x", "input": "hi", "instructions": "Be kind to Ada.", "temperature": 0.5,
        "tools": [F], "metadata": {"a": "b"}, "store": True, "background": False,
        "max_output_tokens": 9, "text": {"format": {"type": "json_object"}}, "user": "ann",
        "parallel_tool_calls": False, "reasoning": {"effort": "low"},
    }  # fmt: skip
    wanted = read_response(json.dumps(body).encode())
    reply = Generation("a", prompt_tokens=9, completion_tokens=2, cached_tokens=7)
    told = json.loads(DIALECT.whole(Envelope("r", 7, "cosilo/x", wanted), [reply]))
    same = body.keys() - {"store", "input", "background"}
    assert {k: told[k] for k in same} == {k: body[k] for k in same}
    assert (told["id"], told["created_at"], told["store"], told["background"]) == (
        "resp_r", 7, False, False,
    )  # fmt: skip
    assert told["usage"] == {
        "input_tokens": 9, "output_tokens": 2, "total_tokens": 11,
        "input_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip


def test_log_probabilities_where_they_are_wanted() -> None:
    token = TokenLogprob("a", -0.5, (("a", -0.5), ("b", float("-inf"))))
    [item] = whole(Generation("a", tokens=(token,)), logprobs=2)["output"]
    [shown] = item["content"][0]["logprobs"]
    assert (shown["token"], shown["top_logprobs"][1]["logprob"]) == ("a", -9999.0)
    [delta] = [
        e for e in streamed(Delta("a", tokens=(token,)), logprobs=0)
        if e["type"] == "response.output_text.delta"
    ]  # fmt: skip
    assert delta["logprobs"][0]["token"] == "a"


def test_a_token_whose_text_is_held_back_is_shown_with_the_text() -> None:
    first, second = TokenLogprob("PER", -0.5), TokenLogprob("SON", -0.1)
    call = ToolCallDelta(0, "c", "f", "{}")
    events = streamed(
        Delta(tokens=(first,)),
        Delta("Ada", tokens=(second,)),
        Delta(tool_calls=(call,)),
        logprobs=0,
    )
    [delta] = [e for e in events if e["type"] == "response.output_text.delta"]
    assert [shown["token"] for shown in delta["logprobs"]] == ["PER", "SON"]
    events = streamed(Delta(tokens=(first,)), Delta(tool_calls=(call,)), logprobs=0)
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["function_call"]


def test_what_a_reply_says_more_at_its_end_than_in_its_pieces_is_in_the_stream() -> None:
    events = DIALECT.events(around())
    whole = Generation(
        "abc", tool_calls=(ToolCall("c", "f", "{}"),),
        other_texts=(("refusal", "No."), ("reasoning_content", "t"), ("reasoning", "s")),
    )  # fmt: skip
    data = events.first(0) + events.piece(0, Delta("a")) + events.last(0, whole)
    found = parsed(data + events.end([whole], {}))
    assert [i["type"] for i in found[-1]["response"]["output"]] == [
        "message", "reasoning", "function_call",
    ]  # fmt: skip
    opened = [e["type"] for e in found if e["type"].endswith(".added")]
    assert sorted(opened) == sorted(
        ["response.output_item.added"] * 3 + ["response.content_part.added"] * 3
        + ["response.reasoning_summary_part.added"]
    )  # fmt: skip


def test_a_stream_that_cannot_go_on_fails() -> None:
    for status, code in ((502, "server_error"), (429, "rate_limit_exceeded")):
        events = DIALECT.events(around())
        told = Refusal(status, "it is down", "upstream_error", "upstream_unreachable", "model")
        found = parsed(events.first(0) + events.piece(0, Delta("a")) + events.error(told))
        error, failed = found[-2:]
        assert (error["type"], error["code"], error["message"], error["param"]) == (
            "error", "upstream_unreachable", "it is down", "model",
        )  # fmt: skip
        assert failed["response"]["status"] == "failed"
        assert failed["response"]["error"] == {"code": code, "message": "it is down"}
