"""Anthropic's shape: what its requests become, and what becomes of answers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from cosilo.gateway.refusals import Refusal, RequestError
from cosilo.gateway.web.dialects.base import Continuation, Envelope
from cosilo.gateway.web.dialects.blocks import Extras, MessageEvents, sealed, unsealed
from cosilo.gateway.web.dialects.messages import Messages, read_message
from cosilo.types import Delta, Generation, ToolCall, ToolCallDelta, Turn, assemble

SECRET = "Ottilie Katzenstein"
TOOL = {"name": "f", "input_schema": {"type": "object"}}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": SECRET}}


def asked(*content: Any, role: str = "user", **fields: Any) -> Continuation:
    """What a request becomes whose only message has these blocks."""
    said = content[0] if len(content) == 1 and isinstance(content[0], str) else list(content)
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": role, "content": said}], **fields}
    return read_message(json.dumps(body).encode())


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def test_texts_documents_and_searches_become_text() -> None:
    plain = {"type": "text", "media_type": "text/plain", "data": "c"}
    nested = {"type": "content", "content": [text("d"), text("e")]}
    chat = asked(
        text("a"),
        {"type": "document", "source": plain, "title": "t", "context": "x", "citations": None},
        {"type": "document", "source": nested, "citations": {"enabled": False}},
        {"type": "search_result", "source": "s", "title": "u", "content": [text("f")]},
        system=[text("one"), text("two")],
    ).chats[0]
    assert chat == (Turn("system", "one\ntwo"), Turn("user", "a\nt\nx\nc\nd\ne\nu\ns\nf"))


def test_results_come_before_what_the_user_says() -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": "r"}
    assert asked(text("a"), result, text("b")).chats[0] == (
        Turn("tool", "r", tool_call_id="c"),
        Turn("user", "a\nb"),
    )
    assert asked({**result, "content": None}).chats[0] == (Turn("tool", "", tool_call_id="c"),)


def test_what_the_model_said_before() -> None:
    used = {"type": "tool_use", "id": "c", "name": "f", "input": {"n": 12345678901234567890123.50}}
    body = json.dumps(used).replace("1.2345678901234568e+22", "12345678901234567890123.50")
    found = read_message(
        b'{"model":"m","max_tokens":9,"messages":[{"role":"assistant","content":[%b,'
        b'{"type":"thinking","thinking":"t","signature":"z"},{"type":"text","text":"a"},'
        b'{"type":"redacted_thinking","data":"sealed by somebody else"},'
        b'{"type":"text","text":"b"}]}]}' % body.encode()
    )
    # Numbers stay as they are written.
    call = ToolCall("c", "f", '{"n": 12345678901234567890123.50}')
    thought = (("reasoning_content", "t"),)
    assert found.chats[0] == (Turn("assistant", "ab", tool_calls=(call,), other_texts=thought),)


def test_a_last_turn_of_the_assistants_is_gone_on_from() -> None:
    assert asked("The answer is (", role="assistant").chats[0][0].prefix
    assert asked(text("The answer is ("), role="assistant").chats[0][0].prefix
    used = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    assert not asked(used, role="assistant").chats[0][0].prefix


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"type": "auto"}, '"auto"'),
        ({"type": "any"}, '"required"'),
        ({"type": "none"}, '"none"'),
        ({"type": "tool", "name": "f"}, '{"type":"function","function":{"name":"f"}}'),
    ],
)
def test_tools_and_the_choice_among_them(choice: dict[str, Any], said: str) -> None:
    found = asked("hi", tools=[TOOL], tool_choice={**choice, "disable_parallel_tool_use": True})
    assert found.sampling["tool_choice"] == said
    assert found.sampling["tools"] == (
        '[{"type":"function","function":{"name":"f","parameters":{"type": "object"}}}]'
    )
    assert found.others == {"parallel_tool_calls": b"false"}
    assert "tool_choice" not in asked("hi", tool_choice={"type": "none"}).sampling


@pytest.mark.parametrize(
    ("fields", "effort", "shown"),
    [
        ({}, None, False),
        ({"thinking": {"type": "disabled"}}, None, False),
        ({"thinking": {"type": "adaptive"}}, None, True),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, None, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, b'"low"', True),
        ({"thinking": {"type": "enabled", "budget_tokens": 10_000}}, b'"medium"', True),
        ({"thinking": {"type": "enabled", "budget_tokens": 32_000}}, b'"high"', True),
        ({"output_config": {"effort": "max"}}, b'"max"', False),
    ],
)
def test_thinking_becomes_an_effort(fields: Any, effort: bytes | None, shown: bool) -> None:
    found = asked("hi", **fields)
    assert (found.others.get("reasoning_effort"), found.echo["thinking"]) == (effort, shown)


def test_what_anthropics_servers_do_by_themselves_is_dropped() -> None:
    found = asked(
        {**text("hi"), "cache_control": {"type": "ephemeral"}}, cache_control={"type": "ephemeral"},
        metadata={"user_id": "u"}, diagnostics={}, speed="fast", user_profile_id="p", mcp_servers=[],
        context_management={"edits": []}, container=None, top_k=40,
    )  # fmt: skip
    assert (found.user, found.others, found.sampling) == (
        b'"u"',
        {"top_k": b"40"},
        {"max_tokens": 9},
    )


FIRST = "messages[0].content[0]"
RESULT = {"type": "tool_result", "tool_use_id": "c", "content": [PNG]}
SEARCH = {"type": "server_tool_use", "id": "a", "name": "web_search", "input": {}}
LINKED = {"type": "document", "source": {"type": "url", "url": SECRET}}
CITED = {
    "type": "document",
    "source": {"type": "text", "data": "a"},
    "citations": {"enabled": True},
}
USED = {"type": "tool_use", "id": "c", "name": "f", "input": [SECRET]}


def before(**block: Any) -> dict[str, Any]:
    """A conversation whose first turn is the assistant's, of this block."""
    return {"messages": [{"role": "assistant", "content": [block]}]}


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (PNG, {}, f"{FIRST}.source"),
    (RESULT, {}, f"{FIRST}.content[0].source"),
    ({"type": "tool_result", "content": "r"}, {}, f"{FIRST}.tool_use_id"),
    (SEARCH, {}, FIRST),
    ({"type": "text"}, {}, f"{FIRST}.text"),
    ({"type": "text", "text": 3}, {}, f"{FIRST}.text"),
    (LINKED, {}, f"{FIRST}.source"),
    ({"type": "document"}, {}, f"{FIRST}.source"),
    (CITED, {}, f"{FIRST}.citations"),
    ("hi", {"max_tokens": None}, "max_tokens"),
    ("hi", {"max_tokens": 0}, "max_tokens"),
    ("hi", {"temperature": 1.5}, "temperature"),
    ("hi", {"stop_sequences": [""]}, "stop_sequences"),
    ("hi", {"messages": []}, "messages"),
    ("hi", {"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
    ("hi", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("hi", before(type="tool_use", name="f", input={}), f"{FIRST}.id"),
    ("hi", before(**USED), f"{FIRST}.input"),
    ("hi", {"system": [PNG]}, "system[0]"),
    ("hi", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ("hi", {"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
    ("hi", {"tools": [{**TOOL, "allowed_callers": ["code"]}]}, "tools[0].allowed_callers"),
    ("hi", {"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ("hi", {"tools": [{"name": "f", "input_schema": SECRET}]}, "tools[0].input_schema"),
    ("hi", {"tool_choice": {"type": "any"}}, "tool_choice"),
    ("hi", {"tools": [TOOL], "tool_choice": {"type": SECRET}}, "tool_choice.type"),
    ("hi", {"tools": [TOOL], "tool_choice": {"type": "tool", "name": SECRET}}, "tool_choice.name"),
    ("hi", {"thinking": {"type": SECRET}}, "thinking.type"),
    ("hi", {"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ("hi", {"output_config": {"effort": SECRET}}, "output_config.effort"),
    ("hi", {"output_config": {"format": {"type": SECRET}}}, "output_config.format.type"),
    ("hi", {"output_format": {"type": "json_schema"}}, "output_format.schema"),
    ("hi", {"mcp_servers": [{"url": SECRET}]}, "mcp_servers"),
    ("hi", {"thread": {"type": "create"}}, "thread"),
]


@pytest.mark.parametrize(("content", "fields", "param"), REFUSED, ids=[p for _, _, p in REFUSED])
def test_what_cannot_be_honoured_is_refused_by_name(
    content: Any, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        asked(content, **fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert SECRET not in str(caught.value)


# Answers.


def envelope(*, thinking: bool = False) -> Envelope:
    wanted = Continuation(model="m", chats=(), echo={"thinking": thinking})
    return Envelope("r", 0, "m", wanted)


def whole(generation: Generation, *, thinking: bool = False) -> Any:
    return json.loads(Messages().whole(envelope(thinking=thinking), [generation]))


def streamed(*deltas: Delta, thinking: bool = False) -> Any:
    """The message that the events of these pieces add up to, as Anthropic's library adds them up."""
    events = MessageEvents(envelope(thinking=thinking))
    generation = assemble(deltas)
    data = events.first(0) + b"".join(events.piece(0, d) for d in deltas)
    data += events.last(0, generation) + events.end([generation], {"usd": "0"})
    message: Any = None
    open_block = None
    for block in data.decode().split("\n\n"):
        if not block or block.startswith(": cosilo "):
            continue
        name, _, line = block.partition("\n")
        event = json.loads(line.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert open_block is None
                open_block = event["index"]
                assert open_block == len(message["content"])
                message["content"].append(event["content_block"])
            case "content_block_delta":
                assert event["index"] == open_block
                _, kind = event["delta"].pop("type"), message["content"][-1]
                for field, piece in event["delta"].items():
                    kind[field] = kind.get(field, "") + piece
            case "content_block_stop":
                assert event["index"] == open_block
                open_block = None
            case "message_delta":
                assert open_block is None
                message |= event["delta"]
                message["usage"] |= event["usage"]
    for block in message["content"]:
        if (written := block.pop("partial_json", None)) is not None:
            block["input"] = json.loads(written)
    return message


def call(index: int, arguments: str, *, first: bool = False) -> Delta:
    named = (f"c{index}", "f") if first else ("", "")
    return Delta(tool_calls=(ToolCallDelta(index, *named, arguments),))


ANSWERS: dict[str, list[Delta]] = {
    "text": [Delta("a"), Delta("b")],
    "nothing": [Delta("")],
    "thoughts": [
        Delta(other_texts=(("reasoning_content", "t"),)), Delta(other_texts=(("reasoning", "u"),)),
        Delta("a"),
    ],
    "refusal": [Delta(other_texts=(("refusal", "I "),)), Delta(other_texts=(("refusal", "won't"),))],
    "call": [Delta("a"), call(0, "", first=True), call(0, '{"a"'), call(0, ":1}")],
    "call without arguments": [call(0, "", first=True)],
    "parallel calls": [call(0, '{"a":1}', first=True), call(1, "", first=True), call(1, "{}")],
    "mixed calls": [
        call(0, "", first=True), call(1, "", first=True), call(1, '{"b"'), call(0, '{"a"'),
        call(1, ":2}"), call(0, ":1}"),
    ],
    "call that is no object": [call(0, "", first=True), call(0, "[1"), call(0, ",2]")],
    "call that is no JSON": [call(0, "", first=True), call(0, "look it up")],
    "call of the older API": [Delta(tool_calls=(ToolCallDelta(0, "", "f", "{}", legacy=True),))],
    "kept": [
        Delta(tool_calls=(ToolCallDelta(0, "c0", "f", "{}", extra='{"s":"x"}'),)),
        Delta(extra='{"t":"y"}'),
    ],
    "length": [Delta("a"), Delta(finish_reason="length", prompt_tokens=5, completion_tokens=1)],
    "filter": [Delta("a"), Delta(finish_reason="content_filter")],
    "cached": [Delta("a"), Delta(finish_reason="stop", prompt_tokens=5, cached_tokens=3)],
}  # fmt: skip


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_adds_up_to_the_whole(name: str, thinking: bool) -> None:
    deltas = ANSWERS[name]
    told = streamed(*deltas, thinking=thinking)
    found = whole(assemble(deltas), thinking=thinking)
    if name == "mixed calls":  # whichever begins first is written first
        told["content"].sort(key=lambda block: block["id"])
    assert told == found


def test_text_beside_a_call_waits_until_it_is_written() -> None:
    told = streamed(call(0, '{"a"', first=True), Delta("x"), Delta("y"), call(0, ":1}"), Delta("z"))
    assert told["content"] == [
        {"type": "tool_use", "id": "c0", "name": "f", "input": {"a": 1}},
        {"type": "text", "text": "xyz"},
    ]


def test_what_is_no_input_stands_in_one() -> None:
    broken = Generation("", tool_calls=(ToolCall("c", "f", '{"a": '),))
    assert whole(broken)["content"][0]["input"] == {"INVALID_JSON": '{"a": '}
    large = Generation("", tool_calls=(ToolCall("c", "f", '{"n": 1e400}'),))
    assert b'"input":{"n": 1e400}' in Messages().whole(envelope(), [large])


def test_what_it_took() -> None:
    found = Generation(
        "a", prompt_tokens=9, completion_tokens=5, cached_tokens=4, reasoning_tokens=2
    )
    assert whole(found)["usage"] == {
        "input_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4,
        "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("generation", "reason"),
    [
        (Generation("a"), "end_turn"),
        (Generation("a", finish_reason="length"), "max_tokens"),
        (Generation("a", finish_reason="content_filter"), "refusal"),
        (Generation("", other_texts=(("refusal", "no"),)), "refusal"),
        (Generation("", tool_calls=(ToolCall("c", "f", "{}"),)), "tool_use"),
        (
            Generation("", tool_calls=(ToolCall("c", "f", "{"),), finish_reason="length"),
            "max_tokens",
        ),
    ],
)
def test_why_it_ended(generation: Generation, reason: str) -> None:
    assert whole(generation)["stop_reason"] == reason


def test_what_the_owner_wants_back_is_carried_and_nothing_else_is() -> None:
    kept = Extras('{"a":1}', {"c": '{"b":"é"}'})
    assert unsealed(sealed(kept)) == kept
    deep = msgspec.json.encode(["[" * 5000 + "]" * 5000, {}])
    for data in ("", "cosilo:", "cosilo:!!", "cosilo:e30=", SECRET, sealed(Extras("no JSON")),
                 sealed(Extras("[1]")), f"cosilo:{deep!r}"):  # fmt: skip
        assert unsealed(data) == Extras()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, None, "invalid_request_error"), (401, "invalid_api_key", "authentication_error"),
        (403, None, "permission_error"), (404, None, "not_found_error"),
        (408, None, "invalid_request_error"), (413, None, "request_too_large"),
        (429, None, "rate_limit_error"), (500, None, "api_error"), (502, None, "api_error"),
        (503, "overloaded", "overloaded_error"), (503, "privacy_guard_failed", "api_error"),
        (504, None, "timeout_error"),
    ],
)  # fmt: skip
def test_refusals_have_anthropics_types(status: int, code: str | None, kind: str) -> None:
    sent, body = Messages().error(Refusal(status, "why", "our_kind", code, "model"))
    found = json.loads(body)
    assert (sent, found["type"], found["error"]["type"]) == (status, "error", kind)
    assert found["error"]["message"] == "why"
    assert found["error"].get("details") == (code and {"error_code": code, "param": "model"})
