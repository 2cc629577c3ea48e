"""Replies are parsed into types; what does not fit is named without quoting it."""

from __future__ import annotations

import json

import pytest

from cosilo.errors import RejectedError
from cosilo.models.chat.chat_api import (
    MalformedReplyError,
    ReportedError,
    choice_of,
    chunk,
    completion,
    nearest_choice,
    request,
)
from cosilo.types import Generation, Sampling, ToolCall, ToolCallDelta, Turn, user

SECRET = "Ottilie Katzenstein"


def reply(**message: object) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def test_what_is_asked() -> None:
    chat = (
        Turn("user", "q", name="ann"),
        Turn("assistant", "", tool_calls=(ToolCall("c1", "look", "{}"),)),
        Turn("tool", "found", tool_call_id="c1"),
    )
    sampling = Sampling(
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=4,
        stop=("\n",),
        top_logprobs=3,
        tools='[{"type": "function"}]',
        tool_choice="auto",
        response_format='{"type": "json_object"}',
    )
    body = request(chat, sampling, logprobs=True)
    assert body == {
        "messages": [
            {"role": "user", "content": "q", "name": "ann"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "look", "arguments": "{}"},
                    }
                ],
            },
            {"role": "tool", "content": "found", "tool_call_id": "c1"},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 4,
        "stop": ["\n"],
        "logprobs": True,
        "top_logprobs": 3,
        "tools": [{"type": "function"}],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
    }
    assert "logprobs" not in request(chat, sampling, logprobs=False)
    with pytest.raises(RejectedError, match="response_format"):
        request(user("q"), Sampling(response_format="{"), logprobs=False)


def test_a_whole_reply() -> None:
    data = {
        "choices": [
            {
                "message": {
                    "content": None,
                    "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{}"}}],
                },
                "finish_reason": "tool_calls",
                "logprobs": {
                    "content": [
                        {
                            "token": "a",
                            "logprob": 0.0001,
                            "top_logprobs": [{"token": "b", "logprob": None}],
                        }
                    ]
                },
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    found = completion(json.dumps(data).encode())
    assert found.text == ""
    assert found.tool_calls == (ToolCall("x", "f", "{}"),)
    assert found.finish_reason == "tool_calls"
    assert (found.prompt_tokens, found.completion_tokens) == (3, 4)
    assert found.tokens[0].logprob == 0.0
    assert found.tokens[0].top == (("b", -9999.0),)
    assert completion(reply(content=[{"type": "text", "text": "a"}, {"text": "b"}])).text == "ab"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no JSON"),
        (b"<html>" + SECRET.encode(), "no JSON"),
        (reply(content=SECRET)[:-5], "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"x":' + b"[" * 100_000, "no JSON"),
        (b"null", "wrong type"),
        (b"[1]", "wrong type"),
        (b'"' + SECRET.encode() + b'"', "wrong type"),
        (b"{}", "no choices"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": [{}]}', "no message"),
        (b'{"choices": "' + SECRET.encode() + b'"}', "wrong type"),
        (b'{"choices": [{"message": {"content": 5}}]}', r"choices\[0\]\.message\.content"),
        (reply(content=SECRET, tool_calls=1), "wrong type"),
    ],
)  # fmt: skip
def test_what_is_no_reply(data: bytes, says: str) -> None:
    with pytest.raises(MalformedReplyError, match=says) as caught:
        completion(data)
    assert SECRET not in str(caught.value)


def test_an_error_object_keeps_its_code_and_type_and_not_its_message() -> None:
    data = {"error": {"message": SECRET, "type": "server_error", "code": 503}}
    with pytest.raises(ReportedError) as caught:
        chunk(json.dumps(data).encode())
    assert (caught.value.code, caught.value.kind) == (503, "server_error")
    with pytest.raises(ReportedError):
        completion(json.dumps({"error": SECRET}).encode())
    assert SECRET not in str(caught.value)


def test_pieces() -> None:
    assert chunk(b'{"choices": [{"delta": {"content": "x"}}]}').text == "x"
    assert chunk(b'{"choices": [], "usage": {"prompt_tokens": 2}}').prompt_tokens == 2
    assert chunk(b'{"choices": [{"delta": {}, "finish_reason": "eos"}]}').finish_reason == "stop"
    tools = chunk(
        b'{"choices": [{"delta": {"tool_calls": [{"index": 1, "function": {"arguments": "{"}}]}}]}'
    )
    assert tools.tool_calls == (ToolCallDelta(0, "", "", "{"),)  # numbered in the order they come


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ('{"prompt_tokens": 12, "completion_tokens": 3}', (12, 3)),
        ('{"prompt_tokens": 12.0, "completion_tokens": "3"}', (12, 3)),
        ('{"prompt_tokens": 1e1, "completion_tokens": 3.0, "total_tokens": 13}', (10, 3)),
        ('{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 215}', (12, 203)),
        ('{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": "215"}', (12, 203)),
        ('{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 7}', (12, 3)),
        (
            '{"prompt_tokens": 12, "completion_tokens": 3, "completion_tokens_details":'
            ' {"reasoning_tokens": 200}}',
            (12, 203),
        ),
        (
            '{"prompt_tokens": 12, "completion_tokens": 203, "total_tokens": 215,'
            ' "completion_tokens_details": {"reasoning_tokens": 200}}',
            (12, 203),
        ),
        ('{"prompt_tokens": 12, "prompt_tokens_details": {"cached_tokens": -900}}', (12, 0)),
        ('{"prompt_tokens": null, "completion_tokens": null}', (0, 0)),
        ("null", (0, 0)),
        ("{}", (0, 0)),
        ('{"prompt_tokens": 12.5, "completion_tokens": 3}', (-1, 3)),
        ('{"prompt_tokens": NaN, "completion_tokens": -Infinity}', (-1, -1)),
        ('{"prompt_tokens": -12, "completion_tokens": true}', (-1, -1)),
        ('{"prompt_tokens": "twelve", "completion_tokens": [3]}', (-1, -1)),
        ('{"prompt_tokens": "-12", "completion_tokens": "1e3"}', (-1, -1)),
        ('"12"', (-1, -1)),
        ("[12, 3]", (-1, -1)),
        ('{"prompt_tokens": 12, "completion_tokens": 1' + "0" * 5000 + "}", (12, 10**9)),
        ('{"prompt_tokens": 12, "completion_tokens": 1e308}', (12, 10**9)),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_usage_is_read_as_far_as_it_says_anything(
    usage: str, tokens: tuple[int, int], streamed: bool
) -> None:
    said = '{"choices": [{"%s": {"content": "ok"}, "finish_reason": "stop"}], "usage": %s}'
    parse = chunk if streamed else completion
    found = parse((said % ("delta" if streamed else "message", usage)).encode())
    assert found.text == "ok"
    assert (found.prompt_tokens, found.completion_tokens) == tokens


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ('{"prompt_tokens": 125, "prompt_tokens_details": {"cached_tokens": 98}}', (125, 98)),
        (
            '{"prompt_tokens": 12, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 4}',
            (12, 8),
        ),
        ('{"prompt_tokens": 12, "cached_tokens": 8}', (12, 8)),
        ('{"prompt_tokens": 12, "cache_read_input_tokens": 8}', (12, 8)),
        ('{"prompt_tokens": 4, "cache_read_input_tokens": 2000}', (2004, 2000)),  # counted beside
        ('{"prompt_tokens": 12, "prompt_tokens_details": null, "cached_tokens": 8}', (12, 8)),
        ('{"prompt_tokens": 12, "prompt_tokens_details": {"cached_tokens": null}}', (12, 0)),
        ('{"prompt_tokens": 12, "prompt_tokens_details": {"cached_tokens": "many"}}', (12, -1)),
        ('{"prompt_tokens": 12, "prompt_tokens_details": [8]}', (12, 0)),
        ('{"prompt_tokens": -3, "cached_tokens": 8}', (-1, 8)),
        ("[12, 8]", (-1, 0)),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_tokens_read_before_are_known_by_several_names(
    usage: str, counts: tuple[int, int], streamed: bool
) -> None:
    said = '{"choices": [{"%s": {"content": "ok"}, "finish_reason": "stop"}], "usage": %s}'
    parse = chunk if streamed else completion
    found = parse((said % ("delta" if streamed else "message", usage)).encode())
    assert (found.prompt_tokens, found.cached_tokens) == counts


@pytest.mark.parametrize(
    "content", ['[{"token": null}]', '[{"token": "a", "logprob": "b"}]', "5", '[{"logprob": -1}]']
)
def test_log_probabilities_that_are_none_lose_no_answer(content: str) -> None:
    extra = f'"logprobs": {{"content": {content}}}'
    found = completion(f'{{"choices": [{{"message": {{"content": "ok"}}, {extra}}}]}}'.encode())
    assert (found.text, found.tokens) == ("ok", ())
    piece = chunk(f'{{"choices": [{{"delta": {{"content": "ok"}}, {extra}}}]}}'.encode())
    assert (piece.text, piece.tokens) == ("ok", ())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"a": 1}, '{"a": 1}'), ([], "[]"), ({"n": "Zoë"}, '{"n": "Zoë"}'), ("{}", "{}"), (None, "")],
)
def test_arguments_that_are_an_object_become_its_text(arguments: object, text: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    data = json.dumps({"choices": [{"message": {"content": None, "tool_calls": [call]}}]})
    assert completion(data.encode()).tool_calls == (ToolCall("c", "f", text),)
    assert completion(json.loads(data)).tool_calls == (ToolCall("c", "f", text),)
    data = json.dumps({"choices": [{"delta": {"tool_calls": [{**call, "index": 0}]}}]})
    assert chunk(data.encode()).tool_calls == (ToolCallDelta(0, "c", "f", text),)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("refund", "refund"),
        (" Refund. ", "refund"),
        ("The category is: **refund**", "refund"),
        ("credit_card_dispute", "credit card dispute"),
        ("this is a credit card dispute", "credit card dispute"),
        ("credit card", "credit card"),
        ("credit card, or rather a credit card dispute", None),
        ("refund or delivery", None),
        ("refunds", None),
        ("", None),
        ("?!", None),
    ],
)
def test_nearest_choice(text: str, choice: str | None) -> None:
    choices = ("refund", "delivery", "credit card", "credit card dispute")
    assert nearest_choice(text, choices) == (choice or text)


def test_nearest_choice_of_letters() -> None:
    choices = ("A", "B")
    assert nearest_choice("The answer is a clear B", choices) == "B"
    assert nearest_choice("b", choices) == "B"
    assert nearest_choice("(A)", choices) == "A"
    assert nearest_choice("it is a riddle", choices) == "it is a riddle"
    assert nearest_choice("-", ("+", "-")) == "-"
    assert nearest_choice("?", ("+", "-")) == "?"


def test_an_allowance_for_reasoning_is_asked_for_on_top_of_the_answer() -> None:
    body = request(user("q"), Sampling(max_tokens=12), logprobs=False, reasoning=2000)
    assert body["max_tokens"] == 2012


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("<think>It could be billing or delivery.</think>\n\ndelivery", "delivery"),
        ("billing? no.</think>Delivery.", "delivery"),
        ("<think>delivery, I would say, unless", "<think>delivery, I would say, unless"),
    ],
)
def test_a_choice_is_read_without_what_was_thought(text: str, chosen: str) -> None:
    given = Generation(text)
    assert choice_of(given, ("billing", "delivery")).text == chosen


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"a\ud83d", "a\ufffd"),
        (r"\ude00b", "\ufffdb"),
        (r"\ud83d\ude00b", "😀b"),
        (r"\uD83D\uDE00 \uD83D", "😀 \ufffd"),
    ],
)
def test_half_a_character_breaks_no_reply(written: str, read: str) -> None:
    said = '{"choices": [{"%s": {"content": "' + written + '"}}]}'
    assert chunk((said % "delta").encode()).text == read
    assert completion((said % "message").encode()).text == read


@pytest.mark.parametrize(
    ("details", "thought"),
    [({"reasoning_tokens": 7}, 7), ({"reasoning_tokens": "7"}, 7), ({"reasoning_tokens": -1}, -1),
     ({"reasoning_tokens": None}, 0), ({}, 0), (None, 0), ("many", 0)],
)  # fmt: skip
def test_what_a_reply_thought_with(details: object, thought: int) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": details}
    data = {"choices": [{"message": {"content": "x"}}], "usage": usage}
    found = completion(data)
    assert (found.completion_tokens, found.reasoning_tokens) == (9, thought)
    assert chunk({"choices": [], "usage": usage}).reasoning_tokens == thought
