"""`/v1/chat/completions`: OpenAI's chats, which most clients and servers speak.

Reference: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.web.dialects.base import Continuation, Envelope, Header
from cosilo.gateway.web.dialects.fields import (
    NULL,
    Common,
    Positive,
    Raw,
    decoded,
    field_of,
    include_usage,
    json_text,
    known_of,
    present,
    sampling_of,
    user_of,
)
from cosilo.gateway.web.dialects.files import Files, elsewhere
from cosilo.gateway.web.dialects.openai import (
    Chunks,
    OpenAIShape,
    encode,
    extra_content,
    heading,
    reason,
    token_logprobs,
    usage,
)
from cosilo.types import (
    OTHER_TEXTS,
    Delta,
    Generation,
    OtherTexts,
    Role,
    TokenLogprob,
    ToolCall,
    Turn,
)


class ChatCompletions(OpenAIShape):
    endpoint: ClassVar[str] = "chat"
    path: ClassVar[str] = "/v1/chat/completions"

    def read(self, body: bytes, header: Header) -> Continuation:
        return read_chat(body)

    def whole(self, envelope: Envelope, generations: Sequence[Generation]) -> bytes:
        wanted = envelope.wanted.logprobs
        return encode({
            **heading(envelope, "chat.completion", "chatcmpl-"),
            "choices": [
                {
                    "index": i,
                    "message": _message(g),
                    "logprobs": _logprobs(g.tokens, wanted),
                    "finish_reason": reason(g),
                }
                for i, g in enumerate(generations)
            ],
            "usage": usage(generations),
        })  # fmt: skip

    def events(self, envelope: Envelope) -> ChatChunks:
        return ChatChunks(envelope)


# What a body may hold. None stands for "not given": clients send null for what they leave out.


class _Function(msgspec.Struct):
    name: str
    arguments: str = ""


class _Call(msgspec.Struct):
    function: _Function
    id: str = ""
    type: str = "function"
    extra_content: Raw = NULL


class _FilePart(msgspec.Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _ImagePart(msgspec.Struct):
    url: str


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    file: _FilePart | None = None
    image_url: _ImagePart | None = None


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
    extra_content: Raw = NULL
    prefix: bool | None = None


class _ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None


class _Tool(msgspec.Struct):
    type: str
    function: _ToolFunction


class _ToolNamed(msgspec.Struct):
    type: str
    function: _ToolFunction | None = None


class _Format(msgspec.Struct):
    type: str


class _ChatBody(Common, kw_only=True):
    messages: Annotated[list[_Turn], msgspec.Meta(min_length=1)]
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: Raw = NULL
    tool_choice: Raw = NULL
    response_format: Raw = NULL


_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant",
    "tool": "tool", "function": "tool",
}  # fmt: skip

_chat = msgspec.json.Decoder(_ChatBody)
_INSIDE = {"messages": known_of(_Turn)}
_tools = msgspec.json.Decoder(list[_Tool])
_choice = msgspec.json.Decoder(str | _ToolNamed)
_format = msgspec.json.Decoder(_Format)


def read_chat(body: bytes) -> Continuation:
    """The request in the body of `/v1/chat/completions`.

    Raises:
        RequestError: it is not JSON, or a field is missing, unknown, of the wrong type or refused.
    """
    found, others = decoded(body, _chat, _ChatBody, _INSIDE)
    files = Files()
    given = sampling_of(found)
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
        chats=(tuple(_turn(t, i, files) for i, t in enumerate(found.messages)),),
        sampling=given,
        n=found.n or 1,
        stream=bool(found.stream),
        include_usage=include_usage(found),
        user=user_of(found),
        others=others,
        files=files.found,
        logprobs=(found.top_logprobs or 0) if found.logprobs else None,
    )


def _tool_fields(body: _ChatBody) -> dict[str, str]:
    """Tools, tool choice and format as JSON text, looked at just enough to refuse nonsense."""
    given: dict[str, str] = {}
    tools: list[_Tool] = []
    if (raw := present(body.tools)) is not None:
        tools = field_of("tools", _tools, raw)
        if any(t.type != "function" for t in tools):
            raise RequestError("tools: only tools of type function are supported", param="tools")
        if tools:
            given["tools"] = raw.decode()
    if (raw := present(body.tool_choice)) is not None:
        choice = field_of("tool_choice", _choice, raw)
        if isinstance(choice, str) and choice not in ("none", "auto", "required"):
            raise RequestError("tool_choice must be none, auto or required", param="tool_choice")
        if "tools" not in given and choice != "none":
            raise RequestError("tool_choice needs tools", param="tool_choice")
        if "tools" in given:
            given["tool_choice"] = _chosen(choice, tools)
    if (raw := present(body.response_format)) is not None:
        kind = field_of("response_format", _format, raw).type
        if kind not in ("text", "json_object", "json_schema"):
            raise RequestError(
                "response_format.type must be text, json_object or json_schema",
                param="response_format.type",
            )
        if kind != "text":
            given["response_format"] = raw.decode()
    return given


def _chosen(choice: str | _ToolNamed, tools: list[_Tool]) -> str:
    """`choice` as JSON of its own words alone: what else a client wrote beside them, no guard reads."""
    if isinstance(choice, str):
        return msgspec.json.encode(choice).decode()
    if choice.type != "function" or choice.function is None:
        raise RequestError(
            "tool_choice must be none, auto, required or a function",
            param="tool_choice.type", code="unsupported_parameter",
        )  # fmt: skip
    name = choice.function.name
    if all(tool.function.name != name for tool in tools):
        raise RequestError(
            "tool_choice names a tool that tools has not", param="tool_choice.function.name"
        )
    return msgspec.json.encode({"type": "function", "function": {"name": name}}).decode()


def _turn(turn: _Turn, number: int, files: Files) -> Turn:
    where = f"messages[{number}]"
    role = _ROLES.get(turn.role)
    if role is None:
        raise RequestError(
            f"{where}.role must be one of {', '.join(_ROLES)}", param=f"{where}.role"
        )
    content = turn.content
    if isinstance(content, list):
        asks = files if role in ("user", "tool") else None
        content = "\n".join(
            _text_of(p, f"{where}.content[{i}]", asks) for i, p in enumerate(content)
        )
    calls = [
        ToolCall(c.id, c.function.name, c.function.arguments, json_text(c.extra_content))
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
        other_texts=_others(turn),
        extra=json_text(turn.extra_content),
        prefix=bool(turn.prefix),
    )


def _others(turn: _Turn) -> OtherTexts:
    if turn.refusal or turn.reasoning_content or turn.reasoning:
        return tuple((n, said) for n in OTHER_TEXTS if (said := getattr(turn, n)))
    return ()


def _text_of(part: _Part, where: str, files: Files | None) -> str:
    if part.type == "text" and part.text is not None:
        return part.text
    if part.type == "refusal" and part.refusal is not None:
        return part.refusal
    if part.type in ("text", "refusal"):
        raise RequestError(f"{where}.{part.type} must be given", param=where)
    if files is not None and part.type == "file" and part.file is not None:
        if part.file.file_data is None:
            raise elsewhere(f"{where}.file", "file_id", kept=True)
        return files.take(part.file.file_data, f"{where}.file", name=part.file.filename)
    if files is not None and part.type == "image_url" and part.image_url is not None:
        return files.take(part.image_url.url, f"{where}.image_url")
    raise RequestError(
        f"{where}: only text can be kept private, so only parts of type text, file and image_url are "
        "accepted, of users and tools",
        param=where, code="unsupported_content",
    )  # fmt: skip


class ChatChunks(Chunks):
    """A streamed chat, in chunks that each hold what is new of an answer."""

    kind: ClassVar[str] = "chat.completion.chunk"
    prefix: ClassVar[str] = "chatcmpl-"

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(envelope)
        self._plain = (
            self._open + b'{"index":0,"delta":{"content":',
            b'},"logprobs":null,"finish_reason":null}' + self._close,
        )

    def first(self, index: int) -> bytes:
        return self._choice(index, {"role": "assistant", "content": ""}, None, None)

    def piece(self, index: int, delta: Delta) -> bytes:
        if (
            delta.text
            and not index
            and self._logprobs is None
            and not (delta.tool_calls or delta.other_texts or delta.extra)
        ):
            return self._plain[0] + encode(delta.text) + self._plain[1]
        body: dict[str, object] = {}
        if delta.text:
            body["content"] = delta.text
        body |= delta.other_texts
        body |= extra_content(delta.extra)
        calls = [
            {
                "index": c.index,
                **({"id": c.id, "type": "function"} if c.id else {}),
                "function": {**({"name": c.name} if c.name else {}), "arguments": c.arguments},
                **extra_content(c.extra),
            }
            for c in delta.tool_calls
            if not c.legacy
        ]
        if calls:
            body["tool_calls"] = calls
        for c in delta.tool_calls:
            if c.legacy:
                named = {"name": c.name} if c.name else {}
                body["function_call"] = {**named, "arguments": c.arguments}
        shown = _logprobs(delta.tokens, self._logprobs) if delta.tokens else None
        if not body and shown is None:
            return b""
        return self._choice(index, body, shown, None)

    def last(self, index: int, generation: Generation) -> bytes:
        return self._choice(index, {}, None, reason(generation))

    def _choice(
        self, index: int, delta: dict[str, object], logprobs: object, reason: str | None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._open + encode(choice) + self._close


def _message(generation: Generation) -> dict[str, object]:
    others = dict(generation.other_texts)
    wordless = generation.tool_calls or "refusal" in others
    message: dict[str, object] = {
        "role": "assistant",
        "content": None if wordless and not generation.text else generation.text,
        "refusal": None,
        **others,
        **extra_content(generation.extra),
    }
    calls = [
        {
            "id": c.id,
            "type": "function",
            "function": {"name": c.name, "arguments": c.arguments},
            **extra_content(c.extra),
        }
        for c in generation.tool_calls
        if not c.legacy
    ]
    if calls:
        message["tool_calls"] = calls
    for c in generation.tool_calls:
        if c.legacy:
            message["function_call"] = {"name": c.name, "arguments": c.arguments}
    return message


def _logprobs(tokens: Sequence[TokenLogprob], wanted: int | None) -> object:
    if wanted is None or not tokens:
        return None
    return {"content": token_logprobs(tokens, wanted), "refusal": None}
