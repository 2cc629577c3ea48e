"""Which of our instructions makes this small model ask best, on the owner's tune items.

    first half    every instruction ──▶ the best, and worked examples of its own writing
    second half   ours, the best, the best with examples ──▶ the one that is kept

In the way of Khattab et al., "DSPy" (arXiv 2310.03714), as Siyan et al. use it, and no further: the
score is the mean grade of the finished answers (0 for a question that was held back), less the share of
private values that stood in what the small model wrote first. What is sent meanwhile is read at home
before, metered and recorded like any other message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cosilo.strategies.cards import Card
from cosilo.strategies.fanout import fan_out
from cosilo.types import Demonstration, Turn

FEWEST = 4
"""Fewer items than these are too few to choose by."""

_EXAMPLES = 2


@dataclass(frozen=True)
class Candidate:
    """What the small model may be told: an instruction, and worked examples as turns of both sides."""

    instruction: str
    shown: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Tried:
    """How one item went with one candidate.

    Attributes:
        grade: of the finished answer, 0 to 1; 0 where nothing was sent.
        leak: the share of private values in what the small model wrote first, 0 to 1.
        wrote: what of its writing may be a worked example; empty where nothing may.
        sent: it was asked, and not held back.
    """

    grade: float
    leak: float
    wrote: str = ""
    sent: bool = False

    @property
    def score(self) -> float:
        return self.grade - self.leak


Try = Callable[[Candidate, Demonstration], Awaitable[Tried]]


def most(search: int, instructions: int) -> tuple[int, int]:
    """(items, tries of each) at most, of a search over so many items and instructions."""
    return -(-search // 2), instructions + 3


async def choose(
    attempt: Try,
    instructions: Sequence[str],
    items: Sequence[Demonstration],
    original: Callable[[Demonstration], str],
    *,
    by: str,
) -> tuple[Candidate, Card]:
    """The candidate that is kept, and a card that says why; the same for the same items.

    Args:
        items: `FEWEST` at least.
        original: the text of an item, as a worked example shows it.
    """
    first, second = items[: -(-len(items) // 2)], items[-(-len(items) // 2) :]
    tried = {text: await _over(attempt, Candidate(text), first) for text in instructions}
    best = max(instructions, key=lambda text: (_mean(tried[text]), -instructions.index(text)))
    ours = Candidate(instructions[0])
    final = {"our first": ours, "the best": Candidate(best)}
    if examples := _examples(first, tried[best], original):
        final["the best, with examples"] = Candidate(best, examples)
    again: dict[str, list[Tried]] = {}
    for name, candidate in final.items():
        same = next((n for n in again if final[n] == candidate), None)
        again[name] = again[same] if same else await _over(attempt, candidate, second)
    names = list(final)
    kept = max(names, key=lambda name: (_mean(again[name]), -names.index(name)))
    numbered = {f"instruction {i + 1}": tried[text] for i, text in enumerate(instructions)}
    card = Card(
        by=by,
        title="instruction of the small model",
        facts={
            "kept": kept,
            "says": final[kept].instruction,
            "worked examples": len(final[kept].shown) // 2,
            "items": len(items),
            "note": "chosen by these very items: their scores flatter what was kept",
        },
        tables={
            f"first {len(first)} items: score": {n: _mean(t) for n, t in numbered.items()},
            f"other {len(second)} items: score": {n: _mean(t) for n, t in again.items()},
            "private values written, share": {
                n: _share(t) for n, t in (*numbered.items(), *again.items())
            },
            "held back, share": {n: _held(t) for n, t in (*numbered.items(), *again.items())},
        },
    )
    return final[kept], card


async def _over(attempt: Try, candidate: Candidate, items: Sequence[Demonstration]) -> list[Tried]:
    async def one(item: Demonstration) -> Tried:
        return await attempt(candidate, item)

    return await fan_out(one, items)


def _examples(
    items: Sequence[Demonstration],
    tried: Sequence[Tried],
    original: Callable[[Demonstration], str],
) -> tuple[Turn, ...]:
    """The best of what was written and sent, as worked examples."""
    good = [(t, item) for t, item in zip(tried, items, strict=True) if t.wrote and t.score > 0]
    good.sort(key=lambda pair: -pair[0].score)
    return tuple(
        turn
        for t, item in good[:_EXAMPLES]
        for turn in (Turn("user", original(item)), Turn("assistant", t.wrote))
    )


def _mean(tried: Sequence[Tried]) -> float:
    return sum(t.score for t in tried) / len(tried)


def _share(tried: Sequence[Tried]) -> float:
    return sum(t.leak for t in tried) / len(tried)


def _held(tried: Sequence[Tried]) -> float:
    return sum(not t.sent for t in tried) / len(tried)
