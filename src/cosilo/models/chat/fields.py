"""Further fields of a request: those of OpenAI's chat API, and of its dialects, that `Sampling` has no
attribute for. They travel as pairs of a name and JSON.

A field is *closed* where its value can only be a number, true or false, or one of a few words: nobody's
text is in it. Any other value counts as text, whatever field it stands in.
Specifications: https://platform.openai.com/docs/api-reference/chat, https://docs.vllm.ai (extra
parameters), https://api-docs.deepseek.com (`thinking`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from cosilo.types import FurtherFields

Check = Callable[[object], bool]


def _number(low: float, high: float) -> Check:
    return lambda v: type(v) in (int, float) and low <= v <= high  # type: ignore[operator]


def _integer(low: int, high: int) -> Check:
    return lambda v: type(v) is int and low <= v <= high


def _word(*words: str) -> Check:
    return lambda v: isinstance(v, str) and v in words


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _thinking(value: object) -> bool:
    """`{"type": "enabled", "budget_tokens": 1024}`, as Anthropic's and DeepSeek's APIs have it."""
    if not isinstance(value, dict) or not value.keys() <= {"type", "budget_tokens"}:
        return False
    known = value.get("type") in ("enabled", "disabled", "adaptive", "auto")
    return known and _integer(0, 10_000_000)(value.get("budget_tokens", 0))


_TOKEN_ID = re.compile(r"\d{1,7}", re.ASCII)


def _biases(value: object) -> bool:
    """`{"50256": -100}`: ids of tokens, and what is added to their logits."""
    return isinstance(value, dict) and all(
        _TOKEN_ID.fullmatch(token) and _number(-100, 100)(bias) for token, bias in value.items()
    )


NUMBERS: Mapping[str, Check] = {
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repetition_penalty": _number(0.01, 10),
    "top_k": _integer(-1, 1_000_000),
    "min_p": _number(0, 1),
}
"""Fields that change how a token is drawn, each with what its value may be."""

HINTS: Mapping[str, Check] = {
    "reasoning_effort": _word("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "verbosity": _word("low", "medium", "high"),
    "enable_thinking": _flag,
    "thinking": _thinking,
}
"""Fields that ask for more or less of something: a reply without them is still one to the request."""

CLOSED: Mapping[str, Check] = {
    **NUMBERS,
    **HINTS,
    "parallel_tool_calls": _flag,
    "store": _flag,
    "service_tier": _word("auto", "default", "flex", "priority", "scale", "standard_only"),
    "prompt_cache_retention": _word("in_memory", "in-memory", "24h"),
    "logit_bias": _biases,
}
"""Every closed field, each with what its value may be."""


def is_closed(name: str, text: str) -> bool:
    """Whether `text`, the JSON of the field `name`, holds nobody's text."""
    check = CLOSED.get(name)
    if check is None:
        return False
    try:
        return check(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return False


def canonical(given: Mapping[str, object]) -> FurtherFields:
    """`given`, parsed JSON by the names of fields, as `Sampling.fields` holds it: equal requests are
    equal, in whatever order their fields came."""
    return tuple((name, written(given[name])) for name in sorted(given))


def written(value: object) -> str:
    """Parsed JSON, written in the one way that equal values share."""
    return msgspec.json.encode(value, order="deterministic").decode()


def written_beside(fields: FurtherFields) -> int:
    """Tokens that these fields let a model write beside its reply, at most, as far as they say it: what
    it may think of, and what was predicted for it, since what of that was wrong is billed like the
    reply."""
    beside = 0
    for name, text in fields:
        if name == "prediction":
            beside += len(text.encode())
        elif name == "thinking" and is_closed(name, text):
            beside += int(msgspec.json.decode(text).get("budget_tokens", 0))
    return beside


def values(fields: FurtherFields) -> dict[str, object]:
    """Name → parsed JSON."""
    return {name: msgspec.json.decode(text) for name, text in fields}
