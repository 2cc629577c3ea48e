"""How many tokens a reply says that it took, in whichever way its endpoint counts them."""

from __future__ import annotations

import math
from typing import Any

_MOST_TOKENS = 10**9
_NO_COUNT = -1  # stated, and no number of tokens
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
"""What some call the prompt's tokens that they had read before, beside OpenAI's own place for them."""


def used(usage: object) -> dict[str, Any]:
    """What `usage` of a reply states, by the names that `Generation` has for it."""
    if (found := _plain(usage)) is not None:
        return found
    prompt, completion = _used(usage)
    cached = _cached(usage)
    if cached > prompt >= 0:  # as Anthropic counts: what it had read before stands beside the rest
        prompt = min(_MOST_TOKENS, prompt + cached)
    found = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cached_tokens": cached,
    }
    if thought := _thought(usage):
        found["reasoning_tokens"] = thought
    return found


def _plain(usage: object) -> dict[str, Any] | None:
    """`usage` where it holds nothing but the three counts, and these are in order."""
    if not isinstance(usage, dict) or len(usage) != 3:
        return None
    prompt, said = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is not int or type(said) is not int or min(prompt, said) < 0:
        return None
    if prompt + said > _MOST_TOKENS or usage.get("total_tokens") != prompt + said:
        return None
    return {"prompt_tokens": prompt, "completion_tokens": said, "cached_tokens": 0}


def _used(usage: object) -> tuple[int, int]:
    """(prompt, completion) tokens that `usage` states, reasoning among the latter.

    Some count what the model thought beside `completion_tokens`: it is what the total has more than the
    two others or, without a total, the reasoning that is more than the completion it would be part of.
    """
    if not isinstance(usage, dict):
        return (_NO_COUNT, _NO_COUNT)
    prompt, said = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
    if prompt < 0 or said < 0:
        return prompt, said
    total, thought = usage.get("total_tokens"), _thought(usage)
    beside = count_of(total) - prompt - said if total is not None else thought * (thought > said)
    return prompt, min(_MOST_TOKENS, said + max(0, beside))


def _thought(usage: object) -> int:
    """How many of the reply's tokens `usage` says the model thought with."""
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    return count_of(details.get("reasoning_tokens")) if isinstance(details, dict) else 0


def _cached(usage: object) -> int:
    """How many of the prompt's tokens `usage` says had been read before, under whichever name."""
    if not isinstance(usage, dict):
        return 0
    details = usage.get("prompt_tokens_details")
    stated = [details.get("cached_tokens")] if isinstance(details, dict) else []
    stated += [usage.get(name) for name in _CACHED]
    return next((found for found in map(count_of, stated) if found), 0)


def count_of(tokens: object) -> int:
    """A token count as an endpoint states it, as an int: 12, 12.0 and "12" are all 12.

    0 where it states none (None), `_NO_COUNT` where what it states cannot be a count (negative, a
    fraction, another type), and never more than `_MOST_TOKENS`.
    """
    if tokens is None:
        return 0
    if isinstance(tokens, str) and tokens.isascii() and tokens.isdigit():
        return min(_MOST_TOKENS, int(tokens[:20]))
    if isinstance(tokens, bool) or not isinstance(tokens, int | float):
        return _NO_COUNT
    if tokens < 0 or not tokens < math.inf or tokens != int(tokens):
        return _NO_COUNT
    return min(_MOST_TOKENS, int(tokens))
