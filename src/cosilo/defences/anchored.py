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
from collections.abc import Iterator, Sequence
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


class AnchoredText:
    """A text, and where its words begin."""

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def long(self) -> bool:
        """Whether looking through it once costs less than looking everywhere."""
        return len(self.text) >= _SHORT

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

    def starts(self, beginnings: frozenset[str], *, parts: bool = False) -> Sequence[int]:
        """Where a word, or a sign, with one of `beginnings` stands, in order.

        Args:
            parts: also inside of words, after what is none of the letters A to Z.
        """
        places = self._places
        found: list[list[int]] = []
        for beginning in beginnings:
            first = beginning[0]
            if first in KINDS:
                found.append(places[first])
                continue
            if not is_of_word(first):
                found.append(self._signs(first))
                continue
            whole = beginning[-1] == END or len(beginning) == LETTERS
            begun = beginning.rstrip(END)
            if whole:
                found.append(places.get(begun, []))
            else:
                found += [some for key, some in places.items() if key.startswith(begun)]
            if parts:
                found += [s for key, s in self._parts.items() if key.startswith(begun)]
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
        self._needs = max((*literals(tree), ""), key=len)
        self._holds = re.compile(holds, flags) if holds else None
        self._begins, self._parts = beginnings(tree, regex.flags)
        if self._begins is None and begins:
            self._begins = frozenset((begins,))

    @property
    def anchored(self) -> bool:
        """Whether it is tried only at some places."""
        return self._begins is not None

    def find(
        self, text: AnchoredText, start: int = 0, end: int | None = None
    ) -> Iterator[re.Match[str]]:
        """What `finditer` finds in `text`, between `start` and `end`."""
        last = len(text.text) if end is None else end
        if not text.long:
            return self.regex.finditer(text.text, start, last)
        if self._needs and text.folded.find(self._needs, start, last) < 0:
            return iter(())
        if self._holds is not None and self._holds.search(text.text, start, last) is None:
            return iter(())
        if self._begins is None:
            return self.regex.finditer(text.text, start, last)
        places = text.starts(self._begins, parts=self._parts)
        return self._tried(text.text, places, start, last) if places else iter(())

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
