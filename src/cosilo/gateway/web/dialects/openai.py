"""What OpenAI's shapes have in common: errors, usage, why an answer ended, chunks of streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import msgspec

from cosilo.gateway.refusals import Refusal
from cosilo.gateway.web.dialects.base import Envelope
from cosilo.types import Generation, TokenLogprob

encode = msgspec.json.Encoder().encode

DONE = b"data: [DONE]\n\n"


class OpenAIShape:
    """How OpenAI's endpoints refuse: what `refusals` says, as it says it."""

    def error(self, refusal: Refusal) -> tuple[int, bytes]:
        return refusal.status, refusal.body

    def headers(self, request: str) -> list[tuple[str, str]]:
        return [("x-request-id", request)]


class Chunks:
    """The chunks of a stream of answers, as the two older APIs write them.

    The envelope is the same for all pieces, so it is encoded once and each piece adds its own part.
    """

    kind: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, envelope: Envelope) -> None:
        self._logprobs = envelope.wanted.logprobs
        self._usage = envelope.wanted.include_usage
        head = heading(envelope, self.kind, self.prefix)
        self._open = b"data: " + encode(head)[:-1] + b',"choices":['
        # With usage wanted, OpenAI says `usage: null` in every chunk but the last.
        self._close = b'],"usage":null}\n\n' if self._usage else b"]}\n\n"

    def end(self, generations: Sequence[Generation], facts: Mapping[str, object]) -> bytes:
        """A chunk without choices that tells what was used, where the client wants one; a comment
        that clients skip, with what became known only now; and the end.
        """
        told = encode(facts)
        used = b""
        if self._usage:
            spent = encode(usage(generations))
            used = self._open + b'],"usage":' + spent + b',"cosilo":' + told + b"}\n\n"
        return used + comment(told) + DONE

    def error(self, refusal: Refusal) -> bytes:
        return b"data: " + refusal.body + b"\n\n"


def heading(envelope: Envelope, kind: str, prefix: str) -> dict[str, object]:
    """The fields that stand around answers and chunks of them."""
    return {
        "id": prefix + envelope.request, "object": kind,
        "created": envelope.created, "model": envelope.model,
    }  # fmt: skip


def comment(facts: bytes) -> bytes:
    """An event that clients skip."""
    return b": cosilo " + facts + b"\n\n"


def used(generations: Iterable[Generation]) -> tuple[int, int, int, int]:
    """(prompt, completion, cached, reasoning) tokens of all answers: the third are part of the first,
    the fourth of the second. What cannot be part of them is left out."""
    prompt = completion = cached = thought = 0
    for g in generations:
        prompt += max(0, g.prompt_tokens)  # -1: what the back end stated is no number
        completion += max(0, g.completion_tokens)
        cached += max(0, min(g.cached_tokens, g.prompt_tokens))
        if 0 < g.reasoning_tokens <= g.completion_tokens:
            thought += g.reasoning_tokens
    return prompt, completion, cached, thought


def usage(generations: Iterable[Generation]) -> dict[str, object]:
    prompt, completion, cached, thought = used(generations)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **({"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}),
        **({"completion_tokens_details": {"reasoning_tokens": thought}} if thought else {}),
    }


def reason(generation: Generation) -> str:
    """Why the answer ended, in OpenAI's words."""
    calls = generation.tool_calls
    if not calls or generation.finish_reason not in ("stop", "tool_calls"):
        return generation.finish_reason  # a call that was cut off is none to make
    return "function_call" if all(c.legacy for c in calls) else "tool_calls"


def extra_content(text: str) -> dict[str, object]:
    """JSON that the model's owner wants back as it came, in the field that it came in."""
    return {"extra_content": msgspec.Raw(text.encode())} if text else {}


def token_logprobs(tokens: Sequence[TokenLogprob], wanted: int) -> list[dict[str, object]]:
    """Each token with its log-probability and `wanted` alternatives."""
    return [
        {
            **_token(t.token, t.logprob),
            "top_logprobs": [_token(text, p) for text, p in t.top[:wanted]],
        }
        for t in tokens
    ]


def _token(text: str, logprob: float) -> dict[str, object]:
    return {
        "token": text,
        "logprob": max(logprob, -9999.0),  # JSON knows no infinity
        "bytes": list(text.encode("utf-8", "surrogatepass")),
    }
