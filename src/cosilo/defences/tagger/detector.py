"""Names of people, places and organisations in languages that no installed pipeline reads.

text ─▶ pieces of one language ─▶ words ─▶ shares of each kind ─▶ spans
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from cosilo.defences.detection import Span, Steps, due, run, shifted
from cosilo.defences.languages.guess import pieces
from cosilo.defences.tagger.network import DILATIONS, TaggerNetwork
from cosilo.defences.tagger.reading import LANGUAGES, Floats, Token, read, tokens

FILE = Path(__file__).with_name("names.npz")

_KINDS = ("PERSON", "PLACE", "ADDRESS", "ORG")
# A word is part of a name where that is this likely, since a name that is missed has left. A piece that
# may be in another language, and is read in that too, says less; an organisation is often public.
_ENOUGH = 0.1
_ENOUGH_IN_DOUBT = 0.6
_ENOUGH_ORG = 0.6
_UNLIKELY = 0.05  # less likely than that, nobody's guess is believed
_CONTEXT = sum(DILATIONS)  # words on each side that what is said of a word depends on
_PIECE = 300  # words that are read in one step
_LEAST, _MOST = 0.3, 0.75  # the score of what may just be a name, and of what surely is one
_PARTICLE = re.compile(
    r"v[oa]n|vom|zu[mr]?|de[nrsl]?|d[iao]s?|du|dal|della|la|le|las|los|op|te[rn]?|['’t]"
)


@lru_cache(maxsize=1)
def network() -> TaggerNetwork:
    """The network that Cosilo ships, loaded once a process: some ten milliseconds."""
    return TaggerNetwork(FILE)


class TaggerDetector:
    """Finds names by a small network that was trained for it (`network.py`), in the languages of
    `LANGUAGES`; English text is left to others.
    """

    def __init__(self) -> None:
        self._network = network()

    def detect(self, text: str, public: str = "") -> list[Span]:
        return run(self.steps(text, public))

    def steps(self, text: str, public: str = "") -> Steps[list[Span]]:
        spans: list[Span] = []
        for piece in pieces(text):
            sure = len(piece.languages) == 1
            for language in piece.languages:
                if language in LANGUAGES:
                    part = text[piece.start : piece.end]
                    names, _ = yield from self.named(part, language, sure)
                    spans += shifted(names, piece.start)
            if due():
                yield
        return spans

    def named(
        self, text: str, language: str, sure: bool = True
    ) -> Steps[tuple[list[Span], set[int]]]:
        """The names in `text`, which is in `language`, or may be where that is not `sure`; and the
        places of all words that are not quite unlikely to be of one.
        """
        found = tokens(text)
        number = LANGUAGES.index(language)
        spans: list[Span] = []
        possible: set[int] = set()
        for first in range(0, len(found), _PIECE):
            last = min(first + _PIECE, len(found))
            start, end = max(0, first - _CONTEXT), min(last + _CONTEXT, len(found))
            seen = read(text, found, number, self._network.lists, first=start, last=end)
            shares = self._network.shares(seen)[first - start : last - start]
            enough = _ENOUGH if sure else _ENOUGH_IN_DOUBT
            spans += _spans(text, found[first:last], shares, enough)
            for (a, b, _), share in zip(found[first:last], 1 - shares[:, 0], strict=True):
                if share > _UNLIKELY:
                    possible.update(range(a, b))
            if due():
                yield
        return spans, possible


def _spans(text: str, found: Sequence[Token], shares: Floats, enough: float) -> Iterator[Span]:
    """Neighbours that are parts of names as one span, without signs at its ends."""
    kinds = _whole_words(found, [_kind(row, enough) for row in shares])
    group: list[int] = []
    for i, (_, _, word) in enumerate(found):
        if not kinds[i] or not word.isalnum():
            continue
        if group and not _joined(text, found, kinds, group[-1], i):
            yield _span(found, shares, group)
            group = []
        group.append(i)
    if group:
        yield _span(found, shares, group)


def _whole_words(found: Sequence[Token], kinds: list[str]) -> list[str]:
    """`kinds` where of a name with a hyphen or an apostrophe not only one part is one: `O'Hara`."""
    for i in range(1, len(found) - 1):
        (_, before, one), (start, end, sign), (after, _, other) = found[i - 1 : i + 2]
        if sign not in "-'’" or before != start or end != after:
            continue
        kind = kinds[i - 1] or kinds[i + 1]
        if kind and (kinds[i - 1] or one[0].isupper()) and (kinds[i + 1] or other[0].isupper()):
            kinds[i - 1 : i + 2] = [kinds[i - 1] or kind, kind, kinds[i + 1] or kind]
    return kinds


def _joined(text: str, found: Sequence[Token], kinds: Sequence[str], one: int, other: int) -> bool:
    """Whether two words are of one name: in one cell, and next to each other, or with signs between
    them that are of the name too, or with particles between the names of a person.
    """
    if re.search(r"[\n\t]", text[found[one][1] : found[other][0]]):
        return False
    if other == one + 1:
        return True
    if kinds[one] != kinds[other]:
        return False
    if all(kinds[i] == kinds[one] for i in range(one + 1, other)):
        return True
    between = found[one + 1 : other]
    return kinds[one] == "PERSON" and all(_PARTICLE.fullmatch(word) for *_, word in between)


def _span(found: Sequence[Token], shares: Floats, group: Sequence[int]) -> Span:
    total = shares[group].sum(axis=0)
    sure = 1 - float(shares[group, 0].min())
    kind = _KINDS[int(total[1:].argmax())]
    return Span(found[group[0]][0], found[group[-1]][1], kind, _LEAST + (_MOST - _LEAST) * sure)


def _kind(row: Floats, enough: float) -> str:
    """What a word is part of: empty where that is not likely `enough`."""
    if 1 - row[0] < enough:
        return ""
    best = int(row[1:].argmax())
    kind = _KINDS[best]
    if kind == "ORG" and row[best + 1] < _ENOUGH_ORG and 1 - row[0] - row[best + 1] < enough:
        return ""
    return kind
