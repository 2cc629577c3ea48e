"""`/v1/completions`: OpenAI's older API, which continues texts. A text is a chat of one turn here.

Reference: https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.web.dialects.base import Continuation, Envelope, Header
from cosilo.gateway.web.dialects.fields import Common, decoded, include_usage, sampling_of, user_of
from cosilo.gateway.web.dialects.openai import (
    Chunks,
    OpenAIShape,
    encode,
    heading,
    reason,
    usage,
)
from cosilo.types import Delta, Generation, TokenLogprob, Turn

_MOST_ANSWERS = 64


class Completions(OpenAIShape):
    endpoint: ClassVar[str] = "completions"
    path: ClassVar[str] = "/v1/completions"

    def read(self, body: bytes, header: Header) -> Continuation:
        return read_text(body)

    def whole(self, envelope: Envelope, generations: Sequence[Generation]) -> bytes:
        wanted = envelope.wanted.logprobs
        return encode({
            **heading(envelope, "text_completion", "cmpl-"),
            "choices": [
                {
                    "index": i,
                    "text": g.text,
                    "logprobs": _logprobs(g.tokens, wanted),
                    "finish_reason": reason(g),
                }
                for i, g in enumerate(generations)
            ],
            "usage": usage(generations),
        })  # fmt: skip

    def events(self, envelope: Envelope) -> TextChunks:
        return TextChunks(envelope)


class _TextBody(Common, kw_only=True):
    prompt: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=64)]
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None


_text = msgspec.json.Decoder(_TextBody)


def read_text(body: bytes) -> Continuation:
    """The request in the body of `/v1/completions`.

    Raises:
        RequestError: it is not JSON, or a field is missing, unknown, of the wrong type or refused.
    """
    found, others = decoded(body, _text, _TextBody)
    given = sampling_of(found)
    if found.logprobs is not None:
        given["top_logprobs"] = max(1, found.logprobs)
    prompts = [found.prompt] if isinstance(found.prompt, str) else found.prompt
    n = found.n or 1
    if n * len(prompts) > _MOST_ANSWERS:
        raise RequestError(f"n times the number of prompts is above {_MOST_ANSWERS}", param="n")
    return Continuation(
        model=found.model,
        chats=tuple((Turn("user", p),) for p in prompts),
        sampling=given,
        n=n,
        stream=bool(found.stream),
        include_usage=include_usage(found),
        user=user_of(found),
        others=others,
        logprobs=found.logprobs,
    )


class TextChunks(Chunks):
    """A streamed text, in chunks that each hold a piece of it."""

    kind: ClassVar[str] = "text_completion"
    prefix: ClassVar[str] = "cmpl-"

    def first(self, index: int) -> bytes:
        return b""

    def piece(self, index: int, delta: Delta) -> bytes:
        if not delta.text and not delta.tokens:
            return b""
        return self._text(index, delta.text, _logprobs(delta.tokens, self._logprobs), None)

    def last(self, index: int, generation: Generation) -> bytes:
        return self._text(index, "", None, reason(generation))

    def _text(self, index: int, text: str, logprobs: object, reason: str | None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return self._open + encode(choice) + self._close


def _logprobs(tokens: Sequence[TokenLogprob], wanted: int | None) -> object:
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
