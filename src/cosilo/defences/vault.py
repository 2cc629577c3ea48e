"""One value ↔ one placeholder, for one conversation.

    value ──HMAC(key, conversation, kind, value)──▶ PERSON_k7q2mx ──▶ the LM ──▶ value

A placeholder is derived, not drawn: the same conversation under the same key gives the same prompt
again, and two conversations share none. Its six letters and digits are 30 bits that nobody without
the key can guess, so a reply can only hold a placeholder that the LM was shown.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cosilo.defences.detection import Span, resolve
from cosilo.defences.restoring import Restorer, restore, segments, stands_alone
from cosilo.defences.surrogates import DATES, Cover, Draw, disguise

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
CODE = 6
SURROGATES = 500  # per conversation; each costs a scan of the message, so more get placeholders
_LOOKALIKE = re.compile(rf"[A-Z]{{2,12}}_[{ALPHABET}]{{{CODE}}}")
_TRIES = 200  # for a surrogate, then as many for a placeholder
_WORDS = re.compile(r"\w+")


class Vault:
    """The placeholders of one conversation.

    Args:
        key: the data owner's secret.
        conversation: what the placeholders are bound to.
    """

    def __init__(self, key: bytes, conversation: str) -> None:
        self._key = hmac.new(key, conversation.encode(), hashlib.sha256).digest()
        self._shown: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._restorer = Restorer()
        self._surrogates = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """How many values of each kind have a placeholder."""
        return Counter(self._kinds.values())

    @property
    def restorer(self) -> Restorer:
        """Turns placeholders back; it sees only what this vault has issued."""
        return self._restorer

    def cover(self, texts: Sequence[str], found: Sequence[Iterable[Span]]) -> list[list[Span]]:
        """What must be hidden in each of `texts`, given what was `found` in each: that, every other
        place where one of those values or an earlier one stands, and every text that looks like
        one of our placeholders.
        """
        spans = [resolve(s, t) for t, s in zip(texts, found, strict=True)]
        values = dict(self._kinds)
        for text, here in zip(texts, spans, strict=True):
            for span in here:
                values.setdefault(text[span.start : span.end], span.kind)
        finder = _Finder(values)
        covered = []
        for text, here in zip(texts, spans, strict=True):
            whole = resolve([*here, *finder.find(text), *self._lookalikes(text)], text)
            covered.append([_renamed(s, text, values) for s in whole])
        return covered

    def issue(self, texts: Sequence[str], spans: Sequence[Sequence[Span]], public: str) -> None:
        """A placeholder for every value; none that stands in `texts` or in `public` already, and
        none that spells one of the values.
        """
        taken = "\n".join((*texts, public))
        values = {
            text[s.start : s.end]: s.kind
            for text, here in zip(texts, spans, strict=True)
            for s in here
        }
        words = {w for value in values for w in _WORDS.findall(value.casefold())}
        glued = {v for t, here in zip(texts, spans, strict=True) for v in _glued(t, here)}
        new = {v: k for v, k in values.items() if v not in self._shown}
        dates = {v: k for v, k in new.items() if k in DATES and v not in glued}

        def fits(attempt: int) -> bool:
            covers = [disguise(k, v, self._draw(k, v, attempt)) for v, k in dates.items()]
            return all(c is not None and self._free(c, taken, words) for c in covers)

        # Dates move together: where all of them can, by the same distance.
        first = next(filter(fits, range(_TRIES // 4)), 0) if len(dates) > 1 else 0
        for value, kind in new.items():
            tries = range(first if value in dates else 0, _TRIES)
            self._add(value, kind, taken, words, tries if value not in glued else range(0))

    def shown(self, value: str) -> str:
        """What stands for `value`, which has been issued."""
        return self._shown[value]

    def hide(self, text: str, spans: Sequence[Span]) -> str:
        """`text` with the placeholder of each span's value in its place."""
        parts: list[str] = []
        at = 0
        for span in spans:
            parts += text[at : span.start], self._shown[text[span.start : span.end]]
            at = span.end
        return "".join((*parts, text[at:]))

    def restore(self, text: str) -> str:
        """`text` with the values back in."""
        return restore(self._restorer, text)

    def _add(
        self, value: str, kind: str, taken: str, words: set[str], surrogates: Iterable[int]
    ) -> None:
        """Issue a placeholder for `value`: a surrogate at one of these tries, or else a code."""
        for attempt in surrogates if self._surrogates < SURROGATES else ():
            cover = disguise(kind, value, self._draw(kind, value, attempt))
            if cover is None:
                break
            if self._free(cover, taken, words):
                self._surrogates += 1
                self._issued(value, kind, cover, plain=True)
                return
        for attempt in range(_TRIES, 2 * _TRIES):
            shown = f"{kind}_{self._draw(kind, value, attempt).code(ALPHABET, CODE)}"
            cover = Cover(shown, {shown: value})
            if not self._restorer.knows_other(cover.aliases) and shown not in taken:
                self._issued(value, kind, cover, plain=False)
                return
        raise ValueError(f"no placeholder for a value of kind {kind} in {2 * _TRIES} tries")

    def _issued(self, value: str, kind: str, cover: Cover, *, plain: bool) -> None:
        self._restorer.add(cover.aliases, follow=kind == "VALUE", plain=plain)
        self._shown[value] = cover.shown
        self._kinds[value] = kind

    def _free(self, cover: Cover, taken: str, words: set[str]) -> bool:
        """Whether nothing else can be taken for this surrogate, and it spells no value."""
        return (
            not self._restorer.knows_other(cover.aliases)
            and words.isdisjoint(_WORDS.findall(cover.shown.casefold()))
            and not any(alias in taken for alias in cover.aliases)
        )

    def _draw(self, kind: str, value: str, attempt: int) -> Draw:
        return Draw(self._key, f"{kind}\0{value}\0{attempt}", shared=f"\0{attempt}")

    def _lookalikes(self, text: str) -> list[Span]:
        shaped = [Span(*m.span(), "TEXT") for m in _LOOKALIKE.finditer(text)]
        ours = [Span(s.start, s.end, "TEXT") for s in segments(self._restorer, text)]
        return shaped + ours


def _renamed(span: Span, text: str, values: dict[str, str]) -> Span:
    """A value has one kind: the one it was first found with."""
    kind = values.setdefault(text[span.start : span.end], span.kind)
    return span if kind == span.kind else replace(span, kind=kind)


_JOINTS = frozenset(("", *".,-:/"))


def _glued(text: str, spans: Sequence[Span]) -> Iterator[str]:
    """The values of spans that touch a word, a number or one another, also through a sign that
    stands in numbers (a placeholder may end with a digit): a surrogate would be lost."""
    for i, span in enumerate(spans):
        before = text[spans[i - 1].end : span.start] if i else None
        after = text[span.end : spans[i + 1].start] if i + 1 < len(spans) else None
        touches = any(gap is not None and gap in _JOINTS for gap in (before, after))
        if touches or not stands_alone(text, span.start, span.end):
            yield text[span.start : span.end]


_TOKEN = re.compile(r"\w+|[^\w\s]")
_DIGITS = re.compile(r"\d{6,}")


class _Finder:
    """Finds every place where one of `values` stands, as whole words.

    Values of four characters and more are found in any case; a shorter one as it is, and only when
    it has a digit or three letters: hiding every 'or' because a state is called OR would destroy
    the text. Long numbers are found also inside of words.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._kinds = values
        self._begin: dict[str, list[tuple[str, str]]] = {}
        for value, kind in values.items():
            first = _TOKEN.search(value)
            if first is None or first.start() or not _distinctive(value):
                continue
            self._begin.setdefault(first.group().casefold(), []).append((value, kind))

    def find(self, text: str) -> Iterator[Span]:
        if not self._begin:
            return
        for token in _TOKEN.finditer(text):
            for value, kind in self._begin.get(token.group().casefold(), ()):
                start, end = token.start(), token.start() + len(value)
                here = text[start:end]
                same = here == value or (len(value) > 3 and here.casefold() == value.casefold())
                if same and not (_is_word(text, end - 1) and _is_word(text, end)):
                    yield Span(start, end, kind, 0.5)
        for number in _DIGITS.finditer(text):
            if number.group() in self._kinds:
                yield Span(*number.span(), self._kinds[number.group()], 0.5)


def _distinctive(value: str) -> bool:
    return len(value) >= 3 or any(c.isdigit() for c in value)


def _is_word(text: str, at: int) -> bool:
    return at < len(text) and (text[at].isalnum() or text[at] == "_")
