"""Names of people, places and organisations in languages that no installed pipeline reads.

text ─▶ pieces of one language ─▶ words ─▶ shares of each kind ─▶ spans
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from cosilo.defences.detection import Span, Steps, run
from cosilo.defences.languages.guess import pieces
from cosilo.defences.tagger.network import DILATIONS, Network
from cosilo.defences.tagger.reading import LANGUAGES, Floats, Token, read, tokens

FILE = Path(__file__).with_name("names.npz")

_KINDS = ("PERSON", "PLACE", "ADDRESS", "ORG")
# A word is part of a name where that is this likely; of an organisation, which is often nobody's
# secret, where it is likelier.
_ENOUGH = 0.35
_ENOUGH_ORG = 0.6
_CONTEXT = sum(DILATIONS)  # words on each side that what is said of a word depends on
_PIECE = 300  # words that are read in one step
_MOST = 0.75  # as sure as a guess can be


@lru_cache(maxsize=1)
def network() -> Network:
    """The network that Cosilo ships, loaded once a process: some ten milliseconds."""
    return Network(FILE)


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
            for language in piece.languages:
                if language in LANGUAGES:
                    part = text[piece.start : piece.end]
                    for span in (yield from self.named(part, language)):
                        start, end = span.start + piece.start, span.end + piece.start
                        spans.append(Span(start, end, span.kind, span.score))
            yield
        return spans

    def named(self, text: str, language: str) -> Steps[list[Span]]:
        """The names in `text`, which is in `language`."""
        found = tokens(text)
        number = LANGUAGES.index(language)
        spans: list[Span] = []
        for first in range(0, len(found), _PIECE):
            last = min(first + _PIECE, len(found))
            start, end = max(0, first - _CONTEXT), min(last + _CONTEXT, len(found))
            seen = read(text, found, number, self._network.lists, first=start, last=end)
            shares = self._network.shares(seen)[first - start : last - start]
            spans += _spans(found[first:last], shares)
            yield
        return spans


def _spans(found: Sequence[Token], shares: Floats) -> Iterator[Span]:
    """Neighbours of one kind as one span, without signs at its ends."""
    kinds = [_kind(row) for row in shares]
    at = 0
    while at < len(found):
        kind = kinds[at]
        end = at + 1
        while end < len(found) and kinds[end] == kind:
            end += 1
        if kind:
            inside = [i for i in range(at, end) if found[i][2].isalnum()]
            if inside:
                sure = float(max(1 - shares[i][0] for i in inside))
                yield Span(found[inside[0]][0], found[inside[-1]][1], kind, min(sure, _MOST))
        at = end


def _kind(row: Floats) -> str:
    if 1 - row[0] < _ENOUGH:
        return ""
    best = int(row[1:].argmax())
    kind = _KINDS[best]
    if kind == "ORG" and row[best + 1] < _ENOUGH_ORG and 1 - row[0] - row[best + 1] < _ENOUGH:
        return ""
    return kind
