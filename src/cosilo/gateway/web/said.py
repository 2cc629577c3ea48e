"""Responses in OpenAI's JSON: bodies of whole answers, and the events of streamed ones."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from cosilo.types import Delta, Generation, TokenLogprob


@dataclass(frozen=True)
class ReplyChoice:
    """One answer, as it goes to the client."""

    generation: Generation
    logprobs: int | None = None


def chat_answer(
    request: str, created: int, model: str, choices: Sequence[ReplyChoice]
) -> dict[str, object]:
    """The body of a finished chat."""
    return {
        "id": f"chatcmpl-{request}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": i,
                "message": _message(c.generation),
                "logprobs": _chat_logprobs(c.generation.tokens, c.logprobs),
                "finish_reason": reason(c.generation),
            }
            for i, c in enumerate(choices)
        ],
        "usage": usage(c.generation for c in choices),
    }


def text_answer(
    request: str, created: int, model: str, choices: Sequence[ReplyChoice]
) -> dict[str, object]:
    """The body of finished texts (the older API)."""
    return {
        "id": f"cmpl-{request}",
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": i,
                "text": c.generation.text,
                "logprobs": _text_logprobs(c.generation.tokens, c.logprobs),
                "finish_reason": reason(c.generation),
            }
            for i, c in enumerate(choices)
        ],
        "usage": usage(c.generation for c in choices),
    }


def embedding_answer(
    model: str, rows: Sequence[Sequence[float]], *, base64_wanted: bool
) -> dict[str, object]:
    """The body with one vector per text; local vectors cost no tokens, so usage is zero."""
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": _packed(row) if base64_wanted else list(row),
        }
        for i, row in enumerate(rows)
    ]
    spent = {"prompt_tokens": 0, "total_tokens": 0}
    return {"object": "list", "data": data, "model": model, "usage": spent}


def usage(generations: Iterable[Generation]) -> dict[str, object]:
    prompt = completion = cached = 0
    for g in generations:
        prompt += max(0, g.prompt_tokens)  # -1: what the back end stated is no number
        completion += max(0, g.completion_tokens)
        cached += max(0, min(g.cached_tokens, g.prompt_tokens))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **({"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}),
    }


class ChunkWriter:
    """Pieces of a streamed answer as server-sent events.

    The envelope is the same for all pieces, so it is encoded once and each piece adds its own part.
    """

    def __init__(self, request: str, created: int, model: str, *, chat: bool, usage: bool) -> None:
        self._chat = chat
        kind = "chat.completion.chunk" if chat else "text_completion"
        prefix = "chatcmpl-" if chat else "cmpl-"
        envelope = {"id": prefix + request, "object": kind, "created": created, "model": model}
        self._open = b"data: " + _encode(envelope)[:-1] + b',"choices":['
        # With usage wanted, OpenAI says `usage: null` in every chunk but the last.
        self._close = b'],"usage":null}\n\n' if usage else b"]}\n\n"
        self._plain = (
            self._open + b'{"index":0,"delta":{"content":',
            b'},"logprobs":null,"finish_reason":null}' + self._close,
        )

    def first(self, index: int) -> bytes:
        """The chunk that opens a chat answer."""
        if not self._chat:
            return b""
        return self._choice(index, {"role": "assistant", "content": ""}, None, None)

    def piece(self, index: int, delta: Delta, logprobs: int | None) -> bytes:
        """The chunk for `delta`; empty when it holds nothing for the client."""
        if not self._chat:
            if not delta.text and not delta.tokens:
                return b""
            return self._text(index, delta.text, _text_logprobs(delta.tokens, logprobs), None)
        if (
            delta.text
            and not index
            and logprobs is None
            and not (delta.tool_calls or delta.other_texts or delta.extra)
        ):
            return self._plain[0] + _encode(delta.text) + self._plain[1]
        body: dict[str, object] = {}
        if delta.text:
            body["content"] = delta.text
        body |= delta.other_texts
        body |= _extra(delta.extra)
        calls = [
            {
                "index": c.index,
                **({"id": c.id, "type": "function"} if c.id else {}),
                "function": {**({"name": c.name} if c.name else {}), "arguments": c.arguments},
                **_extra(c.extra),
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
        shown = _chat_logprobs(delta.tokens, logprobs) if delta.tokens else None
        if not body and shown is None:
            return b""
        return self._choice(index, body, shown, None)

    def last(self, index: int, reason: str) -> bytes:
        """The chunk that ends an answer."""
        if not self._chat:
            return self._text(index, "", None, reason)
        return self._choice(index, {}, None, reason)

    def usage(self, spent: dict[str, object], facts: dict[str, object]) -> bytes:
        """The chunk without choices that tells what the answer took."""
        return (
            self._open + b'],"usage":' + _encode(spent) + b',"cosilo":' + _encode(facts) + b"}\n\n"
        )

    def _choice(
        self, index: int, delta: dict[str, object], logprobs: object, reason: str | None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._open + _encode(choice) + self._close

    def _text(self, index: int, text: str, logprobs: object, reason: str | None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return self._open + _encode(choice) + self._close


DONE = b"data: [DONE]\n\n"


def comment(facts: dict[str, object]) -> bytes:
    """An event that clients skip, with what became known only at the end."""
    return b": cosilo " + _encode(facts) + b"\n\n"


def error_event(error: dict[str, str | None]) -> bytes:
    return b"data: " + _encode({"error": error}) + b"\n\n"


_encode = msgspec.json.Encoder().encode


def _message(generation: Generation) -> dict[str, object]:
    others = dict(generation.other_texts)
    wordless = generation.tool_calls or "refusal" in others
    message: dict[str, object] = {
        "role": "assistant",
        "content": None if wordless and not generation.text else generation.text,
        "refusal": None,
        **others,
        **_extra(generation.extra),
    }
    calls = [
        {
            "id": c.id,
            "type": "function",
            "function": {"name": c.name, "arguments": c.arguments},
            **_extra(c.extra),
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


def _extra(text: str) -> dict[str, object]:
    return {"extra_content": msgspec.Raw(text.encode())} if text else {}


def reason(generation: Generation) -> str:
    """Why the answer ended, in OpenAI's words."""
    calls = generation.tool_calls
    if not calls or generation.finish_reason not in ("stop", "tool_calls"):
        return generation.finish_reason  # a call that was cut off is none to make
    return "function_call" if all(c.legacy for c in calls) else "tool_calls"


def _chat_logprobs(tokens: Sequence[TokenLogprob], wanted: int | None) -> object:
    if wanted is None or not tokens:
        return None
    return {
        "content": [
            {
                **_token(t.token, t.logprob),
                "top_logprobs": [_token(text, p) for text, p in t.top[:wanted]],
            }
            for t in tokens
        ],
        "refusal": None,
    }


def _token(text: str, logprob: float) -> dict[str, object]:
    return {
        "token": text,
        "logprob": max(logprob, -9999.0),  # JSON knows no infinity
        "bytes": list(text.encode("utf-8", "surrogatepass")),
    }


def _text_logprobs(tokens: Sequence[TokenLogprob], wanted: int | None) -> object:
    if wanted is None or not tokens:
        return None
    offsets, at = [], 0
    for t in tokens:
        offsets.append(at)
        at += len(t.token)
    return {
        "tokens": [t.token for t in tokens],
        "token_logprobs": [max(t.logprob, -9999.0) for t in tokens],
        "top_logprobs": [{a: max(p, -9999.0) for a, p in t.top[:wanted]} for t in tokens],
        "text_offset": offsets,
    }


def _packed(row: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
