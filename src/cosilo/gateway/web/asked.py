"""What clients ask, from OpenAI's JSON: a body becomes one of the types below, or is refused.

A body is parsed once; nothing past this file sees JSON. A field that is not known here is refused,
because it may change what is meant; of the known ones that the models cannot honour, a neutral value
is accepted and any other refused. Error texts name the field, never what stood in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any

import msgspec

from cosilo.gateway.refusals import RequestError
from cosilo.types import (
    OTHER_TEXTS,
    Chat,
    Role,
    ToolCall,
    Turn,
)

MOST_CHOICES = 16

Raw = msgspec.Raw
_NULL = Raw(b"null")


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """A request to continue chats, each `n` times. The older API's texts are chats of one turn.

    Attributes:
        sampling: the fields of `Sampling` that the client set; the point's own hold for the rest.
        n: how many answers are wanted, each asked for on its own.
        logprobs: None when not wanted, else the number of alternatives shown for each token.
        user: who the client says is asking, as the JSON it sent: `user`, or else `safety_identifier`.
    """

    model: str
    chats: tuple[Chat, ...]
    sampling: dict[str, Any] = field(default_factory=dict)
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    logprobs: int | None = None
    user: bytes = b""


@dataclass(frozen=True, kw_only=True)
class EmbeddingRequest:
    model: str
    texts: tuple[str, ...]
    base64: bool = False


# What a body may hold. None stands for "not given": clients send null for what they leave out.


class _Function(msgspec.Struct):
    name: str
    arguments: str = ""


class _Call(msgspec.Struct):
    function: _Function
    id: str = ""
    type: str = "function"
    extra_content: Raw = _NULL


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Turn(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    function_call: _Function | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    extra_content: Raw = _NULL
    prefix: bool | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


_Positive = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
_Name = Annotated[str, msgspec.Meta(max_length=200)]


class _Common(msgspec.Struct, kw_only=True):
    model: _Name
    max_tokens: _Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MOST_CHOICES)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=16)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: Raw = _NULL
    safety_identifier: Raw = _NULL


class _ChatBody(_Common, kw_only=True):
    messages: Annotated[list[_Turn], msgspec.Meta(min_length=1)]
    max_completion_tokens: _Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: Raw = _NULL
    tool_choice: Raw = _NULL
    response_format: Raw = _NULL


class _TextBody(_Common, kw_only=True):
    prompt: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=64)]
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None


class _EmbeddingBody(msgspec.Struct, kw_only=True):
    model: _Name
    input: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=2048)]
    encoding_format: str | None = None


class _ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None


class _Tool(msgspec.Struct):
    type: str
    function: _ToolFunction


class _Format(msgspec.Struct):
    type: str


# Fields that say nothing about the answer.
IGNORED = frozenset({
    "metadata", "store", "service_tier", "prompt_cache_key",
    "prompt_cache_retention",
})  # fmt: skip

# Fields that would change the answer, with the values that leave it as it is.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "parallel_tool_calls": (True,),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none",),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "web_search_options": (),
    "top_k": (0, -1),
    "min_p": (0,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "dimensions": (),
}

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant",
    "tool": "tool", "function": "tool",
}  # fmt: skip

_keys = msgspec.json.Decoder(dict[str, Raw])
_chat = msgspec.json.Decoder(_ChatBody)
_text = msgspec.json.Decoder(_TextBody)
_embedding = msgspec.json.Decoder(_EmbeddingBody)
_tools = msgspec.json.Decoder(list[_Tool])
_choice = msgspec.json.Decoder(str | _Tool)
_format = msgspec.json.Decoder(_Format)


def read_chat(body: bytes) -> Continuation:
    """The request in the body of `/v1/chat/completions`.

    Raises:
        RequestError: it is not JSON, or a field is missing, unknown, of the wrong type or refused.
    """
    found = _decode(body, _chat, _ChatBody)
    given = _sampling(found)
    if found.max_completion_tokens is not None:
        if found.max_tokens not in (None, found.max_completion_tokens):
            raise RequestError(
                "max_tokens and max_completion_tokens differ; give one of them",
                param="max_completion_tokens",
            )
        given["max_tokens"] = found.max_completion_tokens
    if found.top_logprobs and not found.logprobs:
        raise RequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    if found.logprobs:
        # One alternative is the least that makes a back end show the token's own probability.
        given["top_logprobs"] = max(1, found.top_logprobs or 0)
    given |= _tool_fields(found)
    return Continuation(
        model=found.model,
        chats=(tuple(_turn(t, i) for i, t in enumerate(found.messages)),),
        sampling=given,
        n=found.n or 1,
        stream=bool(found.stream),
        include_usage=_include_usage(found),
        user=_user(found),
        logprobs=(found.top_logprobs or 0) if found.logprobs else None,
    )


def read_text(body: bytes) -> Continuation:
    """The request in the body of `/v1/completions`.

    Raises:
        RequestError: as for `read_chat`.
    """
    found = _decode(body, _text, _TextBody)
    given = _sampling(found)
    if found.logprobs is not None:
        given["top_logprobs"] = max(1, found.logprobs)
    prompts = [found.prompt] if isinstance(found.prompt, str) else found.prompt
    n = found.n or 1
    if n * len(prompts) > 64:
        raise RequestError("n times the number of prompts is above 64", param="n")
    return Continuation(
        model=found.model,
        chats=tuple((Turn("user", p),) for p in prompts),
        sampling=given,
        n=n,
        stream=bool(found.stream),
        include_usage=_include_usage(found),
        user=_user(found),
        logprobs=found.logprobs,
    )


def read_embedding(body: bytes) -> EmbeddingRequest:
    """The request in the body of `/v1/embeddings`.

    Raises:
        RequestError: as for `read_chat`.
    """
    found = _decode(body, _embedding, _EmbeddingBody)
    if found.encoding_format not in (None, "float", "base64"):
        raise RequestError("encoding_format must be float or base64", param="encoding_format")
    texts = (found.input,) if isinstance(found.input, str) else tuple(found.input)
    if not all(texts):
        raise RequestError("a text to embed is empty", param="input")
    return EmbeddingRequest(
        model=found.model, texts=texts, base64=found.encoding_format == "base64"
    )


def _decode(body: bytes, decoder: msgspec.json.Decoder[Any], cls: type[Any]) -> Any:
    try:
        body.decode()  # parts that are passed on as they came are not looked into below
        known = cls.__struct_fields__
        for name, value in _keys.decode(body).items():
            if name not in known:
                _unknown(name, bytes(value), known)
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(error, "") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestError("the body is not JSON in UTF-8", code="invalid_json") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply", code="invalid_json") from None


def _unknown(name: str, value: bytes, known: Sequence[str]) -> None:
    """Refuse the field `name` unless it, or its value, changes nothing."""
    if name in IGNORED or value == b"null":
        return
    if name in NEUTRAL:
        if msgspec.json.decode(value) in NEUTRAL[name]:
            return
        raise RequestError(
            f"{name}: not supported with this value, and ignoring it would change the answer",
            param=name, code="unsupported_parameter",
        )  # fmt: skip
    near = get_close_matches(name[:64], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise RequestError(
        f"{name[:64]!r} is not a field of this request{hint}",
        param=name[:64], code="unknown_parameter",
    )  # fmt: skip


def _sampling(body: _Common) -> dict[str, Any]:
    given: dict[str, Any] = {
        name: value
        for name in ("max_tokens", "temperature", "top_p", "seed")
        if (value := getattr(body, name)) is not None
    }
    if body.stop is not None:
        stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
        if not all(stops):
            raise RequestError("stop: a stop sequence is empty", param="stop")
        given["stop"] = stops
    return given


def _user(body: _Common) -> bytes:
    return _present(body.user) or _present(body.safety_identifier) or b""


def _include_usage(body: _Common) -> bool:
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options needs stream: true", param="stream_options")
    return bool(body.stream_options and body.stream_options.include_usage)


def _tool_fields(body: _ChatBody) -> dict[str, str]:
    """Tools, tool choice and format as JSON text, looked at just enough to refuse nonsense."""
    given: dict[str, str] = {}
    if (raw := _present(body.tools)) is not None:
        tools = _part("tools", _tools, raw)
        if any(t.type != "function" for t in tools):
            raise RequestError("tools: only tools of type function are supported", param="tools")
        if tools:
            given["tools"] = raw.decode()
    if (raw := _present(body.tool_choice)) is not None:
        choice = _part("tool_choice", _choice, raw)
        if isinstance(choice, str) and choice not in ("none", "auto", "required"):
            raise RequestError("tool_choice must be none, auto or required", param="tool_choice")
        if "tools" not in given and choice != "none":
            raise RequestError("tool_choice needs tools", param="tool_choice")
        if "tools" in given:
            given["tool_choice"] = raw.decode()
    if (raw := _present(body.response_format)) is not None:
        kind = _part("response_format", _format, raw).type
        if kind not in ("text", "json_object", "json_schema"):
            raise RequestError(
                "response_format.type must be text, json_object or json_schema",
                param="response_format.type",
            )
        if kind != "text":
            given["response_format"] = raw.decode()
    return given


def _present(raw: Raw) -> bytes | None:
    value = bytes(raw)
    return None if value == b"null" else value


def _part(name: str, decoder: msgspec.json.Decoder[Any], raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _invalid(error, name) from None


def _invalid(error: msgspec.ValidationError, name: str) -> RequestError:
    """What is wrong and where; msgspec's texts name types and places, never values."""
    what, _, where = str(error).partition(" - at `$")
    param = (name + where.rstrip("`")).lstrip(".")
    if missing := re.search(r"missing required field `(\w+)`", what):
        param = f"{param}.{missing[1]}".lstrip(".")
    return RequestError(f"{param or 'the body'}: {what}", param=param or None)


def _turn(turn: _Turn, number: int) -> Turn:
    where = f"messages[{number}]"
    role = _ROLES.get(turn.role)
    if role is None:
        raise RequestError(
            f"{where}.role must be one of {', '.join(_ROLES)}", param=f"{where}.role"
        )
    content = turn.content
    if isinstance(content, list):
        content = "\n".join(_text_of(p, f"{where}.content[{i}]") for i, p in enumerate(content))
    calls = [
        ToolCall(c.id, c.function.name, c.function.arguments, _json_text(c.extra_content))
        for c in turn.tool_calls or ()
    ]
    if (legacy := turn.function_call) is not None:
        calls.append(ToolCall("", legacy.name, legacy.arguments, legacy=True))
    if calls and role != "assistant":
        raise RequestError(f"{where}: only an assistant calls tools", param=f"{where}.tool_calls")
    if content is None and not calls and role != "assistant":
        raise RequestError(f"{where}.content must be given", param=f"{where}.content")
    if turn.role == "function" and not turn.name:
        raise RequestError(f"{where}.name must be given", param=f"{where}.name")
    if turn.role == "tool" and not turn.tool_call_id:
        raise RequestError(f"{where}.tool_call_id must be given", param=f"{where}.tool_call_id")
    return Turn(
        role,
        content or "",
        tool_calls=tuple(calls),
        tool_call_id=turn.tool_call_id or "",
        name=turn.name or "",
        other_texts=tuple((n, said) for n in OTHER_TEXTS if (said := getattr(turn, n))),
        extra=_json_text(turn.extra_content),
        prefix=bool(turn.prefix),
    )


def _json_text(raw: Raw) -> str:
    return (_present(raw) or b"").decode()


def _text_of(part: _Part, where: str) -> str:
    if part.type == "text" and part.text is not None:
        return part.text
    if part.type == "refusal" and part.refusal is not None:
        return part.refusal
    if part.type in ("text", "refusal"):
        raise RequestError(f"{where}.{part.type} must be given", param=where)
    raise RequestError(
        f"{where}: only text can be kept private, so only parts of type text are accepted",
        param=where, code="unsupported_content",
    )  # fmt: skip
