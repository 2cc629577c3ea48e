"""Reads what is private in the texts of a message, each piece of them once.

passages ─▶ texts ─▶ pieces ─▶ remembered? ─▶ as written, and as a reader sees it ─▶ detectors ─▶ spans

Remembered are spans, under a name of their piece from which nothing can be read.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from cosilo.boundary.messages.passages import Passage
from cosilo.defences.anchored import AnchoredText
from cosilo.defences.arranged import arranged
from cosilo.defences.credentials import formed
from cosilo.defences.detection import WINDOW, Detector, Span, Steps, due, looked, shifted, windows
from cosilo.defences.instructions import Instructions, guessed
from cosilo.defences.own import OwnDetector
from cosilo.defences.patterns import PATTERNS
from cosilo.defences.plainly import Plain, plainly
from cosilo.defences.recent import Recent
from cosilo.defences.texts import NAMES_APART, has_names, private_in, public_text

_HALF = re.compile("[\ud800-\udfff]")
"""Half a character, which an escape of JSON may name and no detector can read."""

_OF_A_FORM = frozenset({"EMAIL", "IBAN", "CARD", "SSN"})
_SIX_DIGITS = re.compile(r"\d(?:[ \-]?\d){5}")
_LITERAL = frozenset({"NUMBER", "COUNT", "DAY", "MONTH", "YEAR", "DATE", "TIME", "VALUE"})


class FoundSpans(NamedTuple):
    """What was found in the texts of a message.

    Attributes:
        spans: those that are private in each text.
        names: a name for each text and whether it is the task's own; nothing can be read from it.
        about: such a name for what else decides which spans are private.
    """

    texts: list[str]
    spans: list[list[Span]]
    names: list[bytes]
    about: bytes


class PassageReader:
    """Finds what is private in passages.

    Attributes:
        detectors: whose spans count.

    Args:
        kinds: those that are looked for; all where there are none.
        min_score: what a span has at least.
        allow: words, in small letters, of which no private value is made.
        instructions: the task's own lines.
        public_system: what the system says is public.
        size: how many pieces of texts and their spans are kept, those used last.
    """

    def __init__(
        self,
        detectors: tuple[Detector, ...],
        *,
        kinds: frozenset[str],
        min_score: float,
        allow: frozenset[str],
        instructions: Instructions,
        public_system: bool,
        size: int,
    ) -> None:
        self.detectors = detectors
        self._kinds = kinds
        self._min_score = min_score
        self._allow = allow
        self._instructions = instructions
        self._public_system = public_system
        self._secret = secrets.token_bytes(32)
        self._spans: Recent[bytes, tuple[Span, ...]] = Recent(size, lambda spans: 1 + len(spans))

    def unread(self, passages: Sequence[Passage], scope: bytes) -> int:
        """How many characters of `passages` are not remembered."""
        return sum(map(len, self._pieces_unread(passages, scope)[1].values()))

    def read_together(self, several: Sequence[Sequence[Passage]], scope: bytes) -> Steps[None]:
        """Read what is new in the passages of `several` messages, and remember it."""
        new: dict[str, dict[bytes, str]] = {}
        for passages in several:
            public, unread = self._pieces_unread(passages, scope)
            new.setdefault(public, {}).update(unread)
        for public, unread in new.items():
            yield from self._read_new(unread, public)

    def _pieces_unread(
        self, passages: Sequence[Passage], scope: bytes
    ) -> tuple[str, dict[bytes, str]]:
        """What is public of a message, and the pieces of its texts that are not remembered."""
        texts = private_in(passages, public_system=self._public_system)
        public = public_text(passages) if self._public_system else ""
        name = self._names(scope, public)
        texts = texts[: len(texts) - has_names(passages)]
        pieces = {name(piece): piece for text in texts for _, piece in windows(text)}
        return public, {key: p for key, p in pieces.items() if self._spans.get(key) is None}

    def found(self, passages: Sequence[Passage], scope: bytes) -> Steps[FoundSpans]:
        """What is private in `passages`; what is remembered under another `scope` does not count."""
        texts = private_in(passages, public_system=self._public_system)
        if due():
            yield
        public = public_text(passages) if self._public_system else ""
        labels = frozenset(p.text.strip().casefold() for p in passages if p.what == "label")
        told = _Public(public)
        all_private = not (labels or self._allow or public)
        name = self._names(scope, public)
        of_programs = texts[-1:] if has_names(passages) else []
        everything, names = yield from self._detected(
            texts[: len(texts) - len(of_programs)], public, name
        )
        for text in of_programs:
            everything.append(self._that_count(text, self._in_names(text)))
            names.append(name(text))
            yield
        found: list[list[Span]] = []
        ranges = self._instructions.ranges(passages, texts)
        for text, own, spans in zip(texts, ranges, everything, strict=True):
            if all_private and not own:
                found.append(list(spans))
                continue
            private = []
            for span in spans:
                if self._is_private(span, text, told, labels) and not guessed(span, own):
                    private.append(span)
            found.append(private)
            if due():
                yield
        about = name("\0".join(sorted(labels)))
        names = [each + bytes([bool(own)]) for each, own in zip(names, ranges, strict=True)]
        return FoundSpans(texts, found, names, about)

    def _that_count(self, text: str, spans: Iterable[Span]) -> tuple[Span, ...]:
        """Those of `spans` that are sure enough and of the kinds that are asked for."""
        return tuple(
            s
            for s in spans
            if s.score >= self._min_score
            and (not self._kinds or s.kind in self._kinds)
            and not text[s.start : s.end].isspace()
        )

    def _is_private(self, span: Span, text: str, told: _Public, labels: frozenset[str]) -> bool:
        value = text[span.start : span.end]
        if labels or self._allow:
            folded = value.strip().casefold()
            if folded in labels or all(word in self._allow for word in folded.split()):
                return False
        # A detector of literals has been told what is public; the others have not.
        return not (span.kind not in _LITERAL and told.holds(value))

    def _detected(
        self, texts: Sequence[str], public: str, name: Callable[[str], bytes]
    ) -> Steps[tuple[list[Collection[Span]], list[bytes]]]:
        """The spans of each text, from memory where the same was looked through before under the same
        `name`; and a name for each text.
        """
        pieces = [[(offset, piece, name(piece)) for offset, piece in windows(t)] for t in texts]
        known: dict[bytes, tuple[Span, ...]] = {}
        unread: dict[bytes, str] = {}
        for _, piece, key in chain.from_iterable(pieces):
            remembered = self._spans.get(key)
            if remembered is None:
                unread[key] = piece
            else:
                known[key] = remembered
        if due():
            yield
        known |= yield from self._read_new(unread, public)
        spans: list[Collection[Span]] = [
            known[here[0][2]]
            if len(here) == 1
            else {s for offset, _, key in here for s in shifted(known[key], offset)}
            for here in pieces
        ]
        return spans, [b"".join(key for _, _, key in here) for here in pieces]

    def _read_new(
        self, unread: Mapping[bytes, str], public: str
    ) -> Steps[dict[bytes, tuple[Span, ...]]]:
        """The spans of each of the pieces `unread`, which are remembered."""
        known: dict[bytes, tuple[Span, ...]] = {}
        for some in _groups(unread):
            read = yield from self._read([unread[key] for key in some], public)
            for key, found in zip(some, read, strict=True):
                known[key] = self._that_count(unread[key], found)
                self._spans.put(key, known[key])
        return known

    def _in_names(self, text: str) -> set[Span]:
        """What is private in names that programs use: credentials and numbers by their form, also where
        more is joined to them, and what the plan describes.
        """
        spans = set(formed(text))
        if "__" in text:
            spans.update(formed(text.replace("__", "  ")))
        words = text.replace("_", " ")
        if _SIX_DIGITS.search(words):
            anchored = AnchoredText(words)
            for pattern in PATTERNS:
                if pattern.kind in _OF_A_FORM:
                    spans.update(pattern.find(anchored))
        for detector in self.detectors:
            if isinstance(detector, OwnDetector):
                spans.update(detector.detect(words))
        return {s for s in spans if NAMES_APART not in text[s.start : s.end]}

    def _names(self, scope: bytes, public: str) -> Callable[[str], bytes]:
        """What the spans of a piece are remembered under: nothing that could be looked up without the
        secret of this process, and another for every scope.
        """
        before = hashlib.blake2b(key=self._secret, digest_size=32)
        for part in (scope, public.encode(errors="surrogatepass")):
            before.update(len(part).to_bytes(8) + part)

        def name(piece: str) -> bytes:
            named = before.copy()
            named.update(piece.encode(errors="surrogatepass"))
            return named.digest()

        return name

    def _read(self, pieces: Sequence[str], public: str) -> Steps[list[set[Span]]]:
        """The spans of each of `pieces`, as they are written and as a reader sees them."""
        looked_at = list(pieces)
        views: list[tuple[int, int, Plain]] = []  # of which piece, and from where on
        for number, piece in enumerate(pieces):
            plain = plainly(piece)
            if due():
                yield
            if plain is None:
                continue
            for begin, part in plain.parts():
                for start, view in windows(part):
                    views.append((number, begin + start, plain))
                    looked_at.append(view)
        spans = yield from self._look(looked_at, public)
        found: list[set[Span]] = []
        for text, here in zip(looked_at, spans, strict=True):
            found.append(set((yield from self._arranged(text, here, public))))
        for (number, start, plain), seen in zip(views, found[len(pieces) :], strict=True):
            found[number].update(map(plain.written, shifted(seen, start)))
        return found[: len(pieces)]

    def _look(self, texts: Sequence[str], public: str) -> Steps[list[list[Span]]]:
        """What the detectors find in each of `texts`."""
        texts = [_HALF.sub("\ufffd", text) for text in texts]
        found: list[list[Span]] = [[] for _ in texts]
        for detector in self.detectors:
            each = yield from looked(detector, texts, public)
            for here, spans in zip(found, each, strict=True):
                here += [span for span in spans if span.start < span.end]
        return found

    def _arranged(self, text: str, found: Sequence[Span], public: str) -> Steps[list[Span]]:
        """What is private in `text`, as it looks and by the form that it has."""

        def look(made: Sequence[str]) -> Steps[list[list[Span]]]:
            return (yield from self._look(made, public))

        return (yield from arranged(text, found, look))


def _groups(pieces: Mapping[bytes, str]) -> Iterator[list[bytes]]:
    """The names of `pieces`, in groups that are read together."""
    group: list[bytes] = []
    size = 0
    for key, piece in pieces.items():
        if group and size + len(piece) > WINDOW:
            yield group
            group, size = [], 0
        group.append(key)
        size += len(piece)
    if group:
        yield group


class _Public:
    """What the LM is told anyway; a value that stands in it as whole words is not private."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._known: dict[str, bool] = {}  # a value is looked for once, however often it is found

    def holds(self, value: str) -> bool:
        if not self._text:
            return False
        if value not in self._known:
            self._known[value] = self._looked_for(value)
        return self._known[value]

    def _looked_for(self, value: str) -> bool:
        at = self._text.find(value)
        while at >= 0:
            end = at + len(value)
            around = self._text[max(0, at - 1) : at] + self._text[end : end + 1]
            if not any(c.isalnum() or c == "_" for c in around):
                return True
            at = self._text.find(value, at + 1)
        return False
