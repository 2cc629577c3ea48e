"""What the tagger reads of each word: its letters, its form, and how well known it is.

    text ─▶ words and signs ─▶ rows of a table of vectors ─▶ (network.py)

Each word stands for several rows, whose vectors are added: rows of its beginning, its end and the
groups of letters in it, found by a hash (as fastText does: Bojanowski et al. 2017, arXiv 1607.04606),
and rows for what is seen of it: capitals, signs around it, whether word lists hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

LANGUAGES = ("de", "fr", "es", "it", "pl", "nl", "pt")
LISTED = (*LANGUAGES, "en")
"""Languages whose ordinary words are listed."""

ROWS = 32_768
_FORMS = 1_024  # the first rows: what is seen of a word, by number; the others are found by a hash
_LONGEST = 24  # letters of a word that are read
_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")
_ENDS_SENTENCE = frozenset('.!?:;…"„“”»«()[]{}•*|>')

# Rows by number, each kind in a block of its own. Row 0 is nothing.
_SHAPE, _BEFORE, _AFTER, _PLACE, _CASING, _LANGUAGE, _KNOWN, _LISTED = (
    1, 100, 110, 120, 130, 140, 200, 300,
)  # fmt: skip
SIGNS = ".,;:!?()[]{}-–—/\\'’\"„“”»«@#&+=*%§°…|<>€$£_·•`~^"

COLUMNS = 9
"""Rows by number for each word; of these the last two say what the word lists hold."""


Token = tuple[int, int, str]
"""Where it begins and ends, and how it is written."""


def tokens(text: str) -> list[Token]:
    """The words and signs of `text`."""
    return [(m.start(), m.end(), m.group()) for m in _TOKEN.finditer(text)]


class Lists:
    """Eight sets of words in each of three Bloom filters (Bloom 1970): never a word missed, some per
    cent too many.

    Args:
        common, known: bit i of a byte is of the words of `LISTED[i]`; in `common` the most frequent.
        names: bit 0 is of given names, bit 1 of family names, bit 2 of towns.
    Each has a power of two of bytes.
    """

    def __init__(self, common: Bytes, known: Bytes, names: Bytes) -> None:
        self.tables = {"common": common, "known": known, "names": names}
        self._bytes = [(t.tobytes(), len(t) - 1) for t in (common, known, names)]

    @staticmethod
    def table(sets: Iterable[Iterable[str]], size: int) -> Bytes:
        """A filter of `size` bytes."""
        table = np.zeros(size, np.uint8)
        for bit, words in enumerate(sets):
            for word in words:
                for place in _places(word):
                    table[place & (size - 1)] |= 1 << bit
        return table

    def of(self, word: str) -> tuple[int, int, int]:
        """In which sets `word` is: the bits of `common`, `known` and `names`."""
        one, two, three = _places(word)
        bits = [t[one & m] & t[two & m] & t[three & m] for t, m in self._bytes]
        return bits[0], bits[1], bits[2]


def _places(word: str) -> tuple[int, int, int]:
    first = crc32(word.encode("utf-8", "surrogatepass"))
    second = (
        first * 0x9E3779B1 & 0xFFFFFFFF
    ) >> 12 | 1  # crc32 from another start is no other hash
    return first, first + second, first + 2 * second


def letters(word: str) -> list[int]:
    """The rows of the letters of `word` in small letters: itself, its beginnings, its ends, and its
    groups of three and four; the first row is the whole word's.
    """
    inside = f"^{word[:_LONGEST]}$"
    parts = [
        inside,
        inside[:3],
        inside[:4] + "<",
        inside[-3:],
        inside[-4:] + ">",
        inside[-5:] + ">",
    ]
    parts += [inside[i : i + 3] + "_" for i in range(len(inside) - 2)]
    parts += [inside[i : i + 4] + "_" for i in range(len(inside) - 3)]
    span = ROWS - _FORMS
    return [_FORMS + crc32(part.encode("utf-8", "surrogatepass")) % span for part in parts]


def listing(lists: Lists, word: str, language: int) -> tuple[int, int]:
    """The two rows of what the lists hold of `word` (in small letters)."""
    common, known, names = lists.of(word)
    own = 2 if common >> language & 1 else 1 if known >> language & 1 else 0
    others = (known & ~(1 << language)).bit_count()
    few = 0 if not others else 1 if others < 3 else 2 if others < 6 else 3
    return _KNOWN + own * 8 + few * 2 + (common >> 7), _LISTED + (names & 7)


def shape(word: str) -> int:
    """The row of how `word` is written."""
    if word.isdigit():
        return _SHAPE + 10 + min(len(word), 7)
    if len(word) == 1 and not word.isalnum():
        at = SIGNS.find(word)
        return _SHAPE + 30 + (at if at >= 0 else 60)
    if word.isalpha():
        if word.islower():
            kind = 0 if len(word) > 1 else 1
        elif word.isupper():
            kind = 2 if len(word) == 1 else 3 if len(word) < 4 else 4
        elif word[0].isupper() and word[1:].islower():
            kind = 5
        else:
            kind = 6
        return _SHAPE + kind
    return _SHAPE + (7 if word[0].isdigit() else 8)


@dataclass(frozen=True)
class ReadWords:
    """What is read of a text: `forms` (n, `COLUMNS`) rows by number; `words` (n,) which of `rows` each
    token's letters are: a list of rows for each different word.
    """

    forms: Ints
    words: Ints
    rows: list[list[int]]


def casing(text: str) -> int:
    """The row of how the whole text is written: without capitals, in capitals only, or as usual."""
    return _CASING + (1 if text == text.lower() else 0) + (2 if text == text.upper() else 0)


def read(
    text: str,
    found: Sequence[Token],
    language: int,
    lists: Lists,
    *,
    first: int = 0,
    last: int = -1,
) -> ReadWords:
    """What the tagger sees of the tokens `first` to `last` (exclusive; -1: to the end) of `text`.

    Args:
        found: all `tokens` of `text`.
        language: its number in `LANGUAGES`.
    """
    some = found[first : len(found) if last < 0 else last]
    written = casing(text)
    seen: dict[str, tuple[int, tuple[int, int]]] = {}
    rows: list[list[int]] = []
    words = np.zeros(len(some), np.int64)
    forms = np.zeros((len(some), COLUMNS), np.int64)
    _, last_end, before_it = found[first - 1] if first else (0, 0, "")
    for i, (start, end, word) in enumerate(some):
        low = word.lower()
        known = seen.get(low)
        if known is None:
            known = seen[low] = len(rows), listing(lists, low, language)
            rows.append(letters(low))
        words[i] = known[0]
        gap = text[last_end:start]
        before = 0 if not before_it else 1 if "\n" in gap else 2 if gap else 3
        after = text[end : end + 1]
        begins = before < 2 or before_it in _ENDS_SENTENCE
        form = shape(word)
        forms[i] = (
            form,
            _BEFORE + before,
            _AFTER + (0 if not after else 1 if after == "\n" else 2 if after.isspace() else 3),
            _PLACE + begins,
            written,
            _LANGUAGE + language,
            form + 400 + 100 * begins,
            *known[1],
        )
        last_end, before_it = end, word
    return ReadWords(forms, words, rows)
