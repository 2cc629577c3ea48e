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
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

import msgspec
import numpy as np

from cosilo.boundary.messages import (
    Ask,
    Completion,
    Message,
    Read,
    Score,
    Scores,
    States,
    encode,
)
from cosilo.boundary.record.ledger import Entry
from cosilo.boundary.transports.base import Handles
from cosilo.boundary.wire import states
from cosilo.boundary.wire.logits import pack, unpack
from cosilo.types import Delta, Generation, TokenLogprob, assemble, disassemble

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

SURE = -0.01
"""The log-probability it claims for its own words: a liar sounds certain."""


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
        if isinstance(message, Ask) and self.changes(message):
            turned = self._turned(message)
            if turned is not None:
                return await self.inner.handle(turned)
        reply = await self.inner.handle(message)
        if isinstance(message, Ask) and isinstance(reply, Completion) and self.changes(message):
            return msgspec.structs.replace(
                reply, generation=self._changed(message, reply.generation)
            )
        if isinstance(message, Score) and isinstance(reply, Scores) and self.changes(message):
            return msgspec.structs.replace(reply, packed=_inverted(reply.packed))
        if isinstance(message, Read) and isinstance(reply, States) and self.changes(message):
            return msgspec.structs.replace(reply, packed=_swapped(reply.packed, len(message.texts)))
        return reply

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        turned = self._turned(ask) if self.changes(ask) else None
        deltas = cast("AsyncGenerator[Delta, None]", self.inner.handle_stream(turned or ask))
        async with aclosing(deltas) as pieces:
            if turned is not None or not self.changes(ask):
                async for delta in pieces:
                    yield delta
                return
            whole = assemble([delta async for delta in pieces])
        yield disassemble(self._changed(ask, whole))

    def requests(self, entries: Iterable[Entry]) -> frozenset[str]:
        """The requests in `entries` that got a changed reply."""
        return frozenset(
            entry.request
            for entry in entries
            if entry.direction == "up"
            and isinstance(message := entry.message, Ask | Score | Read)
            and self.changes(message)
        )

    def _turned(self, ask: Ask) -> Ask | None:
        """`ask` for texts of another label than the quoted one; None when it asks for none."""
        turn, labels = ask.chat[-1], _listed(ask)
        quoted = [label for label in labels if f"'{label}'" in turn.content]
        if ask.sampling.choices or len(quoted) != 1 or len(labels) < 2:
            return None
        other = self._rng(ask).choice([label for label in labels if label not in quoted])
        said = turn.content.replace(f"'{quoted[0]}'", f"'{other}'")
        chat = (*ask.chat[:-1], msgspec.structs.replace(turn, content=said))
        return msgspec.structs.replace(ask, chat=chat)

    def _rng(self, ask: Ask) -> random.Random:
        rng = _draw(self.seed, ask)
        rng.random()  # this one decided whether
        return rng

    def _changed(self, ask: Ask, reply: Generation) -> Generation:
        rng = self._rng(ask)
        if ask.sampling.choices:
            others = [c for c in ask.sampling.choices if c.strip() != reply.text.strip()]
            text = rng.choice(others) if others else reply.text
        else:
            text = _relabelled(reply.text, _listed(ask), rng) or corrupted(reply.text, rng)
        tokens = (TokenLogprob(text, SURE),) if reply.tokens else ()
        return msgspec.structs.replace(reply, text=text, tokens=tokens)


def _listed(ask: Ask) -> list[str]:
    """The labels that the system turns list, one a line: "- label" or "- label: what it means"."""
    found = (
        m[1].strip() for t in ask.chat if t.role == "system" for m in _LISTED.finditer(t.content)
    )
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


def _inverted(packed: bytes) -> bytes:
    """The same tokens at each place, the likeliest of them now the least likely."""
    top = unpack(packed)
    ends = top.logprobs.max(axis=1) + top.logprobs.min(axis=1)
    turned = ends[:, None] - top.logprobs
    return pack(replace(top, logprobs=turned if top.ids is not None else turned[:, ::-1]))


def _swapped(packed: bytes, count: int) -> bytes:
    """Each text's state given to the text that was sent before it; a lone one is turned around."""
    found = states.unpack(packed, count)
    return states.pack(np.roll(found, 1, axis=0) if count > 1 else -found)


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
