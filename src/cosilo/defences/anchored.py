"""Regular expressions that are asked only where they can match.

    \\b(?i:my[ ]name|dear)[ ](?P<value>…)   ──▶  begins with a word in "my…" or "dea…"
    Dear Maud, my parcel has not come.     ──▶  where its words begin, by their first letters
    both                                   ──▶  tried at 0 and 11, and nowhere else

A long text is looked through once for its words; a form that cannot begin at any of them costs a
look-up. What is found is what `finditer` finds; that is what is asked where a form does not tell how it
begins, and in a short text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from cosilo.defences.beginnings import (
    DIGIT,
    END,
    JOINED,
    KINDS,
    LETTERS,
    LOWER,
    UPPER,
    beginnings,
    folded,
    is_of_word,
    kind,
    literals,
    parsed,
)

_SHORT = 150  # characters of a text in which looking everywhere is as quick

_RUN = re.compile(r"\w+")
_PART = re.compile(rf"(?<=[^a-z])[a-z]{{1,{LETTERS}}}")
_JOINTS = frozenset(".-")


@dataclass(frozen=True, slots=True, eq=False)
class _Begins:
    """What matches of a form begin with, as it is looked up; one for all forms that begin the same.

    Attributes:
        words: all letters of a word, or as many as it is known by.
        less: fewer letters of a longer word.
        inside: all of them, where the form may begin inside of a word, too.
        only_words: it is nothing but `words`.
    """

    kinds: tuple[str, ...]
    signs: tuple[str, ...]
    words: frozenset[str]
    less: tuple[str, ...]
    inside: tuple[str, ...]
    only_words: bool

    @classmethod
    def of(cls, beginnings: frozenset[str], *, parts: bool) -> _Begins:
        known = _KNOWN.get((beginnings, parts))
        if known is not None:
            return known
        kinds = tuple(b for b in beginnings if b[0] in KINDS)
        signs = tuple(b[0] for b in beginnings if b[0] not in KINDS and not is_of_word(b[0]))
        letters = [b for b in beginnings if b[0] not in KINDS and is_of_word(b[0])]
        words = frozenset(b.rstrip(END) for b in letters if b[-1] == END or len(b) == LETTERS)
        less = tuple(b for b in letters if b[-1] != END and len(b) != LETTERS)
        inside = tuple({*words, *less}) if parts else ()
        made = cls(kinds, signs, words, less, inside, not (kinds or signs or less or inside))
        _KNOWN[beginnings, parts] = made
        for word in words:
            _BY_WORD.setdefault(word, []).append(made)
        return made


_KNOWN: dict[tuple[frozenset[str], bool], _Begins] = {}
_BY_WORD: dict[str, list[_Begins]] = {}


class AnchoredText:
    """A text, and where its words begin.

    Attributes:
        long: looking through it once costs less than looking everywhere.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.long = len(text) >= _SHORT
        self._starts: dict[_Begins, Sequence[int]] = {}

    @cached_property
    def folded(self) -> str:
        """The text with its letters `folded`."""
        return folded(self.text)

    @cached_property
    def words(self) -> list[tuple[int, str]]:
        """Where each word begins, and how it is `folded`."""
        starts = [run.start() for run in _RUN.finditer(self.text)]
        return list(zip(starts, _RUN.findall(self.folded), strict=True))

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """Where words begin, by their first letters and by what their first sign is."""
        text = self.text
        places: defaultdict[str, list[int]] = defaultdict(list)
        for start, word in self.words:
            places[word[:LETTERS]].append(start)
        digit: list[int] = []
        upper: list[int] = []
        for key, some in places.items():
            first = key[0]
            if first.isdecimal():
                digit += some
            elif kind(first) == LOWER:
                upper += [start for start in some if text[start] != first]
            else:
                upper += some
        joint = [
            start
            for start, word in self.words
            if not word.isalpha() or text[(end := start + len(word)) : end + 1] in _JOINTS
        ]
        return {**places, DIGIT: sorted(digit), UPPER: sorted(upper), JOINED: joint}

    @cached_property
    def _parts(self) -> dict[str, list[int]]:
        """Where inside of words letters begin that stand after another sign, by the first of them."""
        parts: defaultdict[str, list[int]] = defaultdict(list)
        for start, word in self.words:
            if not (word.isalpha() and word.isascii()):
                for part in _PART.finditer(word):
                    parts[part.group()].append(start + part.start())
        return parts

    @cached_property
    def _possible(self) -> set[_Begins]:
        """Those that have one of the words here."""
        here = self._places.keys() & _BY_WORD.keys()
        return set(chain.from_iterable(map(_BY_WORD.__getitem__, here)))

    def starts(self, begins: _Begins) -> Sequence[int]:
        """Where a word, or a sign, with one of `begins` stands, in order."""
        if begins.only_words and begins not in self._possible:
            return ()
        known = self._starts.get(begins)
        if known is None:
            known = self._starts[begins] = self._looked_up(begins)
        return known

    def _looked_up(self, begins: _Begins) -> Sequence[int]:
        places = self._places
        found = [places[kind] for kind in begins.kinds]
        if begins in self._possible:
            found += [places[word] for word in begins.words if word in places]
        found += [self._signs(sign) for sign in begins.signs if sign in self.text]
        if begins.less:
            found += [some for key, some in places.items() if key.startswith(begins.less)]
        if begins.inside:
            found += [some for key, some in self._parts.items() if key.startswith(begins.inside)]
        found = [some for some in found if some]
        if len(found) < 2:
            return found[0] if found else ()
        return sorted(set(chain.from_iterable(found)))

    def _signs(self, sign: str) -> list[int]:
        found = []
        at = self.text.find(sign)
        while at >= 0:
            found.append(at)
            at = self.text.find(sign, at + 1)
        return found


class AnchoredForm:
    """A regular expression whose matches are never empty.

    Args:
        form, flags: the expression, as `re.compile` takes it.
        begins: what its matches begin with, where the expression itself does not tell.
        holds: an expression, quickly looked for, of what each match holds.
    """

    def __init__(self, form: str, flags: int = 0, begins: str = "", holds: str = "") -> None:
        self.regex = regex = re.compile(form, flags)
        tree = parsed(regex)
        self._needs = max((*literals(tree), ""), key=len).strip(" ")  # spaces are in any text
        self._holds = re.compile(holds, flags) if holds else None
        found, parts = beginnings(tree, regex.flags)
        if found is None and begins:
            found = frozenset((begins,))
        self._begins = _Begins.of(found, parts=parts) if found is not None else None

    @property
    def anchored(self) -> bool:
        """Whether it is tried only at some places."""
        return self._begins is not None

    def find(
        self, text: AnchoredText, start: int = 0, end: int | None = None
    ) -> Iterable[re.Match[str]]:
        """What `finditer` finds in `text`, between `start` and `end`; false where a look tells that it
        is nothing.
        """
        last = len(text.text) if end is None else end
        if not text.long:
            return self.regex.finditer(text.text, start, last)
        places: Sequence[int] = ()
        if self._begins is not None and not (places := text.starts(self._begins)):
            return ()
        if self._needs and text.folded.find(self._needs, start, last) < 0:
            return ()
        if self._holds is not None and self._holds.search(text.text, start, last) is None:
            return ()
        if self._begins is None:
            return self.regex.finditer(text.text, start, last)
        return self._tried(text.text, places, start, last)

    def _tried(
        self, text: str, places: Sequence[int], at: int, last: int
    ) -> Iterator[re.Match[str]]:
        match = self.regex.match
        for place in places[bisect_left(places, at) :] if at else places:
            if place >= last:
                return
            if place >= at and (found := match(text, place, last)) is not None:
                yield found
                at = found.end()
