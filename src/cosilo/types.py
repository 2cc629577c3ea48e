"""Values that every layer speaks: text in, text out, and what it took.

They are `msgspec.Struct`s because they are what messages are made of: the same definition is the
in-memory value and the wire format. What may stand in a field is declared with the field (how many,
from where to where): bytes that say something else are refused before they become one.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Chosen = Literal["all", "first", "sampled"]
"""Which of an owner's records were taken: all, the first so many, or some by quotas."""


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all values: frozen, hashable, and encoded without their defaults."""


Many = Annotated[tuple[T, ...], Meta(max_length=1 << 20)]
"""Some of a kind: at most a million in one place."""

Count = Annotated[int, Meta(ge=0, le=1 << 31)]
"""So small that what a few of them make together still fits into 64 bits, as columns of a table do."""

Claim = Annotated[int, Meta(extra={"range": "any"})]
"""A number that the other side states and that nobody can bound: whoever uses it judges it first."""

Amount = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
"""Seconds, ε, a temperature: neither negative nor infinite, and a number."""

Probability = Annotated[float, Meta(ge=0, le=1)]

LogProbability = Annotated[float, Meta(le=1e-3, extra={"range": "from minus infinity on"})]
"""Its natural logarithm, rounded: minus infinity for 0, and no NaN."""

OTHER_TEXTS = ("refusal", "reasoning_content", "reasoning")
"""What a message may say beside its content, by the names of the fields it comes in."""

_OtherName = Annotated[str, Meta(pattern=rf"\A({'|'.join(OTHER_TEXTS)})\Z")]
OtherTexts = Annotated[tuple[tuple[_OtherName, str], ...], Meta(max_length=8)]
"""(one of `OTHER_TEXTS`, the text)"""


_FieldName = Annotated[str, Meta(pattern=r"\A(n|[A-Za-z][A-Za-z0-9_.-]{0,63})\Z")]
FurtherFields = Annotated[tuple[tuple[_FieldName, str], ...], Meta(max_length=64)]
"""(a field of the chat API, its value as JSON), sorted by name; see `models.chat.fields`."""


class ToolCall(Value, frozen=True):
    """A call the model wants made. `arguments` is JSON text, as OpenAI's API has it.

    `extra` is JSON that the model's owner wants back with the call as it came (`extra_content`, a
    signature of its thoughts). `legacy` marks a call of the older API, `function_call`, without an id.
    """

    id: str
    name: str
    arguments: str
    extra: str = ""
    legacy: bool = False


class Turn(Value, frozen=True):
    """A message of a chat. `prefix`: the reply is to go on from its content. `extra`: as for a call."""

    role: Role
    content: str = ""
    tool_calls: Many[ToolCall] = ()
    tool_call_id: str = ""
    name: str = ""
    other_texts: OtherTexts = ()
    extra: str = ""
    prefix: bool = False


Chat = Many[Turn]


class Sampling(Value, frozen=True, kw_only=True):
    """How a reply is drawn.

    `choices` restricts the reply to one of the given strings (grammar-constrained where the back
    end can, mapped to the nearest otherwise). `top_logprobs` is the number of alternatives wanted
    per token (0: none). `tools`, `tool_choice` and `response_format` are JSON text, passed through
    as they came. `fields` are further fields of the request, which a back end honours or refuses.
    """

    max_tokens: Count = 256
    temperature: Amount = 0.0
    top_p: Probability = 1.0
    seed: Claim = 0
    stop: Many[str] = ()
    choices: Many[str] = ()
    top_logprobs: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    tools: str = ""
    tool_choice: str = ""
    response_format: str = ""
    fields: FurtherFields = ()


class TokenLogprob(Value, frozen=True):
    """One token of a reply with its natural-log probability and the best alternatives."""

    token: str
    logprob: LogProbability
    top: Many[tuple[str, LogProbability]] = ()


class Generation(Value, frozen=True):
    """A reply and what it took.

    `prompt_tokens` and `completion_tokens` are what the back end says it used: 0 where it says nothing,
    -1 where what it says is no number of tokens. `cached_tokens` are those of the prompt's tokens that
    it says it had read before, said in the same way. `seconds` is the service time it measured (for a
    recorded answer: the recorded time); `cpu_seconds` the local CPU it used; `attempts` how many of the
    times that the request was sent may have been worked on, the one that was answered among them.
    `reasoning_tokens` are those of the reply's that it says it thought with, said in the same way.
    """

    text: str
    tokens: Many[TokenLogprob] = ()
    tool_calls: Many[ToolCall] = ()
    finish_reason: FinishReason = "stop"
    prompt_tokens: Claim = 0
    completion_tokens: Claim = 0
    seconds: Amount = 0.0
    cpu_seconds: Amount = 0.0
    attempts: Claim = 1
    other_texts: OtherTexts = ()
    extra: str = ""
    cached_tokens: Claim = 0
    reasoning_tokens: Claim = 0

    @property
    def logprob(self) -> float | None:
        """Summed log-probability of the reply, or None when the back end shows none."""
        return sum(t.logprob for t in self.tokens) if self.tokens else None


class ToolCallDelta(Value, frozen=True):
    """A piece of a tool call: `index` says which call it continues."""

    index: Count
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: str = ""
    legacy: bool = False


class Delta(Value, frozen=True):
    """A piece of a reply. The last one carries `finish_reason` and the usage."""

    text: str = ""
    tokens: Many[TokenLogprob] = ()
    tool_calls: Many[ToolCallDelta] = ()
    finish_reason: FinishReason | None = None
    prompt_tokens: Claim = 0
    completion_tokens: Claim = 0
    seconds: Amount = 0.0
    attempts: Claim = 1
    other_texts: OtherTexts = ()
    extra: str = ""
    cached_tokens: Claim = 0
    reasoning_tokens: Claim = 0


class Demonstration(Value, frozen=True):
    """A chat and the reply wanted for it: what models are trained and calibrated on.

    `weight` is how much it counts in training beside the others: 2 as much as two copies of it.
    """

    id: str
    chat: Chat
    target: str
    weight: float = 1.0


class Answer(Value, frozen=True):
    """What a strategy returns for one chat.

    `confidence` is the strategy's own probability that the answer is right, where it has one.
    `suspect` is set when the strategy has reason to think the other side's reply was tampered with.
    `abstained` is set when it has no answer that it holds to be sure enough; its text is empty then.
    """

    generation: Generation
    by: Literal["small", "large", "both"]
    confidence: float | None = None
    suspect: bool = False
    abstained: bool = False

    @property
    def text(self) -> str:
        return self.generation.text

    @classmethod
    def none(
        cls, by: Literal["small", "large", "both"], *, confidence: float | None = None
    ) -> Answer:
        """What is returned where nothing is sure enough to be answered."""
        empty = Generation("", finish_reason="content_filter")
        return cls(empty, by=by, confidence=confidence, abstained=True)


def user(text: str, *, system: str = "") -> Chat:
    """A one-turn chat, with a system turn in front when `system` is given."""
    turns = (Turn("system", system),) if system else ()
    return (*turns, Turn("user", text))


def last_user(chat: Chat) -> str:
    """The content of the last user turn; empty when there is none."""
    return next((t.content for t in reversed(chat) if t.role == "user"), "")


def assemble(deltas: Iterable[Delta], *, attempts: int = 1) -> Generation:
    """The whole reply that `deltas` are the pieces of.

    Args:
        attempts: how often it was asked for at least; of a reply cut off, its last piece cannot say.
    """
    text: list[str] = []
    tokens: list[TokenLogprob] = []
    calls: dict[int, list[ToolCallDelta]] = {}
    others: dict[str, list[str]] = {}
    extra = ""
    finish: FinishReason = "stop"
    prompt_tokens = completion_tokens = cached_tokens = reasoning_tokens = 0
    seconds = 0.0
    for delta in deltas:
        text.append(delta.text)
        if delta.tokens:
            tokens.extend(delta.tokens)
        for piece in delta.tool_calls:
            calls.setdefault(piece.index, []).append(piece)
        if delta.other_texts:
            for name, said in delta.other_texts:
                others.setdefault(name, []).append(said)
        extra = delta.extra or extra
        finish = delta.finish_reason or finish
        prompt_tokens = delta.prompt_tokens or prompt_tokens
        completion_tokens = delta.completion_tokens or completion_tokens
        cached_tokens = delta.cached_tokens or cached_tokens
        reasoning_tokens = delta.reasoning_tokens or reasoning_tokens
        seconds = delta.seconds or seconds
        if delta.attempts > attempts:
            attempts = delta.attempts
    return Generation(
        "".join(text),
        tokens=tuple(tokens),
        tool_calls=tuple(_call(calls[i]) for i in sorted(calls)),
        finish_reason=finish,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        seconds=seconds,
        attempts=attempts,
        other_texts=tuple((name, "".join(said)) for name, said in others.items()),
        extra=extra,
        cached_tokens=cached_tokens,
        reasoning_tokens=reasoning_tokens,
    )


def _call(pieces: list[ToolCallDelta]) -> ToolCall:
    return ToolCall(
        "".join(p.id for p in pieces),
        "".join(p.name for p in pieces),
        "".join(p.arguments for p in pieces),
        next((p.extra for p in reversed(pieces) if p.extra), ""),
        any(p.legacy for p in pieces),
    )


def disassemble(generation: Generation) -> Delta:
    """The whole reply as one piece: what a back end without streaming yields."""
    return Delta(
        text=generation.text,
        tokens=generation.tokens,
        tool_calls=tuple(
            ToolCallDelta(i, c.id, c.name, c.arguments, c.extra, c.legacy)
            for i, c in enumerate(generation.tool_calls)
        ),
        finish_reason=generation.finish_reason,
        prompt_tokens=generation.prompt_tokens,
        completion_tokens=generation.completion_tokens,
        seconds=generation.seconds,
        attempts=generation.attempts,
        other_texts=generation.other_texts,
        extra=generation.extra,
        cached_tokens=generation.cached_tokens,
        reasoning_tokens=generation.reasoning_tokens,
    )


@asynccontextmanager
async def closing(pieces: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """`pieces`, closed on the way out whatever happens, so that leaving early cancels the work."""
    try:
        yield pieces
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()
