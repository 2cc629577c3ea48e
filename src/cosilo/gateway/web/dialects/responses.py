"""`/v1/responses`: OpenAI's Responses API, for clients that send the whole conversation each time.

Nothing of a conversation is kept, so what refers to an earlier response is refused, and every answer
says `store: false`. Tools are functions of the client's; those that OpenAI runs itself would send text
to others without a guard, and are refused.
Reference: https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar

import msgspec

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.web.dialects.base import Continuation, Envelope, Header
from cosilo.gateway.web.dialects.fields import (
    NULL,
    Name,
    Positive,
    Raw,
    StreamOptions,
    decoded,
    field_of,
    present,
)
from cosilo.gateway.web.dialects.files import Files
from cosilo.gateway.web.dialects.openai import OpenAIShape, encode, used
from cosilo.gateway.web.dialects.response_events import ResponseEvents
from cosilo.gateway.web.dialects.response_items import READ, Item, is_whole, read_input, reply_items
from cosilo.gateway.web.dialects.response_tools import (
    Names,
    Tool,
    ToolChoice,
    names_in_groups,
    tool_fields,
)
from cosilo.types import Generation, Turn


class Responses(OpenAIShape):
    endpoint: ClassVar[str] = "responses"
    path: ClassVar[str] = "/v1/responses"

    def read(self, body: bytes, header: Header) -> Continuation:
        return read_response(body)

    def whole(self, envelope: Envelope, generations: Sequence[Generation]) -> bytes:
        [generation] = generations
        logprobs = envelope.wanted.logprobs
        items = reply_items(envelope.request, generation, logprobs, names=_names(envelope))
        return encode(_body(envelope, None, list(items.values()), generation))

    def events(self, envelope: Envelope) -> ResponseEvents:
        return ResponseEvents(envelope, partial(_body, envelope), _names(envelope))


# What a body may hold.


class _Reasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class _Format(msgspec.Struct):
    type: str
    name: str | None = None
    schema: Raw = NULL
    strict: bool | None = None
    description: str | None = None


class _Text(msgspec.Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _ResponseBody(msgspec.Struct, kw_only=True):
    model: Name
    input: Raw = NULL
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    truncation: str | None = None
    background: bool | None = None
    max_tool_calls: int | None = None
    previous_response_id: Raw = NULL
    conversation: Raw = NULL
    prompt: Raw = NULL
    user: Raw = NULL
    safety_identifier: Raw = NULL


_response = msgspec.json.Decoder(_ResponseBody)
_INSIDE = {"input": READ}
_object = msgspec.json.Decoder(dict[str, Raw])

_LOGPROBS = "message.output_text.logprobs"
_INCLUDED = frozenset({
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url",
    "code_interpreter_call.outputs", "reasoning.encrypted_content", _LOGPROBS,
})  # fmt: skip
"""What may be wanted beside the answer; all but the last belongs to what is never in one here."""

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_VERBOSITIES = ("low", "medium", "high")

_NOT_KEPT = {
    "previous_response_id": "no response is kept; send the whole conversation as input",
    "conversation": "no conversation is kept; send the whole of it as input",
    "prompt": "no templates of prompts are kept; send the text as instructions and input",
}

_ELSEWHERE = {
    "messages": "input", "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens", "response_format": "text.format",
    "reasoning_effort": "reasoning.effort", "verbosity": "text.verbosity",
    "logprobs": "top_logprobs", "functions": "tools", "function_call": "tool_choice",
}  # fmt: skip
"""Fields of chats → what says the same here."""

_NOT_HERE = ("n", "stop", "seed", "suffix", "best_of", "echo")

_ECHOED = (
    "instructions", "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls",
    "prompt_cache_key", "reasoning", "safety_identifier", "temperature", "text", "tool_choice",
    "tools", "top_logprobs", "top_p", "user",
)  # fmt: skip


def read_response(body: bytes) -> Continuation:
    """The request in the body of `/v1/responses`.

    Raises:
        RequestError: it is not JSON, or a field is missing, unknown, of the wrong type or refused.
    """
    found, others = decoded(body, _response, _ResponseBody, _INSIDE)
    for name in others:
        if name in _ELSEWHERE or name in _NOT_HERE:
            there = f"; use {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
            raise RequestError(
                f"{name}: not a field of this API{there}", param=name, code="unknown_parameter"
            )
    for name, why in _NOT_KEPT.items():
        if present(getattr(found, name)) is not None:
            raise RequestError(f"{name}: {why}", param=name, code="unsupported_parameter")
    if found.background:
        raise RequestError(
            "background: no response is kept to be fetched later; leave it out, or stream",
            param="background", code="unsupported_parameter",
        )  # fmt: skip
    if found.truncation not in (None, "auto", "disabled"):
        raise RequestError("truncation must be auto or disabled", param="truncation")
    if found.stream_options is not None and not found.stream:
        raise RequestError("stream_options needs stream: true", param="stream_options")
    if (raw := present(found.input)) is None:
        raise RequestError("input must be given", param="input")
    files = Files()
    turns = read_input(raw, files)
    if found.instructions is not None:
        turns = [Turn("system", found.instructions), *turns]
    given: dict[str, Any] = {
        name: value
        for name in ("temperature", "top_p")
        if (value := getattr(found, name)) is not None
    }
    if found.max_output_tokens is not None:
        given["max_tokens"] = found.max_output_tokens
    shown = _logprobs(found)
    if shown is not None:
        given["top_logprobs"] = max(1, shown)
    given |= tool_fields(found.tools or [], found.tool_choice)
    if (wanted := _format(found.text)) is not None:
        given["response_format"] = wanted
    return Continuation(
        model=found.model,
        chats=(tuple(turns),),
        sampling=given,
        stream=bool(found.stream),
        logprobs=shown,
        others=others | _hints(found),
        files=files.found,
        user=present(found.user) or present(found.safety_identifier) or b"",
        echo={
            k: v for k, v in _object.decode(body).items() if k in _ECHOED and bytes(v) != b"null"
        },
    )


def _logprobs(body: _ResponseBody) -> int | None:
    for i, name in enumerate(body.include or ()):
        if name not in _INCLUDED:
            raise RequestError(
                f"include[{i}] must be one of {', '.join(sorted(_INCLUDED))}", param=f"include[{i}]"
            )
    if body.top_logprobs or _LOGPROBS in (body.include or ()):
        return body.top_logprobs or 0
    return None


def _hints(body: _ResponseBody) -> dict[str, bytes]:
    """What stands one level down here, by the name that it has in chats."""
    found: dict[str, bytes] = {}
    effort = body.reasoning.effort if body.reasoning is not None else None
    verbosity = body.text.verbosity if body.text is not None else None
    for name, where, value, known in (
        ("reasoning_effort", "reasoning.effort", effort, _EFFORTS),
        ("verbosity", "text.verbosity", verbosity, _VERBOSITIES),
    ):
        if value is None:
            continue
        if value not in known:
            raise RequestError(f"{where} must be one of {', '.join(known)}", param=where)
        found[name] = encode(value)
    return found


def _format(text: _Text | None) -> str | None:
    """The form that the answer is to have, as the JSON that chats have it in."""
    wanted = text.format if text is not None else None
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return '{"type":"json_object"}'
    if wanted.type != "json_schema":
        raise RequestError(
            "text.format.type must be text, json_object or json_schema", param="text.format.type"
        )
    for name in ("name", "schema"):
        if getattr(wanted, name) in (None, NULL):
            raise RequestError(f"text.format.{name} must be given", param=f"text.format.{name}")
    field_of("text.format.schema", _object, bytes(wanted.schema))
    fields = ("name", "description", "schema", "strict")
    schema = {name: value for name in fields if (value := getattr(wanted, name)) is not None}
    return encode({"type": "json_schema", "json_schema": schema}).decode()


def _body(
    envelope: Envelope,
    status: str | None,
    output: Sequence[Item] = (),
    generation: Generation | None = None,
) -> dict[str, Any]:
    """The response object; without a `status`, that of `generation`, which is its whole reply."""
    echo = envelope.wanted.echo
    told: dict[str, Any] = {
        "id": f"resp_{envelope.request}", "object": "response", "created_at": envelope.created,
        "model": envelope.model, "output": output, "error": None, "incomplete_details": None,
        "instructions": None, "max_output_tokens": None, "metadata": {},
        "parallel_tool_calls": True, "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None}, "temperature": None,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": None,
        "truncation": "disabled", "usage": None, **echo, "background": False, "store": False,
    }  # fmt: skip
    if generation is not None:
        told["usage"] = _usage(generation)
        if not is_whole(generation):
            cut = "max_output_tokens" if generation.finish_reason == "length" else "content_filter"
            told["incomplete_details"] = {"reason": cut}
        status = "completed" if is_whole(generation) else "incomplete"
    told["status"] = status
    return told


def _names(envelope: Envelope) -> Names:
    tools = envelope.wanted.echo.get("tools")
    return names_in_groups(bytes(tools)) if tools is not None else {}


def _usage(generation: Generation) -> dict[str, Any]:
    prompt, completion, cached, thought = used([generation])
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": prompt + completion,
    }
