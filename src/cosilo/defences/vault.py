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
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import msgspec

from cosilo.defences.covered import CoveredText, KnownTexts
from cosilo.defences.detection import Span, Steps, due, gathered, resolving, run
from cosilo.defences.finding import Among, ValueFinder
from cosilo.defences.json_text import NUMBER, JsonReading
from cosilo.defences.restoring import Restorer, normal, restore, segments, stands_alone
from cosilo.defences.surrogates import DATES, DISGUISED, Cover, Draw, disguise
from cosilo.errors import PrivacyError

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
CODE = 6
SURROGATES = 500  # per conversation; each costs a scan of the message, so more get placeholders
_SCANNED = 20_000_000  # characters of all these scans of one message
_LOOKALIKE = re.compile(rf"[A-Z]{{2,12}}_[{ALPHABET}]{{{CODE}}}")
_TYPED = re.compile(rf"[A-Z]{{2,12}}\\{{0,2}}_[{ALPHABET}]{{{CODE}}}", re.I)
_CODES = re.compile(rf"_(?=([{ALPHABET}]{{{CODE}}}))")
_COMPARED = 5_000_000  # values times characters, so that it costs some milliseconds
_TRIES = 200  # for a surrogate, then as many for a placeholder
_MOST_TRIES = 10_000  # of surrogates for one message
_WORDS = re.compile(r"\w+")


class Issued(msgspec.Struct, frozen=True):
    """A value and what stands for it: `aliases` are the forms that are restored, and to what.

    Attributes:
        plain: it is no KIND_code but an ordinary word, number or date.
    """

    value: str
    kind: str
    shown: str
    aliases: dict[str, str]
    plain: bool


class Vault:
    """The placeholders of one conversation.

    Attributes:
        key: what they are derived under.
        issued: all of them, in the order in which they were.
        scope: equal for all conversations under one key, and for no others.

    Args:
        key: the data owner's secret.
        conversation: what the placeholders are bound to.
    """

    def __init__(self, key: bytes, conversation: str) -> None:
        self.key = hmac.new(key, conversation.encode(), hashlib.sha256).digest()
        self.scope = hmac.new(key, b"scope", hashlib.sha256).digest()
        self.issued: list[Issued] = []
        self._shown: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._restorer = Restorer()
        self._surrogates = 0
        self._firsts: set[str] = set()  # values that have the first placeholder that was tried
        self._left: frozenset[str] = frozenset()  # what may stand in the LM's own earlier turns

    @classmethod
    def under(cls, key: bytes, scope: bytes, issued: Iterable[Issued]) -> Vault:
        """The vault whose `key` and `scope` these are, with what it has issued so far."""
        vault = cls(b"", "")
        vault.key, vault.scope = key, scope
        vault.take(issued)
        return vault

    def take(self, issued: Iterable[Issued]) -> None:
        """Take over the placeholders `issued` by another vault with the same key."""
        for item in issued:
            if item.value not in self._shown:
                self._take(item)

    def _take(self, item: Issued) -> None:
        kind = item.kind
        self.issued.append(item)
        self._surrogates += item.plain
        self._restorer.add(item.aliases, follow=kind == "VALUE", plain=item.plain, kind=kind)
        self._shown[item.value] = item.shown
        self._kinds[item.value] = kind

    @property
    def counts(self) -> Mapping[str, int]:
        """How many values of each kind have a placeholder."""
        return Counter(self._kinds.values())

    @property
    def restorer(self) -> Restorer:
        """Turns placeholders back; it sees only what this vault has issued."""
        return self._restorer

    def holds(self, value: str) -> bool:
        """Whether `value`, written like this, has a placeholder."""
        return value in self._shown

    def cover(self, texts: Sequence[str], found: Sequence[Iterable[Span]]) -> list[list[Span]]:
        """What must be hidden in each of `texts`, given what was `found` in each: that, every other
        place where one of those values or an earlier one stands, and every text that looks like
        one of our placeholders.
        """
        return run(self.covering(texts, found))

    def covering(
        self,
        texts: Sequence[str],
        found: Sequence[Iterable[Span]],
        from_lm: Sequence[bool] = (),
        known: KnownTexts | None = None,
    ) -> Steps[list[list[Span]]]:
        """`cover`, in steps.

        Args:
            from_lm: which texts the LM said before. A placeholder that was left in one of them stands
                for its value still, and stays.
            known: what was covered in some of the texts before; it is told what is now.
        """
        before: Sequence[CoveredText | None] = [None] * len(texts)
        if known is not None and not self.issued:
            before = known.before
        spans = []
        for text, here, was in zip(texts, found, before, strict=True):
            spans.append(list(was.found) if was is not None else (yield from resolving(here, text)))
        values = dict(self._kinds)
        for text, kept in zip(texts, spans, strict=True):
            for span in kept:
                values.setdefault(text[span.start : span.end], span.kind)
        self._left = frozenset()
        by_lm = (text for text, by_lm in zip(texts, from_lm, strict=False) if by_lm and "_" in text)
        if any(map(_TYPED.search, by_lm)):
            codes = (self._coded(kind, value, _TRIES)[0] for value, kind in values.items())
            self._left = frozenset(map(normal, codes))
        if known is not None and (self._left or _changes_kind(texts, before, values)):
            known.forget()
            before = known.before
        asked, searched = [True] * len(texts), values
        if any(before):
            asked, searched = _touched(texts, before, values)
        finder = ValueFinder(searched)
        covered = []
        for i, (text, kept) in enumerate(zip(texts, spans, strict=True)):
            if not asked[i] and (was := before[i]) is not None:
                covered.append([_renamed(s, text, values) for s in was.covered])
                continue
            again = yield from gathered(finder.find(text))
            own = {(s.start, s.end) for s in kept}
            typed = self._lookalikes(text)
            if self._left and from_lm[i]:
                typed = [s for s in typed if normal(text[s.start : s.end]) not in self._left]
            others = [s for s in (*again, *typed) if (s.start, s.end) not in own]
            whole = (yield from resolving([*kept, *others], text)) if others else kept
            covered.append([_renamed(s, text, values) for s in whole])
        if known is not None and not self._left:
            both = zip(spans, covered, strict=True)
            known.now = [CoveredText(tuple(found), tuple(all_)) for found, all_ in both]
        return covered

    def issue(self, texts: Sequence[str], spans: Sequence[Sequence[Span]], public: str) -> None:
        """A placeholder for every value; none that stands in `texts` or in `public` already, and
        none that spells one of the values.
        """
        run(self.issuing(texts, spans, public))

    def issuing(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[Span]],
        public: str,
        from_lm: Sequence[bool] = (),
        codes: Mapping[str, str] | None = None,
    ) -> Steps[None]:
        """`issue`, in steps; `from_lm` as in `covering`.

        Args:
            codes: placeholders that some values would get where no text forbids it, so that they need
                not be derived again.
        """
        values = {
            text[s.start : s.end]: s.kind
            for text, here in zip(texts, spans, strict=True)
            for s in here
        }
        said = [
            _TYPED.sub(self._unless_left, text) if self._left and from_lm[i] else text
            for i, text in enumerate(texts)
        ]
        taken = _Taken("\n".join((*said, public)), values)
        if due():
            yield
        glued: set[str] = set()
        if not DISGUISED.isdisjoint(values.values()):
            glued = {v for t, here in zip(texts, spans, strict=True) for v in _glued(t, here)}
            if due():
                yield
        new = {v: k for v, k in values.items() if v not in self._shown}
        most = min(SURROGATES - self._surrogates, _SCANNED // (1 + len(taken.text)))
        dates = {v: k for v, k in new.items() if k in DATES and v not in glued}

        def fits(attempt: int) -> bool:
            covers = (disguise(k, v, self._draw(k, v, attempt)) for v, k in dates.items())
            return all(c is not None and self._free(c, taken) for c in covers)

        # Dates move together: where all of them can, by the same distance.
        first = 0
        if 1 < len(dates) <= most:
            for attempt in range(_TRIES // 4):
                if not taken.tries:
                    break
                if fits(attempt):
                    first = attempt
                    break
                if due():
                    yield
        most += self._surrogates
        for value, kind in new.items():
            tries = range(first if value in dates else 0, _TRIES)
            plain = kind in DISGUISED and value not in glued and self._surrogates < most
            if plain or not (codes and self._again(value, kind, codes.get(value, ""), taken)):
                self._add(value, kind, taken, tries if plain else range(0))
            if due():
                yield

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

    def hidden(
        self,
        text: str,
        spans: Sequence[Span],
        read: JsonReading | None,
        *,
        from_lm: bool = False,
    ) -> tuple[str, list[Span]]:
        """What `hide` returns, and the other spans of `text` that would be restored by mistake, so
        must be hidden too.

        Args:
            read: what `text` says, where it holds JSON; `spans` and what is returned are of that.
            from_lm: the LM said it before; placeholders that were left in it are no mistake.

        Raises:
            PrivacyError: a placeholder would not be found again.
        """
        whole, issued, moves = self._put(text, spans, read)
        strays: list[Span] = []
        for start, end, value, _ in segments(self._restorer, whole):
            if issued.get((start, end)) == value:
                del issued[start, end]
                continue
            if from_lm and normal(whole[start:end]) in self._left:
                continue
            there, here = moves[bisect_right(moves, (start, len(text))) - 1]
            stray = Span(here + start - there, here + end - there, "TEXT")
            if text[stray.start : stray.end] != whole[start:end]:
                break  # it runs into a placeholder
            strays.append(read.read(stray) if read else stray)
        if issued and not strays:
            raise PrivacyError("a message could not be restored exactly, so nothing was sent")
        return whole, strays

    def _put(
        self, text: str, spans: Sequence[Span], read: JsonReading | None
    ) -> tuple[str, dict[tuple[int, int], str], list[tuple[int, int]]]:
        """`text` with placeholders; where each stands there, and for what; and where what is not hidden
        begins: there, and in `text`.
        """
        said = read.text if read else text
        parts: list[str] = []
        issued: dict[tuple[int, int], str] = {}
        moves: list[tuple[int, int]] = [(0, 0)]
        at = length = 0
        for span in spans:
            value = said[span.start : span.end]
            place = read.written(span) if read else span
            shown = self._shown[value]
            quote = read.quote(span) if read and not NUMBER.fullmatch(shown) else ""
            length += place.start - at + len(quote)
            parts += text[at : place.start], quote, shown, quote
            issued[length, length + len(shown)] = value
            at, length = place.end, length + len(shown) + len(quote)
            moves.append((length, at))
        return "".join((*parts, text[at:])), issued, moves

    def restore(self, text: str) -> str:
        """`text` with the values back in."""
        return restore(self._restorer, text)

    def put(self, text: str, spans: Sequence[Span], read: JsonReading | None) -> str:
        """What `hidden` makes of `text`, without a look at whether it is restored exactly."""
        return self._put(text, spans, read)[0] if read else self.hide(text, spans)

    def codes(self, text: str, spans: Sequence[Span]) -> list[str]:
        """What stands for the value of each of `spans`, where that is the first placeholder that was
        tried for it; else "".
        """
        firsts = self._firsts
        return [
            self._shown[value] if (value := text[s.start : s.end]) in firsts else "" for s in spans
        ]

    def codes_beside(self, known: Iterable[str]) -> list[str]:
        """The codes of all placeholders that are not among `known`."""
        told = set(known)
        return [i.shown[-CODE:] for i in self.issued if not i.plain and i.shown not in told]

    def _again(self, value: str, kind: str, shown: str, taken: _Taken) -> bool:
        """Whether `value` has the placeholder `shown` now, which is the first that it would get."""
        code = shown[-CODE:]
        if shown != f"{kind}_{code}" or code in taken.codes or self._restorer.knows(shown):
            return False
        self._firsts.add(value)
        self._take(Issued(value, kind, shown, {shown: value}, plain=False))
        return True

    def _add(self, value: str, kind: str, taken: _Taken, surrogates: Iterable[int]) -> None:
        """Issue a placeholder for `value`: a surrogate at one of these tries, or else a code."""
        for attempt in surrogates:
            cover = disguise(kind, value, self._draw(kind, value, attempt))
            if cover is None or not taken.tries:
                break
            if self._free(cover, taken):
                self.take([Issued(value, kind, cover.shown, cover.aliases, plain=True)])
                return
        for attempt in range(_TRIES, 2 * _TRIES):
            shown, code = self._coded(kind, value, attempt)
            cover = Cover(shown, {shown: value})
            if code not in taken.codes and not self._restorer.knows_other(cover.aliases):
                if attempt == _TRIES:
                    self._firsts.add(value)
                self.take([Issued(value, kind, shown, cover.aliases, plain=False)])
                return
        raise ValueError(f"no placeholder for a value of kind {kind} in {2 * _TRIES} tries")

    def _coded(self, kind: str, value: str, attempt: int) -> tuple[str, str]:
        """The placeholder of this try, and its code."""
        code = self._draw(kind, value, attempt).code(ALPHABET, CODE)
        return f"{kind}_{code}", code

    def _unless_left(self, found: re.Match[str]) -> str:
        return "" if normal(found.group()) in self._left else found.group()

    def _free(self, cover: Cover, taken: _Taken) -> bool:
        """Whether nothing else can be taken for this surrogate, and it spells no value."""
        taken.tries = max(0, taken.tries - 1)
        return (
            not self._restorer.knows_other(cover.aliases)
            and taken.words.isdisjoint(_WORDS.findall(cover.shown.casefold()))
            and not any(alias in taken.text for alias in cover.aliases)
        )

    def _draw(self, kind: str, value: str, attempt: int) -> Draw:
        return Draw(self.key, f"{kind}\0{value}\0{attempt}", shared=f"\0{attempt}")

    def _lookalikes(self, text: str) -> list[Span]:
        shaped = [Span(*m.span(), "TEXT") for m in _LOOKALIKE.finditer(text)]
        ours = [Span(s.start, s.end, "TEXT") for s in segments(self._restorer, text)]
        return shaped + ours


def _changes_kind(
    texts: Sequence[str], before: Sequence[CoveredText | None], values: Mapping[str, str]
) -> bool:
    """Whether a value that was found in some of `texts` before is of another kind now, among all
    `values`: it would be looked for in another way.
    """
    told: dict[str, str] = {}
    for text, was in zip(texts, before, strict=True):
        for span in was.found if was is not None else ():
            told.setdefault(text[span.start : span.end], span.kind)
    return any(values[value] != kind for value, kind in told.items())


def _touched(
    texts: Sequence[str], before: Sequence[CoveredText | None], values: dict[str, str]
) -> tuple[list[bool], dict[str, str]]:
    """Which of `texts` must be looked through, where some were `before`, and for which of `values`: the
    others may not stand there.
    """
    told = {
        text[s.start : s.end]
        for text, was in zip(texts, before, strict=True)
        for s in (was.found if was is not None else ())
    }
    earlier = [text for text, was in zip(texts, before, strict=True) if was is not None]
    new = [(value, kind) for value, kind in values.items() if value not in told]
    if len(new) * sum(map(len, earlier)) > _COMPARED:
        return [True] * len(texts), values
    new = _may_hold(earlier, new)  # most stand in none
    asked = [
        was is None or (bool(new) and bool(_may_hold([text], new)))
        for text, was in zip(texts, before, strict=True)
    ]
    some = [text for text, look in zip(texts, asked, strict=True) if look]
    if len(values) * sum(map(len, some)) > _COMPARED:
        return asked, values
    return asked, dict(_may_hold(some, values.items()))


def _may_hold(texts: Sequence[str], values: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    among = Among(texts)
    return [(value, kind) for value, kind in values if among.may_hold(value, kind)]


def _renamed(span: Span, text: str, values: dict[str, str]) -> Span:
    """`span` with the kind that its value was first found with, so that a value has only one
    placeholder.
    """
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


class _Taken:
    """What no placeholder may be: anything that stands in a message.

    Attributes:
        text: the whole message.
        codes: what could be read as the code of a placeholder, so that looking for one costs no scan.
        tries: how many more surrogates may be tried; then there are only codes.
    """

    def __init__(self, text: str, values: Iterable[str]) -> None:
        self.text = text
        self._values = values
        self.tries = _MOST_TRIES
        self.codes = frozenset(_CODES.findall(text))

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of its private values, in small letters."""
        return frozenset(w for value in self._values for w in _WORDS.findall(value.casefold()))
