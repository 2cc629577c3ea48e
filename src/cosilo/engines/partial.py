"""Which part of a prompt is computed on in secret: where it begins, and which split is the cheapest.

    text, private values in it ──▶ clear_tokens ──▶ in clear │ in secret
    splits: bytes, what attacks found, whose answer ──▶ cheapest ──▶ one of them, or none

What an attack found is measured (`benchmarks/secure_partial.py`) and read by its upper end; what was
not measured keeps no limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cosilo.errors import ConfigError


@dataclass(frozen=True)
class SpanLeak:
    """How much of private spans an attack found that nobody guesses from what is in clear.

    Args:
        share: of the tokens that such a guess misses.
        high: the upper end of its 95 % interval.
        n: how many tokens the guess missed.
    """

    share: float
    high: float
    n: int


@dataclass(frozen=True)
class PromptSplit:
    """What is computed on in secret, and what in clear.

    Args:
        bytes: that all parties send for one answer.
        leak: by the strongest attack; None where none was made.
        same: the share of answers that are those of a computation in clear.
    """

    name: str
    bytes: float
    leak: SpanLeak | None
    same: float = 1.0


def cheapest(
    splits: Iterable[PromptSplit], *, most_leak: float, least_same: float = 1.0
) -> PromptSplit:
    """The split with the fewest bytes that keeps the limits.

    Args:
        most_leak: what the upper end of the measured leak may be.
        least_same: how many of the answers must be those of a computation in clear.

    Raises:
        ConfigError: none does.
    """
    if not (0 <= most_leak <= 1 and 0 <= least_same <= 1):
        raise ConfigError("most_leak and least_same are shares, from 0 to 1")
    known = [(split, split.leak) for split in splits if split.leak and split.leak.n]
    kept = [
        split
        for split, leak in known
        if leak.share <= most_leak and leak.high <= most_leak and split.same >= least_same
    ]
    if kept:
        return min(kept, key=lambda split: split.bytes)
    faithful = [(leak, split) for split, leak in known if split.same >= least_same]
    if not faithful:
        raise ConfigError(
            f"no split that was attacked gives the answer of a computation in clear in "
            f"{100 * least_same:g} % of all cases: measure others, or set less"
        )
    leak, nearest = min(faithful, key=lambda each: each[0].high)
    raise ConfigError(
        f"no split is known to leak at most {100 * most_leak:g} % of a private span: the nearest, "
        f"{nearest.name!r}, leaks up to {100 * leak.high:.2g} % as far as {leak.n} tokens tell; "
        "more of them would narrow that, if it is none"
    )


def clear_tokens(
    text: str,
    ids: Sequence[int],
    values: Iterable[str],
    encode: Callable[[str], Sequence[int]],
) -> int:
    """How many of a text's first tokens may be in clear: none from the first private value on.

    They are tokens of what stands before that value, cut by itself, so that none of them depends on the
    value. That a private value comes next, their number tells. The last token, behind which the answer
    is read, is never in clear.

    Args:
        ids: the text's tokens.
        values: what a detector found in it; without one, all but the last token may be in clear.
        encode: cuts a text into tokens, as `text` was cut.
    """
    first = len(text)
    for value in values:
        if value.strip():
            found = re.search(re.escape(value.strip()), text, re.IGNORECASE)
            first = min(first, found.start() if found else 0)
    alone = encode(text[:first])
    many = 0
    for one, other in zip(alone, ids[:-1], strict=False):
        if one != other:
            break
        many += 1
    return many
