"""Bodies become requests, or a refusal that names the field."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.web.dialects.base import Continuation
from cosilo.gateway.web.dialects.chat import read_chat
from cosilo.gateway.web.dialects.completions import read_text
from cosilo.gateway.web.embeddings import read_embedding
from cosilo.types import ToolCall, Turn

HI = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> Continuation:
    body = {"model": "cosilo/x", "messages": HI, **fields}
    return read_chat(json.dumps(body).encode())


def parts(*found: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": list(found)}]


def refused(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        chat(**fields)
    return caught.value


def test_what_the_client_leaves_out_is_left_to_the_point() -> None:
    found = chat()
    assert found.chats[0] == (Turn("user", "hi"),)
    assert found.sampling == {}
    assert (found.n, found.stream, found.include_usage, found.logprobs) == (1, False, False, None)


def test_null_is_not_given() -> None:
    nothing = {
        name: None
        for name in ("max_tokens", "temperature", "stop", "tools", "response_format", "n", "stream",
                     "logit_bias", "reasoning_effort", "audio", "a_field_nobody_knows")
    }  # fmt: skip
    assert chat(**nothing) == chat()


def test_sampling_fields_are_taken_over() -> None:
    found = chat(
        max_tokens=5, temperature=0.5, top_p=0.9, seed=7, stop="a", logprobs=True, top_logprobs=3
    )
    assert found.sampling == {
        "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ("a",),
        "top_logprobs": 3,
    }  # fmt: skip
    assert found.logprobs == 3


def test_logprobs_without_alternatives_ask_the_back_end_for_one_and_show_none() -> None:
    found = chat(logprobs=True)
    assert found.sampling["top_logprobs"] == 1
    assert found.logprobs == 0


def test_both_names_of_the_length_limit_work() -> None:
    assert chat(max_completion_tokens=5).sampling["max_tokens"] == 5
    assert chat(max_completion_tokens=5, max_tokens=5).sampling["max_tokens"] == 5
    assert refused(max_completion_tokens=5, max_tokens=6).param == "max_completion_tokens"


def test_turns_of_every_role() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    found = chat(
        messages=[
            {"role": "developer", "content": "be kind"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
        ]
    )
    assert found.chats[0] == (
        Turn("system", "be kind"),
        Turn("user", "a\nb"),
        Turn("assistant", "", tool_calls=(ToolCall("c1", "f", "{}"),)),
        Turn("tool", "42", tool_call_id="c1"),
    )


def test_tools_and_formats_pass_as_they_came() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    choice = {"type": "function", "function": {"name": "f"}}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    found = chat(tools=tools, tool_choice=choice, response_format=schema)
    assert json.loads(found.sampling["tools"]) == tools
    assert json.loads(found.sampling["tool_choice"]) == choice
    assert json.loads(found.sampling["response_format"]) == schema
    assert chat(response_format={"type": "text"}, tools=[]).sampling == {}


def test_the_tool_that_is_to_be_called_is_sent_by_its_name_and_nothing_beside_it() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    wordy = {
        "type": "function",
        "function": {"name": "f", "description": "Ottilie"},
        "why": "Ottilie",
    }
    assert json.loads(chat(tools=tools, tool_choice=wordy).sampling["tool_choice"]) == {
        "type": "function",
        "function": {"name": "f"},
    }


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ({"type": "Ottilie", "function": {"name": "f"}}, "tool_choice.type"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.type"),
        ({"type": "function", "function": {"name": "Ottilie"}}, "tool_choice.function.name"),
        ("Ottilie", "tool_choice"),
    ],
)
def test_a_tool_that_nobody_offered_cannot_be_chosen(choice: object, param: str) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(RequestError) as caught:
        chat(tools=tools, tool_choice=choice)
    assert caught.value.param == param
    assert "Ottilie" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [*HI, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
        ({"messages": parts({"type": "image_url"})}, "messages[0].content[0]"),
        ({"messages": parts({"type": "text"})}, "messages[0].content[0]"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 17}, "n"),
        ({"seed": 1.5}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": [{"type": "web"}]}, "tools[0].function"),
        ({"tools": [{"type": "custom", "function": {"name": "f"}}]}, "tools"),
        ({"tools": "f"}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": []}, "response_format"),
        ({"model": 3}, "model"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert (error.status, error.param) == (400, param)
    assert param.split(".")[-1].split("[")[0] in str(error)


def test_further_fields_are_handed_on_as_they_came_but_null() -> None:
    found = chat(verbosity="low", a_field_nobody_knows={"a": [1]}, top_k=None, user="u1")
    assert found.others == {
        "verbosity": b'"low"', "a_field_nobody_knows": b'{"a": [1]}', "user": b'"u1"'
    }  # fmt: skip
    assert found.user == b'"u1"'


def test_no_refusal_quotes_what_stood_in_the_field() -> None:
    secret = "Ada-Lovelace-1815"
    for fields in (
        {"messages": [{"role": secret, "content": "x"}]},
        {"messages": secret},
        {"temperature": secret},
        {"response_format": {"type": secret}},
        {"tool_choice": secret, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{"role": "user", "content": [{"type": secret}]}]},
        {"stop": {secret: secret}},
    ):
        assert secret not in str(refused(**fields))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b'{"model": "\\ud800"}',
     b'{"model": "x", "messages": ' + b"[" * 100_000, b'{"a":' * 50_000, b"\x00",
     b'{"model": "\xff"}', b'{"\xff": 1}', b'{"logit_bias": {"\xff": 1}}'],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        read_chat(body)
    assert caught.value.status == 400


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_refusal(body: bytes) -> None:
    for read in (read_chat, read_text, read_embedding):
        with pytest.raises(RequestError):
            read(body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=10,
)
_FIELDS = st.sampled_from([
    "model", "messages", "temperature", "n", "stop", "stream", "stream_options", "tools",
    "tool_choice", "response_format", "logprobs", "top_logprobs", "seed", "max_tokens", "logit_bias",
    "prompt", "input", "encoding_format", "user", "x",
])  # fmt: skip


@given(st.dictionaries(_FIELDS, _JSON, max_size=8))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
def test_any_json_is_a_request_or_a_refusal(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    for read in (read_chat, read_text, read_embedding):
        with contextlib.suppress(RequestError):
            read(body)


def test_texts_of_the_older_api() -> None:
    found = read_text(b'{"model": "m", "prompt": ["a", "b"], "n": 2, "logprobs": 0}')
    assert found.chats == ((Turn("user", "a"),), (Turn("user", "b"),))
    assert (found.n, found.logprobs, found.sampling["top_logprobs"]) == (2, 0, 1)
    for body in (
        b'{"model": "m", "prompt": [1, 2]}',
        b'{"model": "m", "prompt": ["a", "b", "c", "d", "e"], "n": 16}',
    ):
        with pytest.raises(RequestError):
            read_text(body)


def test_embedding_bodies() -> None:
    found = read_embedding(b'{"model": "m", "input": "x", "encoding_format": "base64"}')
    assert (found.message.texts, found.base64) == (("x",), True)
    found = read_embedding(b'{"model": "m", "input": ["x", "y"], "dimensions": 3, "user": "u"}')
    assert (found.message.texts, found.message.dimensions) == (("x", "y"), 3)
    assert (found.base64, found.user) == (False, b'"u"')
    for body in (
        b'{"model": "m", "input": ""}',
        b'{"model": "m", "input": []}',
        b'{"model": "m", "input": [[1, 2]]}',
        b'{"model": "m", "input": "x", "encoding_format": "int8"}',
        b'{"model": "m", "input": [1, 2]}',
        b'{"model": "m", "input": ["x", 2]}',
        b'{"model": "m", "input": {"x": 2}}',
        b'{"model": "m"}',
        b'{"model": "m", "input": "x", "dimensions": 0}',
        b'{"model": "m", "input": "x", "dimension": 3}',
        json.dumps({"model": "m", "input": ["x"] * 2049}).encode(),
    ):
        with pytest.raises(RequestError):
            read_embedding(body)
