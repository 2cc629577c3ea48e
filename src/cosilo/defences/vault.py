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
from itertools import accumulate, chain

import msgspec

from cosilo.defences.beside import parts_of_name
from cosilo.defences.detection import Span, Steps, due, gathered, resolving, run
from cosilo.defences.json_text import NUMBER, JsonReading
from cosilo.defences.restoring import Restorer, normal, restore, segments, stands_alone
from cosilo.defences.surrogates import DATES, Cover, Draw, disguise
from cosilo.errors import PrivacyError

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
CODE = 6
SURROGATES = 500  # per conversation; each costs a scan of the message, so more get placeholders
_SCANNED = 20_000_000  # characters of all these scans of one message
_LOOKALIKE = re.compile(rf"[A-Z]{{2,12}}_[{ALPHABET}]{{{CODE}}}")
_TYPED = re.compile(rf"[A-Z]{{2,12}}\\{{0,2}}_[{ALPHABET}]{{{CODE}}}", re.I)
_CODES = re.compile(rf"_(?=([{ALPHABET}]{{{CODE}}}))")
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
            if item.value in self._shown:
                continue
            self.issued.append(item)
            self._surrogates += item.plain
            self._restorer.add(
                item.aliases, follow=item.kind == "VALUE", plain=item.plain, kind=item.kind
            )
            self._shown[item.value] = item.shown
            self._kinds[item.value] = item.kind

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
    ) -> Steps[list[list[Span]]]:
        """`cover`, in steps.

        Args:
            from_lm: which texts the LM said before. A placeholder that was left in one of them stands
                for its value still, and stays.
        """
        spans = []
        for text, here in zip(texts, found, strict=True):
            spans.append((yield from resolving(here, text)))
        values = dict(self._kinds)
        for text, kept in zip(texts, spans, strict=True):
            for span in kept:
                values.setdefault(text[span.start : span.end], span.kind)
        self._left = frozenset()
        if any(by_lm and _TYPED.search(t) for t, by_lm in zip(texts, from_lm, strict=False)):
            codes = (self._coded(kind, value, _TRIES)[0] for value, kind in values.items())
            self._left = frozenset(map(normal, codes))
        finder = _Finder(values)
        covered = []
        for i, (text, kept) in enumerate(zip(texts, spans, strict=True)):
            again = yield from gathered(finder.find(text))
            own = {(s.start, s.end) for s in kept}
            typed = self._lookalikes(text)
            if self._left and from_lm[i]:
                typed = [s for s in typed if normal(text[s.start : s.end]) not in self._left]
            others = [s for s in (*again, *typed) if (s.start, s.end) not in own]
            whole = (yield from resolving([*kept, *others], text)) if others else kept
            covered.append([_renamed(s, text, values) for s in whole])
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
    ) -> Steps[None]:
        """`issue`, in steps; `from_lm` as in `covering`."""
        values = {
            text[s.start : s.end]: s.kind
            for text, here in zip(texts, spans, strict=True)
            for s in here
        }
        words = {w for value in values for w in _WORDS.findall(value.casefold())}
        said = [
            _TYPED.sub(self._unless_left, text) if self._left and from_lm[i] else text
            for i, text in enumerate(texts)
        ]
        taken = _Taken("\n".join((*said, public)), words)
        if due():
            yield
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
            plain = value not in glued and self._surrogates < most
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
        said = read.text if read else text
        parts: list[str] = []
        issued: dict[tuple[int, int], str] = {}
        moves: list[tuple[int, int]] = [
            (0, 0)
        ]  # where what is not hidden begins: there, and in `text`
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
        whole = "".join((*parts, text[at:]))
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

    def restore(self, text: str) -> str:
        """`text` with the values back in."""
        return restore(self._restorer, text)

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
        words: of its private values, in small letters.
        codes: what could be read as the code of a placeholder, so that looking for one costs no scan.
        tries: how many more surrogates may be tried; then there are only codes.
    """

    def __init__(self, text: str, words: set[str]) -> None:
        self.text = text
        self.words = words
        self.tries = _MOST_TRIES
        self.codes = frozenset(_CODES.findall(text))


_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_DIGITS = re.compile(r"\d{6,}")
_DEEPEST = 200
_IDENTIFIER = re.compile(r"[^\W\d_]+(?:[_.\-][^\W\d_]+)*")
_PART = re.compile(r"[^\W\d_]+")
_MOST_PARTS = 6  # of an identifier, and of a name in one
_LONG = 10  # letters of two names in one word, so that it is no other word


class _Node:
    """A word: those that follow it in some value, and the values that end with it."""

    __slots__ = ("next", "values")

    def __init__(self) -> None:
        self.next: dict[str, _Node] = {}
        self.values: list[str] = []


class _Finder:
    """Finds every place where one of `values` stands, as whole words, in time linear in the text.

    A person's full name is found in the names of files and users, too (`anna_meyer`, `meyer-anna`), and
    each part of it in any case (`@meyer`, `getMeyerReport`), unless it is a word as well.
    Values of four characters and more are found in any case; a shorter one as it is, and only when
    it has a digit or three letters: hiding every 'or' because a state is called OR would destroy
    the text. Long numbers are found also inside of words, and values of very many words as they are.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._kinds = values
        self._root = _Node()
        self._longest: list[str] = []
        people = [value for value, kind in values.items() if kind == "PERSON"]
        self._joined = {form for value in people for form in _joined(value)}
        self._parts = {part for value in people for part in parts_of_name(value)}
        for value in values:
            if value[0].isspace() or not _distinctive(value):
                continue
            tokens = _TOKEN.findall(value)
            if len(tokens) > _DEEPEST:
                self._longest.append(value)
                continue
            node = self._root
            for token in tokens:
                word = token.casefold()
                if word not in node.next:
                    node.next[word] = _Node()
                node = node.next[word]
            node.values.append(value)

    def find(self, text: str) -> Iterator[Span]:
        tokens = _TOKEN.findall(text) if self._root.next else []
        words = list(map(str.casefold, tokens))
        ends = list(accumulate(map(len, tokens)))  # nothing stands between two tokens
        for first in [i for i, word in enumerate(words) if word in self._root.next]:
            node = self._root
            start = ends[first] - len(tokens[first])
            for i in range(first, len(tokens)):
                following = node.next.get(words[i])
                if following is None:
                    break
                node = following
                for value in node.values:
                    if len(value) > 3 or text[start : ends[i]] == value:
                        yield Span(start, ends[i], self._kinds[value], 0.5)
        for value in self._longest:
            start = text.find(value)
            while start >= 0:
                end = start + len(value)
                if not _cuts(text, start) and not _cuts(text, end):
                    yield Span(start, end, self._kinds[value], 0.5)
                start = text.find(value, end)
        for number in _DIGITS.finditer(text):
            if number.group() in self._kinds:
                yield Span(*number.span(), self._kinds[number.group()], 0.5)
        for name in _IDENTIFIER.finditer(text) if self._joined or self._parts else ():
            written = name.group()
            if written.isalpha() and (written.islower() or written[1:].islower()):
                word = written.casefold()  # most are one word, which needs no look at its parts
                if self._is_part(word) or (len(word) >= _LONG and word in self._joined):
                    yield Span(*name.span(), "PERSON", 0.5)
            else:
                yield from self._in_identifier(written, name.start())

    def _is_part(self, word: str) -> bool:
        return word in self._parts or (word[-1] == "s" and word[:-1] in self._parts)

    def _in_identifier(self, name: str, at: int) -> Iterator[Span]:
        parts = list(_PART.finditer(name))
        start = end = -1
        for part in chain.from_iterable(map(_words_of, parts)) if self._parts else ():
            if self._is_part(part[0].casefold()):
                start, end = (part[1] if start < 0 else start), part[1] + len(part[0])
            elif start >= 0:
                yield Span(at + start, at + end, "PERSON", 0.5)
                start = -1
        if start >= 0:
            yield Span(at + start, at + end, "PERSON", 0.5)
        for i, first in enumerate(parts):
            form = ""
            for last in parts[i : i + _MOST_PARTS]:
                form += last.group().casefold()
                if form in self._joined and (first is not last or len(form) >= _LONG):
                    yield Span(at + first.start(), at + last.end(), "PERSON", 0.5)


def _joined(name: str) -> Iterator[str]:
    """A full `name` as user names, files and code have it, without what joins its parts."""
    words = [word.casefold() for word in _WORDS.findall(name)]
    if 1 < len(words) < _MOST_PARTS and all(word.isalpha() for word in words):
        first, last = words[0], words[-1]
        if len(first) > 1 and len(last) > 1:
            yield from ("".join(words), first + last, last + first)
            if len(last) > 3:
                yield from (first[0] + last, last + first[0])


def _words_of(part: re.Match[str]) -> Iterator[tuple[str, int]]:
    """The words of a part of an identifier, and where they begin: those of `HenrikLind` are two."""
    written, start = part.group(), 0
    for at in range(1, len(written)):
        begins = not written[at - 1].isupper() or written[at + 1 : at + 2].islower()
        if written[at].isupper() and begins:
            yield written[start:at], part.start() + start
            start = at
    yield written[start:], part.start() + start


def _distinctive(value: str) -> bool:
    return len(value) >= 3 or any(c.isdigit() for c in value)


def _cuts(text: str, at: int) -> bool:
    """Whether this place is inside a word."""
    return 0 < at < len(text) and all(c.isalnum() or c == "_" for c in text[at - 1 : at + 1])
