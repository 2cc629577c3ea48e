"""From placeholders back to values, in whole texts and in texts that arrive in pieces.

Restored are the placeholders that were issued, in the spellings models make of them: upper or lower
case, a Markdown backslash before the underscore, a space or a hyphen in its place. Anything else,
also a placeholder with a letter missing, stays as the model wrote it: a wrong guess would put
somebody else's value there.

    piece ─▶ [held back: what may still become a placeholder] ─▶ what is certain, restored
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from cosilo.defences.beginnings import folded
from cosilo.types import TokenLogprob

_SEPARATOR = r"(?:\\{0,2}_|[ \-])"
_LONGEST_SEPARATOR = 3
# A number or date surrogate stands alone: 473 is not restored in 1473, 2,473 or 473.5, and a number
# of two digits not in a date or a time of day.
_BEFORE = r"(?<!\w)(?<!\d[.,])"
_AFTER = r"(?!\w|[.,][1-9])"
_BEFORE_SMALL = rf"{_BEFORE}(?<!\d[-:/])"
_AFTER_SMALL = r"(?!\w|[.,][1-9]|[-:/]\d)"
_SMALL = re.compile(r"\d{1,2}(?:\.\d+)?")
_CONTEXT = 2


class Segment(NamedTuple):
    """Characters `start` to `end` of a reply are a placeholder for `value`."""

    start: int
    end: int
    value: str
    kind: str = ""


HOSTS = frozenset({"URL", "IP"})
"""The kinds of value that say where something goes."""


def names_host(segment: Segment) -> bool:
    """Whether a value says where something goes."""
    return segment.kind in HOSTS or "://" in segment.value


class Put(NamedTuple):
    """What is put in place of characters `start` to `end`: None where that depends on what comes next.

    `restored` is False where it is the placeholder itself.
    """

    start: int
    end: int
    written: str | None
    restored: bool = True


class PlainTarget:
    """How restored values stand in a reply: as they are. `passed` is told the text around them."""

    @property
    def quotes(self) -> bool:
        """Whether the quotes around a placeholder may have to go with it."""
        return False

    def passed(self, text: str) -> None: ...

    def value(self, value: str) -> str:
        return value

    def put(self, text: str, start: int, segment: Segment, *, final: bool) -> Put:
        """What is put in place of the placeholder `segment` of `text`.

        Args:
            start: up to where this has been told what `text` holds.
            final: `text` ends here; without, more comes.
        """
        self.passed(text[start : segment.start])
        return Put(segment.start, segment.end, self.value(segment.value))


class SqlTarget(PlainTarget):
    """In SQL: quotes in a value are doubled inside of quotes, and a bare text gets quotes.

    SQL begins with a code fence or the word SELECT or WITH (in capitals, or first in the reply) and
    ends with the fence. Outside of it values stand as they are.
    """

    def __init__(self) -> None:
        self._code = False
        self._quote = ""
        self._word = ""
        self._ticks = 0
        self._begun = False

    def passed(self, text: str) -> None:
        for char in text:
            self._ticks = self._ticks + 1 if char == "`" else 0
            if self._ticks == 3:
                self._code, self._quote, self._word = not self._code, "", ""
                continue
            if char.isalnum() or char == "_":
                self._word += char
                continue
            if not self._code and self._word:
                first = not self._begun and self._word.upper() in ("SELECT", "WITH")
                self._code = first or self._word in ("SELECT", "WITH", "select")
                self._begun = True
            self._word = ""
            if self._code and char in "'\"":
                self._quote = "" if self._quote == char else self._quote or char

    def value(self, value: str) -> str:
        self._begun, self._word = True, ""
        if not self._code:
            return value
        if self._quote:
            return value.replace(self._quote, self._quote * 2)
        if re.fullmatch(r"[+-]?\d+(?:\.\d+)?", value) or self._ticks:
            return value
        return "'" + value.replace("'", "''") + "'"


class Written(msgspec.Struct):
    """How values stood in the owner's own texts.

    Attributes:
        numbers: values that stood as numbers in JSON, each with the key that it stood under.
        texts: those of them that stood as text there.
        urls: URLs, with the placeholders that stand in them.
    """

    numbers: set[tuple[str, str]] = msgspec.field(default_factory=set)
    texts: set[tuple[str, str]] = msgspec.field(default_factory=set)
    urls: set[str] = msgspec.field(default_factory=set)

    def update(self, other: Written) -> None:
        self.numbers |= other.numbers
        self.texts |= other.texts
        self.urls |= other.urls

    def always_numbers(self) -> frozenset[str]:
        """The values that stood as numbers and never as text."""
        return frozenset(v for _, v in self.numbers).difference(v for _, v in self.texts)


class Restorer:
    """The placeholders that were issued, and how to find them in a text.

    Attributes:
        written: how their values stood in the owner's own texts.
    """

    def __init__(self) -> None:
        self.written = Written()
        self._values: dict[str, tuple[str, bool]] = {}
        self._plain: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._beginnings: set[str] = set()
        self._not_begun: list[str] = []  # those whose beginnings were not asked for yet
        self._longest = 0
        self._pattern: re.Pattern[str] | None = None
        self._coded: re.Pattern[str] | None = None  # where there are no plain ones

    def add(self, aliases: Mapping[str, str], *, follow: bool, plain: bool, kind: str = "") -> None:
        """Issue a placeholder: each of its `aliases` is restored to what it maps to.

        Args:
            kind: of the value.
            follow: a placeholder that comes back in one case changes the value's case with it
                (SQL that compares LOWER(name) needs the value in lower case).
            plain: it is no KIND_code but an ordinary number or date, found only as it is written.
        """
        for shown, value in aliases.items():
            if plain:
                self._plain[shown] = value
                key = shown
            else:
                key = normal(shown)
                self._values[key] = value, follow
            self._kinds[key] = kind
            self._not_begun.append(key)
            longest = len(shown) + _LONGEST_SEPARATOR * max(1, shown.count("_"))
            if longest > self._longest:
                self._longest = longest
        self._pattern = None

    @property
    def form(self) -> str:
        """How the placeholders that were issued are written: where that is equal, those that two
        restorers both know are found at the same places. Among those of a kind and a code none is taken
        for one of another kind, unless one of the kinds has several words.
        """
        if self._plain:
            return self._compiled_now().pattern
        several = {key.rpartition("_")[0] for key in self._values if key.count("_") > 1}
        return "|".join((self._length(), *sorted(several)))

    def _length(self) -> str:
        codes = {len(key.rpartition("_")[2]) for key in self._values}
        return f"{{{min(codes)},{max(codes)}}}" if codes else ""

    def _compiled_now(self) -> re.Pattern[str]:
        if self._pattern is None:
            self._pattern, self._coded = self._compiled()
        return self._pattern

    def knows(self, shown: str) -> bool:
        """Whether `shown`, which is a KIND_code, is issued already."""
        return normal(shown) in self._values or shown in self._plain

    def knows_other(self, aliases: Mapping[str, str]) -> bool:
        """Whether one of `aliases` is issued already, for another value."""
        return any(
            self._plain.get(alias, value) != value or normal(alias) in self._values
            for alias, value in aliases.items()
        )

    def scan(self, text: str, at: int, *, final: bool) -> tuple[list[Segment], int]:
        """The placeholders of `text` from `at` on, and up to where nothing can change any more.

        With `final` that is the end; without, the first place where a placeholder may have begun
        whose end is still to come.
        """
        found: list[Segment] = []
        if not self._values and not self._plain:
            return found, len(text)
        self._compiled_now()
        small = folded(text) if self._coded is not None else ""
        if final and self._coded is not None:
            return self._placeholders(text, small, at), len(text)
        while True:
            segment = self._next(text, small, at)
            if not final:
                limit = len(text) if segment is None else segment.start + 1
                for place in range(max(at, len(text) - self._longest), limit):
                    if self._may_begin(text[place:]):
                        return found, place
            if segment is None:
                return found, len(text)
            found.append(segment)
            at = segment.end

    def _next(self, text: str, small: str, at: int) -> Segment | None:
        if self._coded is not None:
            found = self._placeholders(text, small, at, most=1)
            return found[0] if found else None
        assert self._pattern is not None
        while (match := self._pattern.search(text, at)) is not None:
            whole = match.group()
            if match["plain"] is not None:
                return Segment(*match.span(), self._plain[whole], self._kinds[whole])
            key = normal(whole)
            value = self._values.get(key)
            if value is not None:
                return Segment(*match.span(), _followed(whole, *value), self._kinds[key])
            at = match.start() + 1
        return None

    def _placeholders(self, text: str, small: str, at: int, most: int = 0) -> list[Segment]:
        """The first (`most`, or all) from `at` on, where each has a kind and a code; `small` is `text`
        with its letters folded, in which they are found without regard to case.
        """
        assert self._coded is not None
        found: list[Segment] = []
        search = self._coded.search
        while (match := search(small, at)) is not None:
            start, end = match.span()
            whole = text[start:end]
            key = normal(whole)
            value = self._values.get(key)
            if value is None:
                at = start + 1
                continue
            found.append(Segment(start, end, _followed(whole, *value), self._kinds[key]))
            if len(found) == most:
                break
            at = end
        return found

    def _may_begin(self, tail: str) -> bool:
        for key in self._not_begun:
            self._beginnings.update(key[:i] for i in range(1, len(key)))
        self._not_begun.clear()
        if tail in self._beginnings or normal(tail) in self._beginnings:
            return True
        return tail in self._plain or (tail[-1] in ".,-:/" and tail[:-1] in self._plain)

    def _compiled(self) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
        """What placeholders are written like; and where no plain ones are issued, folded."""
        kinds = sorted({key.rpartition("_")[0] for key in self._values}, key=len, reverse=True)
        kinds = [kind.replace("_", _SEPARATOR) for kind in kinds]
        coded = rf"(?:{'|'.join(kinds)}){_SEPARATOR}[a-z2-7]{self._length()}" if kinds else r"(?!)"
        longest = sorted(self._plain, key=len, reverse=True)
        small = "|".join(re.escape(p) for p in longest if _SMALL.fullmatch(p)) or r"(?!)"
        other = "|".join(re.escape(p) for p in longest if not _SMALL.fullmatch(p)) or r"(?!)"
        plain = rf"{_BEFORE}(?:{other}){_AFTER}|{_BEFORE_SMALL}(?:{small}){_AFTER_SMALL}"
        pattern = re.compile(rf"(?i:{coded})|(?P<plain>{plain})")
        return pattern, None if self._plain else re.compile(coded)


_LEFT, _RIGHT = re.compile(_BEFORE_SMALL), re.compile(_AFTER_SMALL)


def stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a surrogate put in place of these characters would be found again: what touches it is
    not read as a part of it.
    """
    return _LEFT.match(text, start) is not None and _RIGHT.match(text, end) is not None


def normal(shown: str) -> str:
    """A placeholder in the one of its spellings that it is known by."""
    return shown.replace("\\", "").replace(" ", "_").replace("-", "_").casefold()


def _followed(written: str, value: str, follow: bool) -> str:
    if follow and written == written.lower():
        return value.lower()
    if follow and written == written.upper() and any(c.isalpha() for c in written[-6:]):
        return value.upper()
    return value


def segments(restorer: Restorer, text: str) -> list[Segment]:
    """Every issued placeholder in `text`, in order."""
    return restorer.scan(text, 0, final=True)[0]


def restore(restorer: Restorer, text: str, render: PlainTarget | None = None) -> str:
    """`text` with every issued placeholder replaced by what it stands for."""
    return fill(text, segments(restorer, text), render or PlainTarget())[0]


def fill(
    text: str,
    found: Sequence[Segment],
    render: PlainTarget,
    *,
    start: int = 0,
    end: int | None = None,
    final: bool = True,
) -> tuple[str, list[Segment], int]:
    """`text` from `start` to `end` with the values of `found` in it, what was restored, and up to
    where: without `final`, what stands at a place may depend on what comes after `text`.
    """
    parts: list[str] = []
    rendered: list[Segment] = []
    for segment in found:
        put = render.put(text, start, segment, final=final)
        parts.append(text[start : put.start])
        start = put.end
        if put.written is None:
            return "".join(parts), rendered, start
        parts.append(put.written)
        if put.restored:
            rendered.append(Segment(put.start, put.end, put.written))
    rest = text[start:end]
    render.passed(rest)
    return "".join((*parts, rest)), rendered, max(start, len(text) if end is None else end)


@dataclass
class Stream:
    """A text that arrives in pieces: `feed` and `finish` return what is certain, restored.

    Whatever the cuts, what they return adds up to `restore` of the whole.

    Attributes:
        found: the placeholders restored so far, at their places in the whole text.
        certain: up to where the whole text has been returned.
    """

    restorer: Restorer
    render: PlainTarget = field(default_factory=PlainTarget)
    found: list[Segment] = field(default_factory=list)
    certain: int = 0
    _buffer: str = ""
    _at: int = 0

    @property
    def holds(self) -> bool:
        """Whether text is held back because it may be the beginning of a placeholder."""
        return self._at < len(self._buffer)

    def feed(self, piece: str) -> str:
        self._buffer += piece
        return self._advance(final=False)

    def finish(self) -> str:
        """The text that was held back, restored; no more text will come."""
        return self._advance(final=True)

    @property
    def _quotes(self) -> bool:
        return self.render.quotes

    def _advance(self, *, final: bool) -> str:
        found, certain = self.restorer.scan(self._buffer, self._at, final=final)
        if not final and self._quotes:
            # A quote before a number goes with it, and so do the signs that escape the quote.
            passed = self._buffer[self._at : certain]
            certain = self._at + len(passed.removesuffix('"').rstrip("\\"))
        text, rendered, certain = fill(
            self._buffer, found, self.render, start=self._at, end=certain, final=final
        )
        start = self.certain - self._at
        self.found += [Segment(s.start + start, s.end + start, s.value) for s in rendered]
        self.certain += certain - self._at
        keep = max(0, certain - _CONTEXT)  # what the look-behind of the next scan may ask for
        self._buffer, self._at = self._buffer[keep:], certain - keep
        return text


def restored_tokens(
    tokens: Sequence[TokenLogprob], text: str, found: Sequence[Segment]
) -> tuple[TokenLogprob, ...]:
    """The tokens of a reply `text` in which the placeholders `found` are restored.

    The tokens that a placeholder was written in become one, with the restored text, the sum of
    their log-probabilities and no alternatives (those are pieces of placeholders). Where the tokens
    do not add up to `text` and something was restored, none are left: they would not fit.
    """
    if not found:
        return tuple(tokens)
    if "".join(t.token for t in tokens) != text:
        return ()
    merged: list[TokenLogprob] = []
    group: list[TokenLogprob] = []
    at = begin = 0
    waiting = list(reversed(found))
    inside: list[Segment] = []
    for token in tokens:
        group.append(token)
        at += len(token.token)
        while waiting and waiting[-1].start < at:
            inside.append(waiting.pop())
        if inside and inside[-1].end > at:
            continue
        if inside:
            whole = fill(text, inside, PlainTarget(), start=begin, end=at)[0]
            merged.append(TokenLogprob(whole, sum(t.logprob for t in group)))
        else:
            merged += group
        group, inside, begin = [], [], at
    return tuple(merged)
