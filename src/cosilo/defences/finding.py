"""Where the values of a message stand in its texts, also where no detector found them.

values ─▶ those that may stand in some texts, by their parts ─▶ one tree of words ─▶ every place
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, chain

from cosilo.defences.beside import parts_of_name
from cosilo.defences.detection import Span

_WORDS = re.compile(r"\w+")
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_DIGITS = re.compile(r"\d{6,}")
_ESCAPE = re.compile(r"\\{1,16}[bfnrt](?=\w)")  # it would make one word with what follows
_DEEPEST = 200
_IDENTIFIER = re.compile(r"[^\W\d_]+(?:[_.\-][^\W\d_]+)*")
_PART = re.compile(r"[^\W\d_]+")
_SIGNS = "_.-"  # what joins the parts of an identifier
_MOST_PARTS = 6  # of an identifier, and of a name in one
_LETTER_WHEN_SMALL = "\u0345"  # the one sign of which `casefold` makes a letter
_LONG = 10  # letters of two names in one word, so that it is no other word


class _Node:
    """A word: those that follow it in some value, and the values that end with it."""

    __slots__ = ("next", "values")

    def __init__(self) -> None:
        self.next: dict[str, _Node] = {}
        self.values: list[str] = []


class ValueFinder:
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
        yield from self._find(text)
        if "\\" in text and (apart := _ESCAPE.sub(_blanks, text)) != text:
            yield from self._find(apart)

    def _find(self, text: str) -> Iterator[Span]:
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


def _blanks(found: re.Match[str]) -> str:
    return " " * len(found.group())


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


class Among:
    """Texts, to be asked which values a `ValueFinder` may find in them."""

    def __init__(self, texts: Iterable[str]) -> None:
        joined = "\0".join(texts)
        if "\\" in joined:
            joined += "\0" + _ESCAPE.sub(_blanks, joined)
        self._folded = joined.casefold()
        self._same_words = _LETTER_WHEN_SMALL not in joined
        self._letters = ""

    def may_hold(self, value: str, kind: str) -> bool:
        """Whether `value`, a part of it, or a form that it has in identifiers may stand here: as whole
        words, unless it is a number.
        """
        if self._holds(value.casefold()):
            return True
        if kind != "PERSON" or value.isalpha():
            return False
        if value.isascii() and value.replace(" ", "").isalpha():  # most names, in half of the time
            words = value.lower().split(" ")
            for word in words:
                if len(word) > 3 and word in self._folded:
                    break
            else:
                if words[-1] not in self._without_signs():
                    return False
        for part in parts_of_name(value):
            if part in self._folded:
                return True
        letters = self._without_signs()
        return any(form in letters for form in _joined(value))

    def _without_signs(self) -> str:
        if not self._letters:
            self._letters = self._folded
            for sign in _SIGNS:
                self._letters = self._letters.replace(sign, "")
        return self._letters

    def _holds(self, value: str) -> bool:
        text = self._folded
        at = text.find(value)
        if at < 0 or value.isdigit() or not self._same_words:
            return at >= 0
        while at >= 0:
            end = at + len(value)
            if not _cuts(text, at) and not _cuts(text, end):
                return True
            at = text.find(value, at + 1)
        return False
