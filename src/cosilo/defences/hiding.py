"""Finds the private values of a message and puts placeholders in their places.

texts ─▶ detect ─▶ cover ─▶ issue ─▶ hide ─▶ restored again and compared
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import msgspec

from cosilo.boundary.messages import Message
from cosilo.boundary.messages.passages import Passage
from cosilo.defences.anchored import AnchoredText
from cosilo.defences.arranged import arranged
from cosilo.defences.covered import EarlierTurns, KnownTexts, holds_none
from cosilo.defences.credentials import formed
from cosilo.defences.days import DayDetector
from cosilo.defences.detection import WINDOW, Detector, Span, Steps, due, looked, shifted, windows
from cosilo.defences.instructions import Instructions, guessed
from cosilo.defences.json_text import JsonReading, fitted, read
from cosilo.defences.links import LONGEST_URL, Links, may_hold_urls
from cosilo.defences.literals import LiteralDetector, read_cells
from cosilo.defences.own import OwnDetector, OwnPattern
from cosilo.defences.patterns import PATTERNS, PatternDetector
from cosilo.defences.plainly import Plain, plainly
from cosilo.defences.presidio import PresidioDetector
from cosilo.defences.recent import Recent
from cosilo.defences.restoring import HOSTS, names_host, segments
from cosilo.defences.tagger.detector import TaggerDetector
from cosilo.defences.texts import (
    NAMES_APART,
    from_lm,
    has_names,
    in_no_turn,
    numbers_in,
    placed,
    private_in,
    public_text,
)
from cosilo.defences.vault import Vault
from cosilo.errors import PrivacyError

VERSION = 10

DetectorName = Literal["presidio", "patterns", "literals", "tagger"]
T = TypeVar("T")
M = TypeVar("M", bound=Message)

_HALF = re.compile("[\ud800-\udfff]")
"""Half a character, which an escape of JSON may name and no detector can read."""

_OF_A_FORM = frozenset({"EMAIL", "IBAN", "CARD", "SSN"})
_SIX_DIGITS = re.compile(r"\d(?:[ \-]?\d){5}")

_ROUNDS = 4  # of looking for what a message holds that reads like a placeholder of its own

_SLICE = 0.02  # seconds of one turn: a short text needs no second one
# Pieces of texts whose spans are kept, so that a conversation's old turns are not read again; a piece
# counts as one and its spans as one each.
_REMEMBERED = 100_000


async def paced(steps: Steps[T], seconds: float, turn: Callable[[], None] = lambda: None) -> T:
    """What `steps` returns; others have their turn after every slice of it, and `turn` is called before
    each.

    Raises:
        TimeoutError: it was not done after `seconds`.
    """
    began = since = time.monotonic()
    turn()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found
        now = time.monotonic()
        if now - began > seconds:
            raise TimeoutError
        if now - since > _SLICE:
            await asyncio.sleep(0)
            since = time.monotonic()
            turn()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for, and how; the options of the pseudonym defence say what each means."""

    detectors: tuple[DetectorName, ...]
    model: str
    kinds: tuple[str, ...]
    min_score: float
    allow: tuple[str, ...]
    public_system: bool
    databases: str | None
    values: tuple[str, ...]
    hints: bool
    seconds: float
    instructions: tuple[str, ...] = ()
    dates: bool = False
    patterns: tuple[OwnPattern, ...] = ()
    words: tuple[tuple[str, tuple[str, ...] | str], ...] = ()


class _Found(NamedTuple):
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


class Hiding:
    """Hides what the detectors of `settings` find.

    Raises:
        ConfigError: a package that a detector needs, or its data, is not there.
        CatalogError: a detector's model was not pulled.
    """

    def __init__(self, settings: Settings) -> None:
        databases = settings.databases
        make: Mapping[str, Callable[[], Detector]] = {
            "presidio": lambda: PresidioDetector(settings.model),
            "patterns": PatternDetector,
            "tagger": TaggerDetector,
            "literals": lambda: LiteralDetector(
                settings.values, read_cells(Path(databases)) if databases else ()
            ),
        }
        self.detectors: tuple[Detector, ...] = tuple(make[name]() for name in settings.detectors)
        self._kinds = frozenset(settings.kinds)
        if settings.dates:
            self.detectors += (DayDetector(),)
            self._kinds |= {"EVENT_DATE"} if self._kinds else frozenset()
        if settings.patterns or settings.words:
            own = OwnDetector(settings.patterns, dict(settings.words))
            self.detectors += (own,)
            self._kinds |= own.kinds if self._kinds else frozenset()
        self._min_score = settings.min_score
        self._allow = frozenset(w for text in settings.allow for w in text.casefold().split())
        self._instructions = Instructions(settings.instructions)
        self._public_system = settings.public_system
        self._hints = settings.hints
        self._seconds = settings.seconds
        self._secret = secrets.token_bytes(32)
        self._spans: Recent[bytes, tuple[Span, ...]] = Recent(
            _REMEMBERED, lambda spans: 1 + len(spans)
        )
        self._earlier = EarlierTurns(_REMEMBERED)

    async def spans(self, message: Message) -> list[list[Span]]:
        """What would be hidden in each text of `message` if it began a conversation: for reports and
        benchmarks. The texts are those of `texts_of`.
        """

        passages = message.passages()

        def steps() -> Steps[list[list[Span]]]:
            found = yield from self._found(passages, b"")
            return (yield from self._covered(passages, Vault(b"", ""), found.texts, found.spans))

        return await paced(steps(), self._seconds)

    async def hide(self, message: M, vault: Vault) -> M:
        """`message` with a placeholder of `vault` for each private value.

        Whatever else runs on the event loop has its turn every few milliseconds.

        Raises:
            PrivacyError: the result could not be restored exactly, or the message does not say how its
                texts are replaced.
            TimeoutError: it took longer than it may.
            Exception: whatever a detector raised; its text may quote what it failed on.
        """
        said = iter(await self.hidden(message.passages(), vault))
        return message.with_passages(lambda _: next(said))

    async def hidden(
        self, passages: Sequence[Passage], vault: Vault, turn: Callable[[], None] = lambda: None
    ) -> list[str]:
        """What each of a message's passages says then: see `hide`.

        Args:
            turn: called whenever it has its own.
        """
        return await paced(self._hidden(passages, vault), self._seconds, turn)

    def unread(self, passages: Sequence[Passage], scope: bytes) -> int:
        """How many characters of a message's `passages` are read when it is hidden: not remembered."""
        return sum(map(len, self._pieces_unread(passages, scope)[1].values()))

    async def read_together(
        self, several: Sequence[Sequence[Passage]], scope: bytes, turn: Callable[[], None]
    ) -> None:
        """Read what is new in the passages of `several` messages of one `scope` at once, which takes
        less time, and remember it for when each is hidden. `turn` as in `hidden`.
        """
        new: dict[str, dict[bytes, str]] = {}
        for passages in several:
            public, unread = self._pieces_unread(passages, scope)
            new.setdefault(public, {}).update(unread)

        def steps() -> Steps[None]:
            for public, unread in new.items():
                yield from self._read_new(unread, public)

        await paced(steps(), self._seconds, turn)

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

    def _hidden(self, passages: Sequence[Passage], vault: Vault) -> Steps[list[str]]:
        found = yield from self._found(passages, vault.scope)
        texts = found.texts
        public = public_text(passages)
        readings = []
        for text in texts:
            readings.append((yield from read(text)))
        # A value is what the strings of JSON say, however they are written.
        said = [r.text if r else t for t, r in zip(texts, readings, strict=True)]
        inside = [
            [r.read(s) for s in here] if r else list(here)
            for r, here in zip(readings, found.spans, strict=True)
        ]
        from_lm = self._from_lm(passages, len(texts))
        beside = [False] * len(texts)
        if has_names(passages) or any(p.by is None for p in passages):
            beside = in_no_turn(passages, public_system=self._public_system)
        known = None
        if not vault.issued:
            known = self._earlier.of(vault.key, found.about, found.names, from_lm, beside)
        before: Sequence[str | None] = ()
        for _ in range(_ROUNDS):
            covered = yield from self._covered(passages, vault, said, inside, from_lm, known)
            spans = [fitted(t, s, r) for t, s, r in zip(said, covered, readings, strict=True)]
            codes = known.codes(said, spans) if known is not None else {}
            yield from vault.issuing(said, spans, public, from_lm, codes)
            before = self._as_before(known, vault, texts, spans, readings, codes)
            masked = []
            again = False
            for i, text in enumerate(texts):
                if (same := before[i]) is not None:
                    masked.append(same)
                    continue
                hidden, strays = vault.hidden(text, spans[i], readings[i], from_lm=from_lm[i])
                masked.append(hidden)
                inside[i] += strays
                again = again or bool(strays)
                if due():
                    yield
            if not again:
                break
            if known is not None:
                self._earlier.keep(known)
                known = None
        else:
            raise PrivacyError("a message could not be restored exactly, so nothing was sent")
        vault.restorer.written.update(numbers_in(passages, vault.holds))
        for reading in readings:
            if reading is not None:
                vault.restorer.written.update(reading.values(vault.holds))
        hosts = [i.shown for i in vault.issued if i.kind in HOSTS or "://" in i.value]
        told = [same is not None or by_lm for same, by_lm in zip(before, from_lm, strict=True)]
        urls: list[set[str]] = [set() for _ in masked]
        for text, own, is_told in zip(masked, urls, told, strict=True):
            if is_told or not (may_hold_urls(text) or any(host in text for host in hosts)):
                continue  # a URL that the LM made is none of the owner's
            links, at = Links(own), 0
            for segment in segments(vault.restorer, text):
                shown = text[segment.start : segment.end]
                links.passed(text[at : segment.start])
                links.learn(shown, text[segment.end : segment.end + LONGEST_URL])
                links.passed(segment.value if names_host(segment) else shown)
                at = segment.end
                if due():
                    yield
            vault.restorer.written.urls |= own
            if due():
                yield
        if known is not None:
            put = [vault.codes(t, s) for t, s in zip(said, spans, strict=True)]
            form = self._earlier.form(vault.restorer.form)
            self._earlier.keep(known, form, spans, put, map(bool, urls))
        texts, spans = said, [list(here) for here in spans]
        if self._hints:
            if has_names(passages):
                spans[-1] = []
            masked = [
                hidden + self._hint(text, here, vault, public)
                for text, hidden, here in zip(texts, masked, spans, strict=True)
            ]
        return placed(passages, masked, public_system=self._public_system)

    def _from_lm(self, passages: Sequence[Passage], count: int) -> list[bool]:
        """Which of the texts the LM said in earlier turns."""
        if all(passage.by != "assistant" for passage in passages):
            return [False] * count
        return from_lm(passages, public_system=self._public_system)

    def _as_before(
        self,
        known: KnownTexts | None,
        vault: Vault,
        texts: Sequence[str],
        spans: Sequence[Sequence[Span]],
        readings: Sequence[JsonReading | None],
        codes: Mapping[str, str],
    ) -> list[str | None]:
        """What those of `texts` say with placeholders of which it was found before that it is restored
        exactly, and None for the others. `codes` are what `known` says of its values.
        """
        unsure: list[str | None] = [None] * len(texts)
        if known is None or not any(known.before):
            return unsure
        said = [read.text if read else text for text, read in zip(texts, readings, strict=True)]
        put = [vault.codes(t, s) for t, s in zip(said, spans, strict=True)]
        sure = known.still_sure(self._earlier.form(vault.restorer.form), put, spans)
        masked = [
            vault.put(texts[i], spans[i], readings[i]) if is_sure else None
            for i, is_sure in enumerate(sure)
        ]
        new = vault.codes_beside(codes.values())
        if not holds_none((each for each in masked if each is not None), new):
            return unsure
        return masked

    def _covered(
        self,
        passages: Sequence[Passage],
        vault: Vault,
        texts: Sequence[str],
        found: Sequence[Sequence[Span]],
        from_lm: Sequence[bool] = (),
        known: KnownTexts | None = None,
    ) -> Steps[list[list[Span]]]:
        """What must be hidden in each text, given what was `found`: see `Vault.cover`. In the task's
        own lines a value counts where it is written as it was found.
        """
        spans = yield from vault.covering(texts, found, from_lm, known)
        ranges = self._instructions.ranges(passages, texts)
        if not any(ranges):
            return spans
        told = {t[s.start : s.end] for t, here in zip(texts, found, strict=True) for s in here}
        return [
            [
                span
                for span in here
                if (value := text[span.start : span.end]) in told
                or vault.holds(value)
                or not guessed(span, own)
            ]
            for text, here, own in zip(texts, spans, ranges, strict=True)
        ]

    def _hint(self, text: str, spans: Sequence[Span], vault: Vault, public: str) -> str:
        """What follows a hidden text: which column each of its values stands in."""
        told: dict[str, str] = {}
        for span in spans:
            value = text[span.start : span.end]
            for detector in self.detectors:
                if span.kind == "VALUE" and isinstance(detector, LiteralDetector):
                    about = detector.about(value, public)
                    if about:
                        told[vault.shown(value)] = about
        if not told:
            return ""
        return "\n\n" + " ".join(f"{shown!r} is {about}." for shown, about in told.items())

    def _found(self, passages: Sequence[Passage], scope: bytes) -> Steps[_Found]:
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
        return _Found(texts, found, names, about)

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

        def look(made: str) -> Steps[list[Span]]:
            return (yield from self._look([made], public))[0]

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


_LITERAL = frozenset({"NUMBER", "COUNT", "DAY", "MONTH", "YEAR", "DATE", "TIME", "VALUE"})


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
