"""Values that every layer speaks: text in, text out, and what it took.

They are `msgspec.Struct`s because they are what messages are made of: the same definition is the
in-memory value and the wire format.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Chosen = Literal["all", "first", "sampled"]
"""Which of an owner's records were taken: all, the first so many, or some by quotas."""


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all values: frozen, hashable, and encoded without their defaults."""


_ROUNDING = 1e-3
"""What a log-probability may lie above 0."""

OTHER_TEXTS = ("refusal", "reasoning_content", "reasoning")
"""What a message may say beside its content, by the names of the fields it comes in."""

OtherTexts = tuple[tuple[str, str], ...]
"""(one of `OTHER_TEXTS`, the text)"""


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
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    other_texts: OtherTexts = ()
    extra: str = ""
    prefix: bool = False


Chat = tuple[Turn, ...]


class Sampling(Value, frozen=True, kw_only=True):
    """How a reply is drawn.

    `choices` restricts the reply to one of the given strings (grammar-constrained where the back
    end can, mapped to the nearest otherwise). `top_logprobs` is the number of alternatives wanted
    per token (0: none). `tools`, `tool_choice` and `response_format` are JSON text, passed through
    as they came.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    top_logprobs: int = 0
    tools: str = ""
    tool_choice: str = ""
    response_format: str = ""


class TokenLogprob(Value, frozen=True):
    """One token of a reply with its natural-log probability and the best alternatives."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Generation(Value, frozen=True):
    """A reply and what it took.

    `prompt_tokens` and `completion_tokens` are what the back end says it used: 0 where it says nothing,
    -1 where what it says is no number of tokens. `cached_tokens` are those of the prompt's tokens that
    it says it had read before, said in the same way. `seconds` is the service time it measured (for a
    recorded answer: the recorded time); `cpu_seconds` the local CPU it used; `attempts` how many of the
    times that the request was sent may have been worked on, the one that was answered among them.
    """

    text: str
    tokens: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    attempts: int = 1
    other_texts: OtherTexts = ()
    extra: str = ""
    cached_tokens: int = 0

    def check(self) -> None:
        """Refuse field values that are of the right types but impossible: a time or a probability
        that is NaN or out of its range.

        Raises:
            ValueError: it says such a thing.
        """
        if not (0 <= self.seconds < math.inf and 0 <= self.cpu_seconds < math.inf):
            raise ValueError("seconds")
        for token in self.tokens:
            for logprob in (token.logprob, *(value for _, value in token.top)):
                if not logprob <= _ROUNDING:  # nor is NaN; minus infinity is a probability of 0
                    raise ValueError("logprob")

    @property
    def logprob(self) -> float | None:
        """Summed log-probability of the reply, or None when the back end shows none."""
        return sum(t.logprob for t in self.tokens) if self.tokens else None


class ToolCallDelta(Value, frozen=True):
    """A piece of a tool call: `index` says which call it continues."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: str = ""
    legacy: bool = False


class Delta(Value, frozen=True):
    """A piece of a reply. The last one carries `finish_reason` and the usage."""

    text: str = ""
    tokens: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    attempts: int = 1
    other_texts: OtherTexts = ()
    extra: str = ""
    cached_tokens: int = 0


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
    """

    generation: Generation
    by: Literal["small", "large", "both"]
    confidence: float | None = None
    suspect: bool = False

    @property
    def text(self) -> str:
        return self.generation.text


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
    prompt_tokens = completion_tokens = cached_tokens = 0
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
    )


T = TypeVar("T")


@asynccontextmanager
async def closing(pieces: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """`pieces`, closed on the way out whatever happens, so that leaving early cancels the work."""
    try:
        yield pieces
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()
