"""The OpenAI chat-completions format, as our values: what is asked, what a reply or a chunk says.

Replies are parsed into types at once. What does not fit raises `MalformedReplyError`, whose text names
the place and never the content, which may quote a private prompt. A reply was worked for, so nothing
beside what it says makes it none: not its usage, not log-probabilities that nobody asked for.
Specification: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from cosilo.errors import RejectedError
from cosilo.labels import named
from cosilo.models.chat.tool_pieces import ToolPiece, ToolPieces
from cosilo.models.chat.usage import used
from cosilo.models.chat.words import code_of, finish_reason, parameter_of
from cosilo.reasoning import spoken
from cosilo.types import (
    OTHER_TEXTS,
    Chat,
    Delta,
    Generation,
    OtherTexts,
    Sampling,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    assemble,
)

_LEAST_LOGPROB = -9999.0


class MalformedReplyError(Exception):
    """A reply that is none; the text says where it goes wrong."""


class ReportedError(Exception):
    """The endpoint's own error object: its HTTP-like code, 0 without one, its name and the field it
    is about, as far as `models.chat.words` knows them.
    """

    def __init__(self, code: int, kind: str, param: str = "") -> None:
        super().__init__(kind)
        self.code = code
        self.kind = kind
        self.param = param


def request(
    chat: Chat, sampling: Sampling, *, logprobs: bool, reasoning: int = 0, written: bool = False
) -> dict[str, Any]:
    """The body that asks for a reply to `chat`, without `model` and `stream`.

    Args:
        reasoning: tokens allowed for thinking, on top of the reply's.
        written: put tools and formats into the body as the JSON they are written in, so that no
            number of theirs changes; else as what that JSON says.

    Raises:
        RejectedError: tools, tool_choice, response_format or a further field are no JSON, or a further
            field has the name of another.
    """
    body: dict[str, Any] = {
        "messages": [_message(turn) for turn in chat],
        "max_tokens": sampling.max_tokens + reasoning,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if logprobs:
        body["logprobs"] = True
        if sampling.top_logprobs:
            body["top_logprobs"] = sampling.top_logprobs
    for name in ("tools", "tool_choice", "response_format"):
        text = getattr(sampling, name)
        if text:
            body[name] = _written(text, name) if written else _json(text, name)
    for name, text in sampling.fields:
        if name in body or name in _OURS:
            raise RejectedError(
                f"{name!r} is no further field of a request", code="unsupported_parameter"
            )
        body[name] = _written(text, name) if written else _json(text, name)
    return body


_OURS = frozenset(
    ("model", "stream", "stream_options", "n", "best_of", "max_completion_tokens", "stop", "logprobs",
     "top_logprobs", "tools", "tool_choice", "response_format")
)  # fmt: skip
"""What a further field must not be called: it would take the place of what was declared and priced."""


def _message(turn: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.content, **dict(turn.other_texts)}
    calls = [call for call in turn.tool_calls if not call.legacy]
    if calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
                **_extra(call.extra),
            }
            for call in calls
        ]
    for call in turn.tool_calls:
        if call.legacy:
            message["function_call"] = {"name": call.name, "arguments": call.arguments}
    if turn.role == "tool" and not turn.tool_call_id:
        message["role"] = "function"  # what answers a call of the older API
    if turn.prefix:
        message["prefix"] = True
    message |= _extra(turn.extra)
    if turn.tool_call_id:
        message["tool_call_id"] = turn.tool_call_id
    if turn.name:
        message["name"] = turn.name
    return message


def _extra(text: str) -> dict[str, Any]:
    return {"extra_content": _json(text, "extra")} if text else {}


_raw = msgspec.json.Decoder(msgspec.Raw)


def _written(text: str, name: str) -> object:
    try:
        return _raw.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return _json(text, name)


def _json(text: str, name: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if name == "tool_choice":  # "auto", "none" and "required" stand alone
            return text
        raise RejectedError(f"sampling.{name} is no JSON") from None


_NULL = msgspec.Raw(b"null")


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: msgspec.Raw = _NULL


class _Alternative(msgspec.Struct):
    token: str
    logprob: float | None = None


class _Token(msgspec.Struct):
    token: str
    logprob: float | None = None
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Part(msgspec.Struct):
    text: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    extra_content: msgspec.Raw = _NULL


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Timings(msgspec.Struct):
    """What llama.cpp adds: milliseconds of reading the prompt and of writing the reply."""

    prompt_ms: float = 0.0
    predicted_ms: float = 0.0


class _Error(msgspec.Struct):
    code: int | str | None = None
    type: str | None = None
    param: Any = None
    message: Any = None


class _Reply(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: object = None
    timings: _Timings | None = None
    error: _Error | str | None = None


_decoder = msgspec.json.Decoder(_Reply)


def completion(data: bytes | dict[str, Any]) -> Generation:
    """The reply in `data`: JSON, or parsed JSON.

    Raises:
        MalformedReplyError: it is no reply.
        ReportedError: it is an error object.
    """
    reply = _parse(data)
    if not reply.choices:
        raise MalformedReplyError("it has no choices")
    choice = reply.choices[0]
    if choice.message is None:
        raise MalformedReplyError("its choice has no message")
    return Generation(
        _text(choice.message),
        tokens=_tokens(choice.logprobs),
        tool_calls=_calls(choice.message),
        finish_reason=finish_reason(choice.finish_reason) or "stop",
        other_texts=_others(choice.message),
        extra=_raw_text(choice.message.extra_content),
        **_usage(reply),
    )


def chunk(data: bytes | dict[str, Any], calls: ToolPieces | None = None) -> Delta:
    """The piece of a reply in `data`; empty for one that says nothing.

    Args:
        calls: the tool calls of this reply so far; without, there are none.

    Raises:
        MalformedReplyError: it is no piece of a reply.
        ReportedError: it is an error object.
    """
    piece = _piece(data, calls)
    return Delta(piece) if isinstance(piece, str) else piece


def _piece(data: bytes | dict[str, Any], calls: ToolPieces | None) -> Delta | str:
    """As `chunk` says; the text alone of a piece that holds nothing else."""
    reply = _parse(data)
    usage = _usage(reply)
    if not reply.choices:
        return Delta(**usage)
    choice = reply.choices[0]
    message = choice.delta or choice.message or _Message()
    said, others = _text(message), _others(message)
    if not (
        usage
        or message.tool_calls
        or choice.finish_reason
        or choice.logprobs
        or message.function_call
        or message.extra_content is not _NULL
    ):
        return Delta(said, other_texts=others) if others else said  # as nearly all are
    pieces, ended = _pieces(message), finish_reason(choice.finish_reason)
    told: tuple[ToolCallDelta, ...] = ()
    if pieces or (ended and calls is not None):
        calls = calls or ToolPieces()
        told = calls.feed(pieces) + (calls.end() if ended else ())
    return Delta(
        text=said,
        tokens=_tokens(choice.logprobs),
        tool_calls=told,
        finish_reason=ended,
        other_texts=others,
        extra=_raw_text(message.extra_content),
        **usage,
    )


def chunks(events: Iterable[bytes], calls: ToolPieces) -> Iterator[Delta]:
    """The pieces of a reply in `events`, which came together; of those that follow one another and say
    nothing but text, one is made. It raises what `chunk` does, once all before it was given."""
    said: list[str] = []
    try:
        for data in events:
            piece = _piece(data, calls)
            if isinstance(piece, str):
                said.append(piece)
                continue
            if said:
                yield Delta("".join(said))
                said = []
            yield piece
    except (MalformedReplyError, ReportedError):
        if said:
            yield Delta("".join(said))
        raise
    if said:
        yield Delta("".join(said))


def reported(data: bytes) -> ReportedError:
    """What the body of a refusal says; some endpoints put the error object where OpenAI has `error`."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ReportedError(0, "")
    if isinstance(found, list) and found:
        found = found[0]
    error = found.get("error", found) if isinstance(found, dict) else found
    if not isinstance(error, dict):
        error = {"message": error}
    kind = code_of(error.get("code"), error.get("type"), error.get("message"))
    return ReportedError(
        _code(error.get("code")), kind, parameter_of(error.get("param"), error.get("message"))
    )


def _parse(data: bytes | dict[str, Any]) -> _Reply:
    try:
        reply = msgspec.convert(data, _Reply) if isinstance(data, dict) else _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        reply = _mended(data)
    if reply.error is not None:
        said = reply.error if isinstance(reply.error, _Error) else _Error()
        kind = code_of(said.code, said.type, said.message)
        raise ReportedError(
            _code(said.code), kind or "error", parameter_of(said.param, said.message)
        )
    return reply


def _mended(data: bytes | dict[str, Any]) -> _Reply:
    """The reply in `data`, in which something is not as the format has it.

    Arguments that are an object become their JSON text, log-probabilities that are none are left out,
    NaN, which JSON has not, is read as text, and half a character as U+FFFD.
    """
    try:
        found = data if isinstance(data, dict) else _python(data)
        return _decoder.decode(msgspec.json.encode(_plainly(found)))
    except msgspec.ValidationError as error:
        raise MalformedReplyError(f"a field is of the wrong type ({_place(error)})") from None
    except (ValueError, RecursionError):
        raise MalformedReplyError("it is no JSON, or cut off") from None


_LONE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"""Half a character above U+FFFF: some cut such a character between two pieces of a stream."""


def _python(data: bytes) -> object:
    data = _LONE.sub(rb"\\ufffd", data)
    return json.loads(data, parse_constant=str, parse_int=lambda digits: int(digits[:20]))


def _plainly(reply: object) -> object:
    """`reply`, parsed JSON, with what `_mended` says put right in its choices."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(reply, dict) or not isinstance(choices, list):
        return reply
    return {**reply, "choices": [_plain_choice(choice) for choice in choices]}


def _plain_choice(choice: object) -> object:
    if not isinstance(choice, dict):
        return choice
    found = dict(choice)
    try:
        msgspec.convert(found.get("logprobs"), _Logprobs | None)
    except msgspec.ValidationError:
        del found["logprobs"]
    for said in ("message", "delta"):
        message = found.get(said)
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        if isinstance(message, dict) and isinstance(calls, list):
            found[said] = {**message, "tool_calls": [_plain_call(call) for call in calls]}
    return found


def _plain_call(call: object) -> object:
    if not isinstance(call, dict):
        return call
    found = dict(call)
    number, id, function = found.get("index"), found.get("id"), found.get("function")
    if isinstance(number, str):
        plain = number.isascii() and number.isdigit() and len(number) < 10
        found["index"] = int(number) if plain else None
    if isinstance(id, int):
        found["id"] = str(id)
    if isinstance(function, dict) and isinstance(function.get("arguments"), dict | list):
        written = json.dumps(function["arguments"], ensure_ascii=False)
        found["function"] = {**function, "arguments": written}
    return found


def _place(error: msgspec.ValidationError) -> str:
    """Where: the path that msgspec names, which holds names of fields and indexes only."""
    said = str(error)
    return said[said.rindex("$") :].strip("`") if "$" in said else "$"


def _code(code: object) -> int:
    try:
        return int(code) if isinstance(code, int | str) else 0
    except ValueError:
        return 0


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text or "" for part in message.content)
    return message.content or ""


def _others(message: _Message) -> OtherTexts:
    if message.refusal or message.reasoning_content or message.reasoning:
        return tuple((n, said) for n in OTHER_TEXTS if (said := getattr(message, n)))
    return ()


def _pieces(message: _Message) -> list[ToolPiece]:
    found = [
        ToolPiece(
            call.index, call.id or "", *_function(call.function), _raw_text(call.extra_content)
        )
        for call in message.tool_calls or ()
    ]
    if message.function_call is not None:
        found.append(ToolPiece(0, "", *_function(message.function_call), legacy=True))
    return found


def _function(function: _Function | None) -> tuple[str, str]:
    return (function.name or "", function.arguments or "") if function else ("", "")


def _calls(message: _Message) -> tuple[ToolCall, ...]:
    """The calls of a whole reply. There each piece is a call, whatever its number."""
    if not message.tool_calls and message.function_call is None:
        return ()
    calls, whole = ToolPieces(), []
    for place, piece in enumerate(_pieces(message)):
        piece.index = place
        (told,) = calls.feed([piece]) or (None,)
        if told is not None:
            whole.append(told)
    return assemble([Delta(tool_calls=(*whole, *calls.end()))]).tool_calls


def _raw_text(raw: msgspec.Raw) -> str:
    value = bytes(raw)
    return "" if value == b"null" else value.decode(errors="replace")


def _tokens(logprobs: _Logprobs | None) -> tuple[TokenLogprob, ...]:
    if logprobs is None:
        return ()
    return tuple(
        TokenLogprob(
            token.token,
            _finite(token.logprob),
            tuple((a.token, _finite(a.logprob)) for a in token.top_logprobs or ()),
        )
        for token in logprobs.content or ()
    )


def _finite(logprob: float | None) -> float:
    """Some engines write minus infinity as null or as the least number they have."""
    return _LEAST_LOGPROB if logprob is None else max(_LEAST_LOGPROB, min(0.0, logprob))


def _usage(reply: _Reply) -> dict[str, Any]:
    found = {} if reply.usage is None else used(reply.usage)
    if reply.timings is not None:
        found["seconds"] = (reply.timings.prompt_ms + reply.timings.predicted_ms) / 1000
    return found


def last_piece(pieces: Sequence[Delta]) -> Delta:
    """The pieces from `finish_reason` on as one, since usage often comes after it."""
    whole = assemble(pieces)
    return Delta(
        text=whole.text,
        tokens=whole.tokens,
        tool_calls=tuple(call for piece in pieces for call in piece.tool_calls),
        finish_reason=whole.finish_reason,
        prompt_tokens=whole.prompt_tokens,
        completion_tokens=whole.completion_tokens,
        seconds=whole.seconds,
        attempts=whole.attempts,
        other_texts=whole.other_texts,
        extra=whole.extra,
        cached_tokens=whole.cached_tokens,
        reasoning_tokens=whole.reasoning_tokens,
    )


def nearest_choice(text: str, choices: Sequence[str]) -> str:
    """The one of `choices` that `text` names, see `cosilo.labels`; `text` as it came where none is."""
    found = named(text, choices)
    return text if found is None else found


def choice_of(reply: Generation, choices: Sequence[str]) -> Generation:
    """`reply` with its text mapped to the nearest of `choices`, where it is clear which."""
    if not choices or reply.text in choices:
        return reply
    said = nearest_choice(spoken(reply.text), choices)
    return msgspec.structs.replace(reply, text=said) if said in choices else reply
