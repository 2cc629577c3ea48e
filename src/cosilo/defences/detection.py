"""Where the private values of a text are.

    text ─▶ windows ─▶ detectors ─▶ spans ─▶ resolve ─▶ spans that do not overlap

A detector reports more than it is sure of: what is hidden is restored exactly, what is not has left.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")
Steps = Generator[None, None, T]  # work that may pause wherever it yields, and then returns a T

WINDOW = 20_000
OVERLAP = 1_000


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of a text; `score` is 0 (a guess) to 1 (certain)."""

    start: int
    end: int
    kind: str
    score: float = 1.0

    def at(self, start: int, end: int) -> Span:
        """The same in another place; `replace` takes four times as long."""
        return Span(start, end, self.kind, self.score)


class Detector(Protocol):
    def detect(self, text: str, public: str = "") -> list[Span]:
        """The private values of `text` (at most `WINDOW` characters); they may overlap.

        Args:
            public: what the other party is told anyway: instructions, a schema.

        A detector that cannot say raises: the message is then stopped.
        """


@runtime_checkable
class Stepwise(Protocol):
    """A detector whose work can pause: no step takes longer than some milliseconds."""

    def steps(self, text: str, public: str = "") -> Steps[list[Span]]: ...


@runtime_checkable
class Together(Protocol):
    """A detector that reads several texts quicker together than one after the other."""

    def together(self, texts: Sequence[str], public: str = "") -> Steps[list[list[Span]]]:
        """What `detect` finds in each of `texts` (some ten thousand characters together), in steps."""


def run(steps: Steps[T]) -> T:
    """What `steps` returns, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found


_STEP = 0.001  # seconds that a step takes at least
_ended = [0.0]


def due() -> bool:
    """Whether the step under way took long enough for a pause: each costs the way through all that is
    under way.
    """
    now = time.monotonic()
    if now - _ended[0] < _STEP:
        return False
    _ended[0] = now
    return True


def gathered(items: Iterable[T]) -> Steps[list[T]]:
    """`items` as a list, with a pause now and then."""
    found = []
    for number, item in enumerate(items):
        found.append(item)
        if number % 16 == 15 and due():
            yield
    return found


def looked(detector: Detector, texts: Sequence[str], public: str) -> Steps[list[list[Span]]]:
    """What `detector` finds in each of `texts`, together and in steps where it can."""
    if isinstance(detector, Together):
        return (yield from detector.together(texts, public))
    found = []
    for text in texts:
        if isinstance(detector, Stepwise):
            found.append((yield from detector.steps(text, public)))
        else:
            found.append(detector.detect(text, public))
        if due():
            yield
    return found


def resolve(spans: Iterable[Span], text: str) -> list[Span]:
    """`spans` in order and without overlaps, covering every letter and digit that they cover.

    The longest wins, then the higher score, then the earlier; of a loser the part that is not
    covered yet stays a span of its own, since dropping it would send it. Neighbours of one kind
    with nothing but spaces between them become one; a tab parts the cells of a table.
    """
    return run(resolving(spans, text))


def resolving(spans: Iterable[Span], text: str) -> Steps[list[Span]]:
    """`resolve`, in steps."""
    some = {s for s in spans if s.start < s.end}
    in_order = sorted(some, key=lambda s: s.start)
    if all(a.end <= b.start for a, b in pairwise(in_order)):  # none loses anything
        if due():
            yield
        whole = [(s, _trimmed(text, s.start, s.end, whole=True)) for s in in_order]
        return _merged([_placed(s, at) for s, at in whole if at is not None], text)
    ranked = sorted(
        some,
        key=lambda s: (s.start - s.end, -s.score, s.start, s.kind),
    )
    taken = bytearray(len(text))
    kept: list[Span] = []
    for span in ranked:
        if due():
            yield
        for start, end in _free(taken, span):
            part = _trimmed(text, start, end, whole=(start, end) == (span.start, span.end))
            if part is not None:
                kept.append(_placed(span, part))
                taken[part[0] : part[1]] = b"\1" * (part[1] - part[0])
    kept.sort(key=lambda s: s.start)
    return _merged(kept, text)


def _placed(span: Span, place: tuple[int, int]) -> Span:
    start, end = place
    return span if (span.start, span.end) == place else span.at(start, end)


def _free(taken: bytearray, span: Span) -> Iterator[tuple[int, int]]:
    at = span.start
    while at < span.end:
        start = taken.find(0, at, span.end)
        if start < 0:
            return
        end = taken.find(1, start, span.end)
        end = span.end if end < 0 else end
        yield start, end
        at = end


def _trimmed(text: str, start: int, end: int, *, whole: bool) -> tuple[int, int] | None:
    """The span from `start` to `end` without spaces around it; None for a remainder without letters
    and digits.
    """
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start == end or not (whole or any(c.isalnum() for c in text[start:end])):
        return None
    return start, end


def _merged(spans: list[Span], text: str) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        last = merged[-1] if merged else None
        if last and last.kind == span.kind and not text[last.end : span.start].strip(" "):
            merged[-1] = replace(last, end=span.end, score=max(last.score, span.score))
        else:
            merged.append(span)
    return merged


def windows(text: str, size: int = WINDOW, overlap: int = OVERLAP) -> Iterator[tuple[int, str]]:
    """(offset, piece) of pieces of at most `size` characters, cut at white space where there is any.

    Consecutive pieces share about `overlap` characters, so that a value at a cut is whole in one.
    """
    start = 0
    while start + size < len(text):
        end = start + size
        cut = max(text.rfind(c, end - overlap // 2, end) for c in " \n\t")
        end = cut if cut > 0 else end
        yield start, text[start:end]
        back = end - overlap
        cut = max(text.rfind(c, back - overlap // 2, back) for c in " \n\t")
        start = cut + 1 if cut > start else back
    yield start, text[start:]


def shifted(spans: Iterable[Span], offset: int) -> list[Span]:
    """`spans` of a piece that began at `offset`, as spans of the whole."""
    if not offset:
        return list(spans)
    return [Span(s.start + offset, s.end + offset, s.kind, s.score) for s in spans]
