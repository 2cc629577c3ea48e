"""OpenAI's Responses API: what is asked becomes turns."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.web.dialects.base import Continuation
from cosilo.gateway.web.dialects.responses import Responses, read_response
from cosilo.types import ToolCall, Turn

DIALECT = Responses()
F = {"type": "function", "name": "f", "parameters": {"type": "object"}}


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
