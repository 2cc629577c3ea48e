"""Finds the private values of a message and puts placeholders in their places.

texts ─▶ read (`passage_reader.py`) ─▶ cover ─▶ issue ─▶ hide ─▶ restored again and compared
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from cosilo.boundary.messages import Message
from cosilo.boundary.messages.passages import Passage
from cosilo.defences.anchored import compile_forms
from cosilo.defences.covered import EarlierTurns, KnownTexts, holds_none
from cosilo.defences.days import DayDetector
from cosilo.defences.detection import Detector, Span, Steps, due
from cosilo.defences.instructions import Instructions, guessed
from cosilo.defences.json_text import JsonReading, fitted, read
from cosilo.defences.links import LONGEST_URL, Links, may_hold_urls
from cosilo.defences.literals import LiteralDetector, read_cells
from cosilo.defences.own import OwnDetector, OwnPattern
from cosilo.defences.passage_reader import PassageReader
from cosilo.defences.patterns import PatternDetector
from cosilo.defences.presidio import PresidioDetector
from cosilo.defences.restoring import HOSTS, names_host, segments
from cosilo.defences.tagger.detector import TaggerDetector
from cosilo.defences.texts import (
    from_lm,
    has_names,
    in_no_turn,
    numbers_in,
    placed,
    public_text,
)
from cosilo.defences.vault import Vault
from cosilo.errors import PrivacyError

VERSION = 14

DetectorName = Literal["presidio", "patterns", "literals", "tagger"]
T = TypeVar("T")
M = TypeVar("M", bound=Message)

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
        detectors: tuple[Detector, ...] = tuple(make[name]() for name in settings.detectors)
        kinds = frozenset(settings.kinds)
        if settings.dates:
            detectors += (DayDetector(),)
            kinds |= {"EVENT_DATE"} if kinds else frozenset()
        if settings.patterns or settings.words:
            own = OwnDetector(settings.patterns, dict(settings.words))
            detectors += (own,)
            kinds |= own.kinds if kinds else frozenset()
        compile_forms()  # now, and not in the first message's time
        self._instructions = Instructions(settings.instructions)
        self._public_system = settings.public_system
        self.reader = PassageReader(
            detectors,
            kinds=kinds,
            min_score=settings.min_score,
            allow=frozenset(w for text in settings.allow for w in text.casefold().split()),
            instructions=self._instructions,
            public_system=self._public_system,
            size=_REMEMBERED,
        )
        self._hints = settings.hints
        self._seconds = settings.seconds
        self._earlier = EarlierTurns(_REMEMBERED)

    async def spans(self, message: Message) -> list[list[Span]]:
        """What would be hidden in each text of `message` if it began a conversation: for reports and
        benchmarks. The texts are those of `texts_of`.
        """

        passages = message.passages()

        def steps() -> Steps[list[list[Span]]]:
            found = yield from self.reader.found(passages, b"")
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
        return self.reader.unread(passages, scope)

    async def read_together(
        self, several: Sequence[Sequence[Passage]], scope: bytes, turn: Callable[[], None]
    ) -> None:
        """Read what is new in the passages of `several` messages of one `scope` at once, which takes
        less time, and remember it for when each is hidden. `turn` as in `hidden`.
        """
        await paced(self.reader.read_together(several, scope), self._seconds, turn)

    def _hidden(self, passages: Sequence[Passage], vault: Vault) -> Steps[list[str]]:
        found = yield from self.reader.found(passages, vault.scope)
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
            for detector in self.reader.detectors:
                if span.kind == "VALUE" and isinstance(detector, LiteralDetector):
                    about = detector.about(value, public)
                    if about:
                        told[vault.shown(value)] = about
        if not told:
            return ""
        return "\n\n" + " ".join(f"{shown!r} is {about}." for shown, about in told.items())
