"""Values are replaced by placeholders on the way out and put back on the way home.

    Ask ─▶ detect ─▶ cover ─▶ hide ─▶ check ─▶ the LM ─▶ restore ─▶ reply
               └ in doubt: PrivacyError, and nothing was sent

Placeholders hold for a whole conversation: in every message and turn, in the tool calls a client
sends back, in streams cut anywhere. The values stay in this process; under the same key the same
conversation gets the same placeholders, so nothing has to be stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec

from cosilo.boundary.channel import Handler, StreamHandler
from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.boundary.secret_key import secret_key
from cosilo.defences.base import Defence, defences
from cosilo.defences.detection import WINDOW, Detector, Span, shifted, windows
from cosilo.defences.literals import LiteralDetector, read_cells
from cosilo.defences.patterns import PatternDetector
from cosilo.defences.plainly import plainly
from cosilo.defences.presidio import PresidioDetector
from cosilo.defences.replies import ReplyStream, restored
from cosilo.defences.texts import public_text, texts_of, with_texts
from cosilo.defences.vault import Vault
from cosilo.errors import PrivacyError
from cosilo.types import Delta, closing

DetectorName = Literal["presidio", "patterns", "literals"]
T = TypeVar("T")

_INLINE = 2_000  # characters that are looked through without leaving the event loop's thread
_REMEMBERED = 4_096  # texts whose spans are kept, so that a conversation's old turns cost nothing


class _Recent(Generic[T]):
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


@defences.register("pseudonym")
class Pseudonym(Defence):
    """Options:
    detectors: what looks for private values: "presidio" (names, places, identifiers),
        "patterns" (the same without a model), "literals" (what a database question compares with).
    model: Presidio's spaCy pipeline: a name in Cosilo's catalog, or a folder.
    kinds: the kinds of value to hide; all when empty.
    min_score: values that a detector is less sure of stay.
    allow: words that are never private. The labels of a constrained reply never are either.
    system: "public" sends system turns as they are, and their words are not private (a schema,
        instructions); "private" treats them like any other turn.
    conversation: what one conversation is: "request" (a task item, whose messages share values), or
        "first-turn" (all requests that begin with the same user turn; each sends its history).
    replies: "sql" quotes restored text where SQL needs it; "text" puts values back as they are.
    databases: SQLite files, or a folder of them, whose cells are values for "literals".
    values: further values for "literals".
    hints: tell the LM which column of `databases` each hidden value stands in: what a question
        without its values has lost. It learns from that that the value is in the data.
    key_file: the key that placeholders are derived under; made when it is not there.
    seconds: how long looking through one message may take.
    remember: conversations (and requests, for `counts`) kept in memory.
    """

    def __init__(
        self,
        detectors: Sequence[DetectorName] = ("presidio",),
        model: str = "en-core-web-md",
        kinds: Sequence[str] = (),
        min_score: float = 0.3,
        allow: Sequence[str] = (),
        system: Literal["private", "public"] = "private",
        conversation: Literal["request", "first-turn"] = "request",
        replies: Literal["text", "sql"] = "text",
        databases: Path | None = None,
        values: Sequence[str] = (),
        hints: bool = False,
        key_file: Path = Path(".cosilo/pseudonym.key"),
        seconds: float = 60.0,
        remember: int = 10_000,
    ) -> None:
        if not detectors:
            raise ValueError("detectors must name at least one")
        if not 0 <= min_score <= 1:
            raise ValueError(f"min_score must be 0 to 1, not {min_score!r}")
        if remember < 1 or seconds <= 0:
            raise ValueError("remember and seconds must be positive")
        make: Mapping[str, Callable[[], Detector]] = {
            "presidio": lambda: PresidioDetector(model),
            "patterns": PatternDetector,
            "literals": lambda: LiteralDetector(
                values, read_cells(Path(databases)) if databases else ()
            ),
        }
        self.detectors: tuple[Detector, ...] = tuple(make[name]() for name in detectors)
        self._kinds = frozenset(kinds)
        self._min_score = min_score
        self._allow = frozenset(w for text in allow for w in text.casefold().split())
        self._system = system
        self._conversation = conversation
        self._sql = replies == "sql"
        self._hints = hints
        self._key_file = Path(key_file)
        self._key: bytes | None = None
        self._seconds = seconds
        self._vaults: _Recent[Vault] = _Recent(remember)
        self._counts: _Recent[Mapping[str, int]] = _Recent(remember)
        self._spans: _Recent[tuple[Span, ...]] = _Recent(_REMEMBERED)

    def counts(self, request: str) -> Mapping[str, int]:
        """How many different values of each kind were replaced for `request`; nothing else of them
        is kept. Empty for a request that is unknown or long past.
        """
        return self._counts.get(request) or {}

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
        """Hide, send, restore.

        Raises:
            PrivacyError: in doubt; nothing was sent.
        """
        if not isinstance(message, Ask):
            if _holds_text(message):
                raise PrivacyError(
                    f"the pseudonym defence does not know what in a {type(message).__name__} is "
                    "private, so nothing was sent"
                )
            return await forward(message)
        vault, hidden = await self._hidden(message, request)
        reply = await forward(hidden)
        if not isinstance(reply, Completion):
            return reply
        generation = restored(reply.generation, vault.restorer, hidden.sampling, sql=self._sql)
        return msgspec.structs.replace(reply, generation=generation)

    async def guard_stream(
        self, ask: Ask, forward: StreamHandler, *, request: str
    ) -> AsyncIterator[Delta]:
        vault, hidden = await self._hidden(ask, request)
        stream = ReplyStream(vault.restorer, hidden.sampling, sql=self._sql)
        async with closing(forward(hidden)) as deltas:
            async for delta in deltas:
                for piece in stream.feed(delta):
                    yield piece
        for piece in stream.finish():
            yield piece

    async def _hidden(self, ask: Ask, request: str) -> tuple[Vault, Ask]:
        try:
            vault, hidden = await self._hide(ask, request)
        except PrivacyError:
            raise
        except Exception as error:
            # Only the class: the text of a detector's error may quote what it failed on.
            what = type(error).__name__
        else:
            self._counts.put(request, vault.counts)
            return vault, hidden
        raise PrivacyError(f"private values could not be looked for ({what}), so nothing was sent")

    async def spans(self, ask: Ask) -> list[list[Span]]:
        """What would be hidden in each text of `ask` if it began a conversation: for reports and
        benchmarks. The texts are those of `texts_of`.
        """
        texts, found = await self._found(ask)
        return Vault(b"", "").cover(texts, found)

    async def _hide(self, ask: Ask, request: str) -> tuple[Vault, Ask]:
        texts, found = await self._found(ask)
        vault = self._vault(ask, request)
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
        return vault, with_texts(ask, masked, public_system=self._system == "public")

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
        texts = texts_of(ask, public_system=self._system == "public")
        public = public_text(ask) if self._system == "public" else ""
        labels = frozenset(c.strip().casefold() for c in ask.sampling.choices)
        found = await self._detect(texts, public)
        return texts, [
            [s for s in spans if self._is_private(s, text, public, labels)]
            for text, spans in zip(texts, found, strict=True)
        ]

    def _vault(self, ask: Ask, request: str) -> Vault:
        if self._key is None:
            self._key = secret_key(self._key_file)
        if self._conversation == "first-turn":
            # Every request carries its whole conversation, so nothing is kept between them: what
            # another caller's conversation holds can never be restored into this one.
            first = next((t.content for t in ask.chat if t.role == "user"), "")
            name = hmac.new(self._key, first.encode(errors="surrogatepass"), hashlib.sha256)
            return Vault(self._key, f"first-turn {name.hexdigest()}")
        vault = self._vaults.get(request)
        if vault is None:
            vault = Vault(self._key, f"request {request}")
            self._vaults.put(request, vault)
        return vault

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


def _holds_text(message: Message) -> bool:
    """Whether any field of `message`, however deep, holds a text or bytes that are not empty."""

    def holds(value: Any) -> bool:
        if isinstance(value, str | bytes | bytearray | memoryview):
            return len(value) > 0
        if isinstance(value, Mapping):
            return any(holds(v) for pair in value.items() for v in pair)
        if isinstance(value, Iterable):
            return any(map(holds, value))
        if isinstance(value, msgspec.Struct):
            return any(holds(getattr(value, f)) for f in value.__struct_fields__)
        return value is not None and not isinstance(value, bool | int | float)

    return any(holds(getattr(message, f)) for f in message.__struct_fields__)
