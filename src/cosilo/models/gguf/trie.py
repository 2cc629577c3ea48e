"""How probable each of several answers is, when the reply must be one of them.

    "refund"   ── ref ── und
                 ╲
    "refill"      ── ill          the model is asked only where the answers part ways
    "billing"  ── b ── illing

At each parting the model's next-token probabilities are renormalised over the tokens that some answer
goes on with: the distribution of constrained decoding at temperature 1 (the product over an answer's
partings; all answers sum to 1). It is not the answers' joint probability under the free model, which
an engine without prompt log-probabilities could not tell anyway.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

Piece = tuple[int, bytes]
"""A token's number and the bytes it stands for."""

Next = Callable[[bytes, Sequence[int]], Sequence[float]]
"""(what the reply says so far, tokens) → how probable each of these tokens is next, up to a factor."""

LEAST = 1e-3
"""Answers that together are less probable are not told apart: they share what they have."""
MOST_CALLS = 32


def probabilities(
    answers: Sequence[Sequence[Piece]],
    end: int,
    ask: Next,
    *,
    least: float = LEAST,
    most_calls: int = MOST_CALLS,
) -> list[float]:
    """The probability of each of `answers`; they sum to 1.

    Args:
        answers: the tokens of each, all different.
        end: the token that ends a reply, for an answer that another one begins with.
        ask: the model; asked for the most probable partings first, at most `most_calls` times.
    """
    found = [0.0] * len(answers)
    calls = 0
    open_: list[tuple[float, int, int, list[int]]] = [(-1.0, 0, 0, list(range(len(answers))))]
    number = 1
    while open_:
        negative, _, depth, members = heapq.heappop(open_)
        mass = -negative
        ways = _ways(answers, members, depth, end)
        while len(members) > 1 and len(ways) == 1:
            depth += 1
            ways = _ways(answers, members, depth, end)
        said = b"".join(text for _, text in answers[members[0]][:depth])
        if len(members) == 1 or mass < least or calls >= most_calls or not _is_text(said):
            for member in members:
                found[member] = mass / len(members)
            continue
        calls += 1
        weights = [max(0.0, w) for w in ask(said, list(ways))]
        total = sum(weights)
        for weight, group in zip(weights, ways.values(), strict=True):
            share = weight / total if total > 0 else 1 / len(weights)
            heapq.heappush(open_, (-mass * share, number, depth + 1, group))
            number += 1
    return found


def _ways(
    answers: Sequence[Sequence[Piece]], members: Sequence[int], depth: int, end: int
) -> dict[int, list[int]]:
    """Each token that a member has at place `depth` → the members that have it there."""
    ways: dict[int, list[int]] = {}
    for member in members:
        answer = answers[member]
        token = answer[depth][0] if depth < len(answer) else end
        ways.setdefault(token, []).append(member)
    return ways


def _is_text(said: bytes) -> bool:
    """Whether `said` is valid UTF-8 (no character is cut in two), so that it can be put into a
    prompt.
    """
    try:
        said.decode()
    except UnicodeDecodeError:
        return False
    return True
