"""What of a text left: the one way in which every benchmark counts it.

A gold span left *wholly* when its string stands in what was sent, and *in part* when at least one
letter or digit of it was sent. Both are counted by direct identifiers: all kinds but INDIRECT.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cosilo.objectives.intervals import wilson
from kept import Kept

INDIRECT = frozenset({"TITLE", "AGE", "NRP", "DATE_TIME", "ORGANIZATION"})
Span = tuple[int, int, str, str]
"""Where it begins and ends, its kind, its text."""

_PLACEHOLDER = re.compile(r"[A-Z]+(?:_[A-Z]+)*_[a-z2-7]{6}")


def hidden(text: str, sent: str) -> set[int]:
    """The places of `text` that stand in `sent` only as a placeholder.

    Raises:
        ValueError: `sent` is not `text` with placeholders in it.
    """
    places: set[int] = set()
    at = 0
    pieces = _PLACEHOLDER.split(sent)
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        found = len(text) - len(piece) if last and number else text.find(piece, at)
        if found < at or text[found : found + len(piece)] != piece or (not number and found):
            raise ValueError("what was sent is not the text with placeholders in it")
        places.update(range(at, found))
        at = found + len(piece)
    return places


def counted(rows: Iterable[tuple[str, Sequence[Span], str]]) -> dict[str, Counter[str]]:
    """Gold spans by kind: how many there are, how many left whole, how many at least in part.

    Args:
        rows: (text, its gold spans, what was sent of it).
    """
    counts = {"all": Counter[str](), "whole": Counter[str](), "part": Counter[str]()}
    for text, spans, sent in rows:
        covered = hidden(text, sent)
        for start, end, kind, value in spans:
            counts["all"][kind] += 1
            counts["whole"][kind] += value in sent
            counts["part"][kind] += any(
                text[i].isalnum() and i not in covered for i in range(start, end)
            )
    return counts


def keep_others(rows: Iterable[tuple[str, Sequence[Span], str]], kept: Kept) -> None:
    """Print how many words outside of every gold span were hidden, and keep their share.

    Some of them are private all the same: not every name in the sentences has a gold span.
    """
    words = wrong = 0
    for text, spans, sent in rows:
        covered = hidden(text, sent)
        for word in re.finditer(r"\w+", text):
            if not any(start < word.end() and word.start() < end for start, end, *_ in spans):
                words += 1
                wrong += not covered.isdisjoint(range(*word.span()))
    low, high = wilson(wrong, words)
    print(f"other words that were hidden: {wrong}/{words} [{low:.1%}, {high:.1%}]")
    kept.put("others", "share hidden", wrong / words, n=words, low=low, high=high)


def direct(counts: Counter[str]) -> int:
    """Of all direct identifiers together."""
    return sum(n for kind, n in counts.items() if kind not in INDIRECT)


def keep_direct(counts: Mapping[str, Counter[str]], kept: Kept) -> None:
    """Print how many direct identifiers left wholly and in part, and keep both with their intervals."""
    total = direct(counts["all"])
    for what in ("whole", "part"):
        left = direct(counts[what])
        low, high = wilson(left, total)
        print(f"direct identifiers that left {what}: {left}/{total} [{low:.1%}, {high:.1%}]")
        kept.put("direct", f"left {what}", left, n=total)
        kept.put("direct", f"share left {what}", left / total, n=total, low=low, high=high)
