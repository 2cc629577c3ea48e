r"""Blacks out what is private in a message, so that it can be shown as an example of what crossed.

    "Call Ann Lee on 0170 123456"  ──▶  "Call ▇person▇ on ▇number▇"

In doubt a message is not shown at all: after masking, the text is searched again the way the attacks
search, and if any secret is still found the result is None. A block says the kind and never the
length. Escapes (J\u00f6rg, J&ouml;rg) and signs that nobody sees are read, and shown, as what they
stand for. What looks like an e-mail address or a long number is masked even where nobody called it a
secret, because secrets that were detected are never all of them.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from cosilo.defences.plainly import plainly
from cosilo.matching import FuzzyPool, Pool, as_written, normalised
from cosilo.tasks.base import Example, Secret

BLOCK = "▇"
BLOCKS = re.compile(f"{BLOCK}([^{BLOCK}]*){BLOCK}")
"""A masked place; the group is the kind of what stood there."""

_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d[\d.,'’]*")
_LOOKS_PRIVATE = (
    ("e-mail", re.compile(r"[^\s<>@\"'(),;:]+@[^\s<>@\"'(),;:]+")),
    ("number", re.compile(r"(?<!\w)[+(]*\d(?:[ ()./-]{0,3}\d){4,}(?!\w)")),
)
_GUESSED = frozenset(kind for kind, _ in _LOOKS_PRIVATE)
_ANYWHERE = 4  # a shorter value is looked for between word edges only: "al" also stands in "also"
_WRAPPINGS = 4  # escapes of escapes that are read
_PART = 3  # the shortest word of a value that is masked on its own

Span = tuple[int, int, str]  # start, end, kind


def masked(text: str, secrets: Iterable[Secret]) -> str | None:
    """`text` with every one of `secrets` and their parts blacked out; None when one would remain."""
    own = tuple(secrets)
    return Masker(own)(text, own=own)


def covers(example: Example) -> bool:
    """Whether the secrets of `example` make up its whole text, so that nothing readable is left
    once they are masked.
    """
    folded = [_fold(secret.value)[0] for secret in example.secrets]
    for turn in example.chat:
        if turn.role != "system":
            text = _fold(turn.content)[0]
            for value in sorted(filter(None, folded), key=len, reverse=True):
                text = text.replace(value, " ")
            if _WORD.search(text):
                return False
    return True


class Masker:
    """Masks the same secrets in many texts.

    Args:
        secrets: of all items, since a message may quote other items than its own.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        kinds: dict[str, str] = {}
        folded: dict[str, str] = {}
        for secret in secrets:
            kinds.setdefault(secret.value, secret.kind)
            folded.setdefault(_fold(secret.value)[0], secret.kind)
        folded.pop("", None)
        self._folded = folded
        self._written = [(value, kind) for value, kind in kinds.items() if not _fold(value)[0]]
        values = [value for value in kinds if value]
        self._pools = [(Pool(values, fold), fold) for fold in (as_written, normalised)]
        self._numbers = {
            normalised(value).text: kind for value, kind in kinds.items() if _is_number(value)
        }

    @property
    def knows_any(self) -> bool:
        """Whether there is anything to mask at all."""
        return bool(self._folded or self._written)

    def __call__(self, text: str, *, own: Iterable[Secret] = ()) -> str | None:
        """`text` masked; None when something private would remain.

        Args:
            own: the secrets of the item the text belongs to: also their single words are masked, and
                they are searched for with a few edits afterwards.
        """
        for _ in range(_WRAPPINGS):
            plain = plainly(text)
            if plain is None:
                break
            text = plain.text
        else:
            return None
        text = text.replace(BLOCK, "■")
        own = tuple(own)
        words = [m.span() for m in _WORD.finditer(text)]
        spans = [_whole(span, words) for span in (*self._values(text, words), *_patterns(text))]
        # Before single words go: a misspelt value is found as long as all of it stands there.
        if _resembles(_cut(text, spans)[0], own):
            return None
        pieces, blocks = _cut(text, [*spans, *_parts(text, own)])
        return None if self._remains(pieces) else _joined(pieces, blocks)

    def _values(self, text: str, words: list[tuple[int, int]]) -> Iterator[Span]:
        folded, places = _fold(text)
        edges = {edge for word in words for edge in word}
        for value, kind in self._folded.items():
            for at in _found(value, folded):
                start, end = places[at], places[at + len(value) - 1] + 1
                if len(value) >= _ANYWHERE or (start in edges and end in edges):
                    yield start, end, kind
        for value, kind in self._written:  # signs only: nothing to fold
            for at in _found(value, text):
                yield at, at + len(value), kind
        for match in _NUMBER.finditer(text) if self._numbers else ():
            kind_of_number = self._numbers.get(normalised(match[0].rstrip(".,'’")).text)
            if kind_of_number is not None:
                yield match.start(), match.end(), kind_of_number

    def _remains(self, pieces: list[str]) -> bool:
        return any(pool.found(fold(piece)) for piece in pieces for pool, fold in self._pools)


def _resembles(pieces: list[str], own: tuple[Secret, ...]) -> bool:
    pool = FuzzyPool([secret.value for secret in own])
    return any(pool.found(normalised(piece)) for piece in pieces)


def _whole(span: Span, words: list[tuple[int, int]]) -> Span:
    """`span` up to the ends of the words it touches: "Kern" of "Kern" and of "Kerns"."""
    start, end, kind = span
    first = bisect_right(words, start, key=lambda word: word[1])
    last = bisect_left(words, end, key=lambda word: word[0]) - 1
    if first < len(words):
        start = min(start, words[first][0])
    if last >= 0:
        end = max(end, words[last][1])
    return start, end, kind


def _parts(text: str, own: tuple[Secret, ...]) -> Iterator[Span]:
    """Single words of the item's own secrets: "Ann" of "Ann Lee", but not "of" or "street"."""
    parts = {
        _fold(word)[0]: secret.kind
        for secret in own
        for word in _WORD.findall(secret.value)
        if len(word) >= _PART and (not word.islower() or word.isdigit())
    }
    for match in _WORD.finditer(text) if parts else ():
        kind = parts.get(_fold(match[0])[0])
        if kind is not None:
            yield match.start(), match.end(), kind


def _patterns(text: str) -> Iterator[Span]:
    for kind, pattern in _LOOKS_PRIVATE:
        for match in pattern.finditer(text):
            yield match.start(), match.end(), kind


def _cut(text: str, spans: list[Span]) -> tuple[list[str], list[str]]:
    """The pieces of `text` around `spans`, and the kinds between them; overlapping spans are one, of
    the kind of its longest secret."""
    pieces: list[str] = []
    kinds: list[str] = []
    at, heaviest = 0, (False, 0)
    for start, end, kind in sorted(spans):
        weight = kind not in _GUESSED, end - start
        if kinds and start < at:
            if weight > heaviest:
                kinds[-1], heaviest = kind, weight
            at = max(at, end)
            continue
        pieces.append(text[at:start])
        kinds.append(kind)
        at, heaviest = end, weight
    return [*pieces, text[at:]], kinds


def _joined(pieces: list[str], kinds: list[str]) -> str:
    shown = [pieces[0]]
    for kind, piece in zip(kinds, pieces[1:], strict=True):
        shown.append(f"{BLOCK}{kind.replace(BLOCK, '■') or 'secret'}{BLOCK}{piece}")
    return "".join(shown)


def _fold(text: str) -> tuple[str, list[int]]:
    """Letters and digits of `text` in one case without accents, and where each one came from."""
    letters: list[str] = []
    places: list[int] = []
    for i, character in enumerate(text):
        for plain in unicodedata.normalize("NFKD", character).casefold():
            if plain.isalnum() and not unicodedata.combining(plain):
                letters.append(plain)
                places.append(i)
    return "".join(letters), places


def _found(value: str, text: str) -> Iterator[int]:
    at = text.find(value)
    while at >= 0:
        yield at
        at = text.find(value, at + 1)


def _is_number(value: str) -> bool:
    return _NUMBER.fullmatch(value.strip(" €$£%")) is not None
