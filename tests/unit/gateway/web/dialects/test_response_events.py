"""OpenAI's Responses API: a reply becomes items and events."""

from __future__ import annotations

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

from cosilo.gateway.refusals import Refusal
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


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


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
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
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
