"""What of a message is private, and the message with placeholders in its place.

texts ─▶ detect ─▶ cover ─▶ issue ─▶ hide ─▶ restored again and compared
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec

from cosilo.boundary.messages import Ask
from cosilo.defences.detection import WINDOW, Detector, Span, shifted, windows
from cosilo.defences.literals import LiteralDetector, read_cells
from cosilo.defences.patterns import PatternDetector
from cosilo.defences.plainly import plainly
from cosilo.defences.presidio import PresidioDetector
from cosilo.defences.texts import public_text, texts_of, with_texts
from cosilo.defences.vault import Vault
from cosilo.errors import PrivacyError

DetectorName = Literal["presidio", "patterns", "literals"]
T = TypeVar("T")

_INLINE = 2_000  # characters that are looked through without leaving the event loop's thread
_REMEMBERED = 4_096  # texts whose spans are kept, so that a conversation's old turns cost nothing


class Recent(Generic[T]):
    """The `size` entries used last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: str, value: T) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


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
            "literals": lambda: LiteralDetector(
                settings.values, read_cells(Path(databases)) if databases else ()
            ),
        }
        self.detectors: tuple[Detector, ...] = tuple(make[name]() for name in settings.detectors)
        self._kinds = frozenset(settings.kinds)
        self._min_score = settings.min_score
        self._allow = frozenset(w for text in settings.allow for w in text.casefold().split())
        self._public_system = settings.public_system
        self._hints = settings.hints
        self._seconds = settings.seconds
        self._spans: Recent[tuple[Span, ...]] = Recent(_REMEMBERED)

    async def spans(self, ask: Ask) -> list[list[Span]]:
        """What would be hidden in each text of `ask` if it began a conversation: for reports and
        benchmarks. The texts are those of `texts_of`.
        """
        texts, found = await self._found(ask)
        return Vault(b"", "").cover(texts, found)

    async def hide(self, ask: Ask, vault: Vault) -> Ask:
        """`ask` with a placeholder of `vault` for each private value.

        Raises:
            PrivacyError: the result could not be restored exactly.
            Exception: whatever a detector raised; its text may quote what it failed on.
        """
        texts, found = await self._found(ask)
        spans = vault.cover(texts, found)
        vault.issue(texts, spans, public_text(ask))
        masked = [vault.hide(t, s) for t, s in zip(texts, spans, strict=True)]
        for text, hidden in zip(texts, masked, strict=True):
            if vault.restore(hidden) != text:
                raise PrivacyError("a message could not be restored exactly, so nothing was sent")
        if self._hints:
            masked = [
                hidden + self._hint(text, here, vault, public_text(ask))
                for text, hidden, here in zip(texts, masked, spans, strict=True)
            ]
        return with_texts(ask, masked, public_system=self._public_system)

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

    async def _found(self, ask: Ask) -> tuple[list[str], list[list[Span]]]:
        texts = texts_of(ask, public_system=self._public_system)
        public = public_text(ask) if self._public_system else ""
        labels = frozenset(c.strip().casefold() for c in ask.sampling.choices)
        found = await self._detect(texts, public)
        return texts, [
            [s for s in spans if self._is_private(s, text, public, labels)]
            for text, spans in zip(texts, found, strict=True)
        ]

    def _is_private(self, span: Span, text: str, public: str, labels: frozenset[str]) -> bool:
        if span.score < self._min_score or (self._kinds and span.kind not in self._kinds):
            return False
        value = text[span.start : span.end]
        folded = value.strip().casefold()
        if folded in labels or all(word in self._allow for word in folded.split()):
            return False
        # A detector of literals has been told what is public; the others have not.
        return not (public and span.kind not in _LITERAL and _stands_in(value, public))

    async def _detect(self, texts: Sequence[str], public: str) -> list[list[Span]]:
        deadline = time.monotonic() + self._seconds
        return [await self._detect_one(text, public, deadline) for text in texts]

    async def _detect_one(self, text: str, public: str, deadline: float) -> list[Span]:
        name = hashlib.blake2b(f"{len(public)} {public}{text}".encode(errors="surrogatepass"))
        known = self._spans.get(name.hexdigest())
        if known is None:
            found: list[Span] = []
            for offset, window in windows(text):
                if time.monotonic() > deadline:
                    raise TimeoutError
                found += shifted(await self._look(window, public), offset)
                plain = plainly(window)
                if plain is not None:
                    for start, read in windows(plain.text):
                        seen = shifted(await self._look(read, public), start)
                        found += shifted(map(plain.written, seen), offset)
            known = tuple(found)
            if len(text) <= WINDOW:  # longer ones would make the memory grow
                self._spans.put(name.hexdigest(), known)
        return list(known)

    async def _look(self, text: str, public: str) -> list[Span]:
        found: list[Span] = []
        for detector in self.detectors:
            if len(text) <= _INLINE:
                found += detector.detect(text, public)
            else:
                found += await asyncio.to_thread(detector.detect, text, public)
        return [span for span in found if span.start < span.end]


_LITERAL = frozenset({"NUMBER", "COUNT", "DAY", "MONTH", "YEAR", "DATE", "TIME", "VALUE"})


def _stands_in(value: str, public: str) -> bool:
    """Whether `value` stands in `public` as it is, as whole words."""
    at = public.find(value)
    while at >= 0:
        around = public[max(0, at - 1) : at] + public[at + len(value) : at + len(value) + 1]
        if not any(c.isalnum() or c == "_" for c in around):
            return True
        at = public.find(value, at + 1)
    return False
