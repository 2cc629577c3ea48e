"""What an endpoint says beside its text, and how it ends or refuses, reaches the client; and what the
client sends back reaches the endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cosilo.session import DefenceConfig
from house import Reply, house
from wire import DONE, SSE_HEAD, Wire, apart, delta, http, model

MAIL = "ada@lovelace.example"
SIGNATURE = "Q2lBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWg=="
HI = {"role": "user", "content": "hi"}


async def through(
    tmp_path: Path,
    *answers: list[Any],
    messages: list[dict[str, Any]] | None = None,
    defended: bool = False,
    **fields: Any,
) -> tuple[Reply, list[Any]]:
    """(the gateway's answer, the bodies that its upstream was sent)"""
    wire = Wire(*answers)
    async with wire.serve() as url:
        options = {
            "detectors": ["patterns"],
            "conversation": "first-turn",
            "key_file": str(tmp_path / "key"),
        }
        around = (DefenceConfig("hide", "pseudonym", options),) if defended else ()
        large = model(url, retries=fields.pop("retries", 0))
        h = await house(large=[large], around=around)
        body = {"model": "cosilo/x", "messages": messages or [HI], **fields}
        told = await h.send("/v1/chat/completions", body)
        await h.gateway.close()
    return told, wire.requests


def whole(message: dict[str, Any], finish: str | None = "stop") -> list[Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return [http(json.dumps({"choices": [choice]}).encode())]


@pytest.mark.parametrize("defended", [False, True])
@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": "I can't help with that."},
        {"content": "4", "reasoning_content": "2+2"},
        {"content": "4", "reasoning": "2+2"},
        {"content": "4", "extra_content": {"google": {"thought_signature": SIGNATURE}}},
        {
            "content": None,
            "reasoning_content": "2+2",
            "tool_calls": [
                {
                    "id": "c",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                    "extra_content": {"google": {"thought_signature": SIGNATURE}},
                }
            ],
        },
        {"content": None, "function_call": {"name": "f", "arguments": '{"a":1}'}},
    ],
    ids=["refusal", "reasoning_content", "reasoning", "signature", "signed call", "function_call"],
)
async def test_what_stands_beside_the_text_goes_both_ways(
    message: dict[str, Any], defended: bool, tmp_path: Path
) -> None:
    told, _ = await through(tmp_path, whole(message), defended=defended)
    said = told.json["choices"][0]["message"]
    assert said == {"refusal": None, "role": "assistant", **message}
    pieces = delta("stop", **streamed(message))
    told, _ = await through(tmp_path, [SSE_HEAD, pieces, DONE], defended=defended, stream=True)
    found: dict[str, Any] = {}
    for event in told.events:
        for choice in event.get("choices", []):
            found |= choice["delta"]
    assert {k: v for k, v in found.items() if v} == {"role": "assistant", **streamed(message)}
    _, [sent] = await through(
        tmp_path, whole({"content": "ok"}), messages=[HI, {"role": "assistant", **message}, HI],
        defended=defended,
    )  # fmt: skip
    back = {k: v for k, v in sent["messages"][1].items() if v != ""}
    assert back == {"role": "assistant", **{k: v for k, v in message.items() if v is not None}}


def streamed(message: dict[str, Any]) -> dict[str, Any]:
    """`message` as the delta of a chunk."""
    calls = [{"index": i, **c} for i, c in enumerate(message.get("tool_calls", ()))]
    found = {k: v for k, v in message.items() if v is not None}
    return {**found, "tool_calls": calls} if calls else found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("field", ["content", "refusal", "reasoning_content", "reasoning"])
async def test_every_text_is_hidden_on_the_way_out_and_restored_on_the_way_home(
    field: str, stream: bool, tmp_path: Path
) -> None:
    """The endpoint repeats what it was sent in `field`."""
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", field: f"To {MAIL}."}, HI]
    _, [sent] = await through(tmp_path, whole({"content": "ok"}), messages=messages, defended=True)
    hidden = sent["messages"][1][field]
    assert hidden != f"To {MAIL}."
    assert "ada" not in json.dumps(sent)
    half = len(hidden) // 2
    pieces = delta(**{field: hidden[:half]}), delta("stop", **{field: hidden[half:]})
    answer = [SSE_HEAD, *pieces, DONE] if stream else whole({"content": None, field: hidden})
    told, _ = await through(tmp_path, answer, messages=messages, defended=True, stream=stream)
    if stream:
        deltas = [c["delta"] for e in told.events for c in e.get("choices", [])]
        assert "".join(d.get(field) or "" for d in deltas) == f"To {MAIL}."
    else:
        assert told.json["choices"][0]["message"][field] == f"To {MAIL}."


async def test_a_reply_goes_on_from_a_prefix_and_an_older_answer_keeps_its_role(
    tmp_path: Path,
) -> None:
    messages = [
        HI,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "4"},
        {"role": "assistant", "content": "Sure", "prefix": True},
    ]
    _, [sent] = await through(tmp_path, whole({"content": "ok"}), messages=messages)
    assert sent["messages"][1]["function_call"] == {"name": "f", "arguments": "{}"}
    assert sent["messages"][2] == {"role": "function", "name": "f", "content": "4"}
    assert sent["messages"][3] == {"role": "assistant", "content": "Sure", "prefix": True}
    told, sent_none = await through(
        tmp_path, whole({"content": "ok"}), messages=[{"role": "function", "content": "4"}]
    )
    assert (told.status, told.error["param"], sent_none) == (400, "messages[0].name", [])


@pytest.mark.parametrize(
    ("finish", "told_as"),
    [("max_tokens", "length"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"),
     ("insufficient_system_resource", "length"), ("stop", "stop"), ("eos", "stop")],
)  # fmt: skip
async def test_a_reply_that_was_cut_or_filtered_does_not_look_whole(
    finish: str, told_as: str, tmp_path: Path
) -> None:
    told, _ = await through(tmp_path, whole({"content": "Do not take the"}, finish))
    assert told.json["choices"][0]["finish_reason"] == told_as
    told, _ = await through(
        tmp_path, [SSE_HEAD, delta(content="Do not"), delta(finish), DONE], stream=True
    )
    assert told.events[-1]["choices"][0]["finish_reason"] == told_as
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a'}}]
    told, _ = await through(tmp_path, whole({"content": None, "tool_calls": calls}, finish))
    reason = told.json["choices"][0]["finish_reason"]
    assert reason == ("tool_calls" if told_as == "stop" else told_as)


@pytest.mark.parametrize("finish", [None, "", "null"])
async def test_a_stream_that_closes_without_an_end_is_an_error_and_comes_piece_by_piece(
    finish: str | None, tmp_path: Path
) -> None:
    pieces = [delta(finish, content=w) for w in ("Do not ", "take ", "the ")]
    told, _ = await through(tmp_path, apart(SSE_HEAD, *pieces), stream=True)
    assert told.text == "Do not take the "
    assert len([e for e in told.events if e.get("choices")]) >= 3
    assert told.events[-1]["error"]["code"] == "upstream_unreachable"


SECRET = "ada_lovelace"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error", "told_as", "code", "param"),
    [
        (400, {"code": "context_length_exceeded", "param": "messages"}, 400,
         "context_length_exceeded", "messages"),
        (400, {"code": 400, "type": "BadRequestError",
               "message": f"maximum context length is 8192, not {SECRET}"}, 400,
         "context_length_exceeded", None),
        (400, {"code": "content_filter", "type": None}, 400, "content_filter", None),
        (400, {"code": "unsupported_value", "param": "temperature"}, 400, "unsupported_value",
         "temperature"),
        (400, {"code": SECRET, "param": SECRET, "type": SECRET}, 400, "upstream_rejected", None),
        (413, {}, 413, "upstream_rejected", None),
        (422, {"type": "invalid_request_error"}, 422, "invalid_request_error", None),
        (404, {"code": "model_not_found", "param": "model"}, 404, "model_not_found", "model"),
        (404, {}, 502, "upstream_rejected", None),
        (401, {"code": "invalid_api_key"}, 502, "upstream_rejected", None),
        (429, {"code": "rate_limit_exceeded"}, 429, "rate_limit_exceeded", None),
        (429, {"code": "insufficient_quota"}, 502, "upstream_rejected", None),
        (500, {"code": "server_error"}, 502, "upstream_unreachable", None),
    ],
)  # fmt: skip
async def test_what_the_upstream_refuses_is_told_as_what_it_is(
    status: int,
    error: dict[str, Any],
    told_as: int,
    code: str,
    param: str | None,
    stream: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = json.dumps({"error": {"message": f"Sorry, {SECRET}", **error}}).encode()
    answer = http(body, status, "application/json", "Retry-After: 7")
    told, _ = await through(tmp_path, [answer], stream=stream)
    assert (told.status, told.error["code"], told.error["param"]) == (told_as, code, param)
    assert told.headers.get("retry-after") == ("8" if told_as == 429 else None)  # rounded up
    assert SECRET not in told.body.decode() + caplog.text


@pytest.mark.parametrize(
    "shape", ["{}", '{"object":"error",%s}', '[{"error":{%s}}]', '{"error":"%s"}']
)
async def test_other_shapes_of_an_error(shape: str, tmp_path: Path) -> None:
    words = "This model's maximum context length is 8192 tokens."
    inner = words if shape.endswith('"%s"}') else f'"message":"{words}","code":400'
    answer = http((shape % inner if "%s" in shape else shape).encode(), 400)
    told, _ = await through(tmp_path, [answer])
    known = "context_length_exceeded" if "%s" in shape else "upstream_rejected"
    assert (told.status, told.error["code"]) == (400, known)
