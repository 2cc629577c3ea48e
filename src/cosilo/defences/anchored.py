"""Regular expressions that are asked only where they can match.

    \\b(?i:my[ ]name|dear)[ ](?P<value>…)   ──▶  begins with a word in "my…" or "dea…"
    Dear Maud, my parcel has not come.     ──▶  where its words begin, by their first letters
    both                                   ──▶  tried at 0 and 11, and nowhere else

A long text is looked through once for its words; a form that cannot begin at any of them costs a
look-up. What is found is what `finditer` finds; that is what is asked where a form does not tell how it
begins, and in a short text.

A form is compiled when it is first asked: a command that hides nothing does not wait for a hundred of
them. Who hides calls `compile_forms` before the first text, whose time is limited.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

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
        with _MAKING:
            known = _KNOWN.get((beginnings, parts))
            return cls._made(beginnings, parts=parts) if known is None else known

    @classmethod
    def _made(cls, beginnings: frozenset[str], *, parts: bool) -> _Begins:
        kinds = tuple(b for b in beginnings if b[0] in KINDS)
        signs = tuple(b[0] for b in beginnings if b[0] not in KINDS and not is_of_word(b[0]))
        letters = [b for b in beginnings if b[0] not in KINDS and is_of_word(b[0])]
        words = frozenset(b.rstrip(END) for b in letters if b[-1] == END or len(b) == LETTERS)
        less = tuple(b for b in letters if b[-1] != END and len(b) != LETTERS)
        inside = tuple({*words, *less}) if parts else ()
        made = cls(kinds, signs, words, less, inside, not (kinds or signs or less or inside))
        for word in words:
            _BY_WORD.setdefault(word, []).append(made)
        _KNOWN[beginnings, parts] = made  # last: texts look at how many there are
        return made


_MAKING = threading.Lock()
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
        self._here: set[_Begins] = set()
        self._known = 0  # how many there were when `_here` was looked up

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

    @property
    def _possible(self) -> set[_Begins]:
        """Those that have one of the words here; looked up again when a form was compiled since."""
        if self._known != len(_KNOWN):
            self._known = len(_KNOWN)
            here = self._places.keys() & _BY_WORD.keys()
            self._here = set(chain.from_iterable(map(_BY_WORD.__getitem__, here)))
        return self._here

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


class _Compiled(NamedTuple):
    """A form as it is asked.

    Attributes:
        needs: what each match holds, `folded`.
        holds: what each match holds, as an expression.
        begins: what each match begins with, where that is known.
    """

    regex: re.Pattern[str]
    needs: str
    holds: re.Pattern[str] | None
    begins: _Begins | None


class AnchoredForm:
    """A regular expression whose matches are never empty.

    Args:
        form, flags: the expression, as `re.compile` takes it.
        begins: what its matches begin with, where the expression itself does not tell.
        holds: an expression, quickly looked for, of what each match holds.
    """

    def __init__(self, form: str, flags: int = 0, begins: str = "", holds: str = "") -> None:
        self._written = (form, flags, begins, holds)
        _WAITING.append(self)

    @cached_property
    def _compiled(self) -> _Compiled:
        form, flags, begins, holds = self._written
        regex = re.compile(form, flags)
        tree = parsed(regex)
        found, parts = beginnings(tree, regex.flags)
        if found is None and begins:
            found = frozenset((begins,))
        return _Compiled(
            regex,
            max((*literals(tree), ""), key=len).strip(" "),  # spaces are in any text
            re.compile(holds, flags) if holds else None,
            _Begins.of(found, parts=parts) if found is not None else None,
        )

    @property
    def regex(self) -> re.Pattern[str]:
        return self._compiled.regex

    @property
    def anchored(self) -> bool:
        """Whether it is tried only at some places."""
        return self._compiled.begins is not None

    def find(
        self, text: AnchoredText, start: int = 0, end: int | None = None
    ) -> Iterable[re.Match[str]]:
        """What `finditer` finds in `text`, between `start` and `end`; false where a look tells that it
        is nothing.
        """
        last = len(text.text) if end is None else end
        regex, needs, holds, begins = self._compiled
        if not text.long:
            return regex.finditer(text.text, start, last)
        places: Sequence[int] = ()
        if begins is not None and not (places := text.starts(begins)):
            return ()
        if needs and text.folded.find(needs, start, last) < 0:
            return ()
        if holds is not None and holds.search(text.text, start, last) is None:
            return ()
        if begins is None:
            return regex.finditer(text.text, start, last)
        return _tried(regex, text.text, places, start, last)


_WAITING: list[AnchoredForm] = []  # made and, so far as is known here, not compiled


def compile_forms() -> None:
    """Compile all forms that were made, where that has not been done: some tenths of a second."""
    while _WAITING:
        _ = _WAITING.pop().regex


def _tried(
    regex: re.Pattern[str], text: str, places: Sequence[int], at: int, last: int
) -> Iterator[re.Match[str]]:
    match = regex.match
    for place in places[bisect_left(places, at) :] if at else places:
        if place >= last:
            return
        if place >= at and (found := match(text, place, last)) is not None:
            yield found
            at = found.end()
