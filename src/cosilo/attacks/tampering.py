"""A party between the two owners that changes a share of the LM's replies.

It stands in for a hostile LM owner, or a network without authentication. Which replies it changes,
and to what, depends on its seed and on the request's content alone: the same run tampers with the
same replies again, in any order and at any concurrency, and it keeps nothing.

It knows how tasks are asked. Where a closed set of labels is listed in a prompt, it says another label
instead of the right one, and has texts written for another label than the one asked for.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar, cast

from cosilo.boundary.messages import Ask, Completion, Message, encode
from cosilo.boundary.messages.passages import Passage
from cosilo.boundary.record.ledger import Entry
from cosilo.boundary.transports.base import Handles
from cosilo.types import Delta, assemble, disassemble

M = TypeVar("M", bound=Message)

_SWAPS = {
    a: b
    for pair in (
        ("yes", "no"), ("true", "false"), ("and", "or"), ("min", "max"), ("asc", "desc"),
        ("before", "after"), ("more", "less"), ("increase", "decrease"), ("is", "is not"),
        ("with", "without"), ("positive", "negative"), ("left", "right"), ("first", "last"),
        (">=", "<"), ("<=", ">"), ("=", "<>"),
    )
    for a, b in (pair, pair[::-1])
}  # fmt: skip
_PIECE = re.compile(r"\d+|is not\b|[^\W\d_]+|>=|<=|<>|[<>=]", re.IGNORECASE)

_LISTED = re.compile(r"^- ([^:\n]+)", re.MULTILINE)


@dataclass(frozen=True)
class Tampering:
    """Answers like `inner`, but a share of the replies is changed.

    Attributes:
        share: of the requests, 0 to 1.
    """

    inner: Handles
    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share = {self.share!r} is not between 0 and 1")

    def changes(self, message: Message) -> bool:
        """Whether the reply to `message` is changed."""
        return _draw(self.seed, message).random() < self.share

    async def handle(self, message: Message) -> Message:
        """The reply, or a changed one.

        Raises:
            CapabilityError: nobody knows how a reply of its class is tampered with.
        """
        if not self.changes(message):
            return await self.inner.handle(message)
        passages = message.passages()
        turned = self._turned(message, passages)
        if turned is not None:
            return await self.inner.handle(turned)
        reply = await self.inner.handle(message)
        return reply.tampered(message, self._lie(message, passages))

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        changed, passages = self.changes(ask), ask.passages()
        turned = self._turned(ask, passages) if changed else None
        deltas = cast("AsyncGenerator[Delta, None]", self.inner.handle_stream(turned or ask))
        async with aclosing(deltas) as pieces:
            if turned is not None or not changed:
                async for delta in pieces:
                    yield delta
                return
            whole = Completion(generation=assemble([delta async for delta in pieces]))
        yield disassemble(whole.tampered(ask, self._lie(ask, passages)).generation)

    def requests(self, entries: Iterable[Entry]) -> frozenset[str]:
        """The requests in `entries` that got a changed reply."""
        return frozenset(
            entry.request
            for entry in entries
            if entry.direction == "up" and self.changes(entry.message)
        )

    def _turned(self, message: M, passages: Sequence[Passage]) -> M | None:
        """`message` for texts of another label than the quoted one; None when it asks for none."""
        turns = [i for i, p in enumerate(passages) if p.what == "said" and p.by]
        asked = passages[turns[-1]].text if turns else ""
        labels = _listed(passages)
        quoted = [label for label in labels if f"'{label}'" in asked]
        closed = any(p.what == "label" for p in passages)
        if closed or not message.replaceable or len(quoted) != 1 or len(labels) < 2:
            return None
        other = self._rng(message).choice([label for label in labels if label not in quoted])
        said = [p.text for p in passages]
        said[turns[-1]] = asked.replace(f"'{quoted[0]}'", f"'{other}'")
        texts = iter(said)
        return message.with_passages(lambda _: next(texts))

    def _rng(self, message: Message) -> random.Random:
        rng = _draw(self.seed, message)
        rng.random()  # this one decided whether
        return rng

    def _lie(self, message: Message, passages: Sequence[Passage]) -> Callable[[str], str]:
        """What to say in the place of a text that answers `message`."""
        rng, listed = self._rng(message), _listed(passages)
        choices = [p.text for p in passages if p.what == "label"]

        def lie(text: str) -> str:
            if choices:
                others = [c for c in choices if c.strip() != text.strip()]
                return rng.choice(others) if others else text
            return _relabelled(text, listed, rng) or corrupted(text, rng)

        return lie


def _listed(passages: Iterable[Passage]) -> list[str]:
    """The labels that the system turns list, one a line: "- label" or "- label: what it means"."""
    systems = (p.text for p in passages if p.what == "said" and p.by == "system")
    found = (m[1].strip() for text in systems for m in _LISTED.finditer(text))
    return list(dict.fromkeys(found))


def _relabelled(text: str, labels: list[str], rng: random.Random) -> str:
    """`text` with another label wherever it names one; empty when it names none."""
    longest_first = sorted(labels, key=len, reverse=True)
    named = re.compile(
        r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)", re.IGNORECASE
    )
    if len(labels) < 2 or not named.search(text):
        return ""
    by = rng.randrange(1, len(labels))
    moved = {a.casefold(): labels[(i + by) % len(labels)] for i, a in enumerate(labels)}
    return named.sub(lambda match: moved[match[0].casefold()], text)


def _draw(seed: int, message: Message) -> random.Random:
    digest = hashlib.sha256(str(seed).encode() + b"\x1f" + encode(message)).digest()
    return random.Random(int.from_bytes(digest[:16], "big"))


def corrupted(text: str, rng: random.Random) -> str:
    """`text` with another meaning: numbers, comparisons and opposites changed, a third of them or
    at least one; its words in another order when it holds none of these.
    """
    found = [m for m in _PIECE.finditer(text) if m[0].isdigit() or m[0].lower() in _SWAPS]
    if not found:
        words = text.split()
        if len(set(words)) < 2:
            return f"not {text}" if words else "no"
        moved = words
        while moved == words:
            moved = rng.sample(words, len(words))
        return " ".join(moved)
    chosen = rng.sample(found, max(1, len(found) // 3))
    for match in sorted(chosen, key=lambda m: m.start(), reverse=True):
        text = text[: match.start()] + _other(match[0], rng) + text[match.end() :]
    return text


def _other(piece: str, rng: random.Random) -> str:
    if not piece.isdigit():
        swapped = _SWAPS[piece.lower()]
        return swapped.upper() if piece.isupper() else swapped
    if not piece.isascii():
        return str(rng.randrange(1, 10))
    # Same length, another first digit, never a leading zero where there was none.
    first = rng.choice([d for d in "123456789" if d != piece[0]])
    return first + piece[1:]
