"""Values are replaced by placeholders on the way out and put back on the way home.

    Ask ─▶ detect ─▶ cover ─▶ hide ─▶ check ─▶ the LM ─▶ restore ─▶ reply
               └ in doubt: PrivacyError, and nothing was sent

Placeholders hold for a whole conversation: in every message and turn, in the tool calls a client
sends back, in streams cut anywhere. The values stay in this process; under the same key the same
conversation gets the same placeholders, so nothing has to be stored.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Sized
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from cosilo.boundary.channel import Handler, StreamHandler
from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.boundary.messages.passages import JSON, Passage
from cosilo.defences.apart import Elsewhere
from cosilo.defences.at_home import all_of, finder
from cosilo.defences.base import Defence, defences
from cosilo.defences.destinations import known_hosts
from cosilo.defences.hiding import DetectorName, Hiding, M, Settings
from cosilo.defences.own import OwnPattern
from cosilo.defences.places import DEFAULT, Place, Places, Rules, places
from cosilo.defences.presidio import presidio_loads
from cosilo.defences.recent import Recent
from cosilo.defences.replies import ReplyStream, restored
from cosilo.defences.restoring import Restorer, restore
from cosilo.defences.tagger.reading import LANGUAGES
from cosilo.defences.vault import Vault
from cosilo.errors import PrivacyError
from cosilo.parties.data_owner import DataOwner
from cosilo.privacy.secret_key import secret_key
from cosilo.registry import Loads
from cosilo.types import Delta, closing

# CPU time of looking through the costliest text there is (signs and single letters, with escapes, so
# that it is read twice), and a quarter; prose takes a tenth. benchmarks/gateway/waits.py measures it.
_SECONDS_PER_KB: Mapping[DetectorName, float] = {
    "presidio": 0.25, "patterns": 0.06, "literals": 0.02, "tagger": 0.05,
}  # fmt: skip


def _loads(detectors: Sequence[DetectorName], model: str) -> Loads:
    return presidio_loads(model) if "presidio" in detectors else Loads()


_CONVERSATIONS = ("request", "first-turn", "caller")
_LANGUAGES = {
    "de": "German", "es": "Spanish", "fr": "French", "it": "Italian", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "sv": "Swedish",
}  # fmt: skip


def _languages(detectors: Sequence[DetectorName], model: str) -> tuple[str, ...]:
    """What names are looked for in: spaCy's pipelines begin with their language's code."""
    known = []
    if "presidio" in detectors:
        known.append(_LANGUAGES.get(Path(model).name[:2] if "core" in model else "", "English"))
    elif "patterns" in detectors:
        known.append("English")
    if "presidio" in detectors or "tagger" in detectors:
        known += [_LANGUAGES[code] for code in LANGUAGES]
    return tuple(dict.fromkeys(known))


@defences.register("pseudonym", loads=_loads)
class Pseudonym(Defence):
    """Options:
    detectors: what looks for private values: "presidio" (names, places, identifiers),
        "patterns" (the same without a model), "tagger" (names in German, French, Spanish, Italian,
        Polish, Dutch and Portuguese, without a package; "presidio" has it), "literals" (what a database
        question compares with).
    model: Presidio's spaCy pipeline: a name in Cosilo's catalog, or a folder.
    kinds: the kinds of value to hide; all when empty.
    min_score: values that a detector is less sure of stay.
    allow: words that are never private. The labels of a constrained reply never are either.
    instructions: texts that are the task's own, by default what the plan (or the point's `system` in a
        gateway) says: names, numbers and dates in their lines of a system turn are not private unless
        found elsewhere; e-mail addresses, card numbers and other values of a form are.
    system: "public" sends system turns as they are, and their words are not private (a schema,
        instructions); "private" treats them like any other turn.
    conversation: what one conversation is: "request" (a task item, whose messages share values), or
        "first-turn" (all requests of one caller that begin with the same user turn; each sends its
        history), or "caller" (all requests of one caller: what an agent remembers of other sessions
        keeps its placeholders, and the LM's owner can link those sessions by equal values).
    replies: "sql" quotes restored text where SQL needs it; "text" puts values back as they are.
    restore_in: where values are put back: "text" (what the LM says), "tool_arguments", "own_urls"
        (URLs that the owner's own texts hold exactly so); "urls" (URLs, links and attributes of HTML
        that the LM made: whoever owns the host learns them, for an image when the reply is shown),
        "elsewhere" (commands, code and tool calls that name a host which no turn of the user or the
        system and no tool's definition names), and "secrets" (credentials too in those two).
    databases: SQLite files, or a folder of them, whose cells are values for "literals".
    values: further values for "literals".
    dates: hide the days of whatever happened too (an admission, an order), as HIPAA's Safe Harbor asks;
        dates of birth are hidden anyway, and years alone never are.
    patterns: kinds of your own by their form, as tables of `name`, `regex` and `context` (words of
        which one must stand near): see `own.py`.
    words: kind → words or phrases that are private in any case, or the file that holds them, one a
        line.
    hints: tell the LM which column of `databases` each hidden value stands in: what a question
        without its values has lost. It learns from that that the value is in the data.
    key_file: the key that placeholders are derived under; made when it is not there.
    seconds: how long looking through one message may take.
    remember: conversations (and requests, for `counts`) kept in memory.
    apart: look in a process of its own, so that a long message keeps nobody waiting and `seconds` holds
        whatever a detector does. `cosilo serve` does so; its workers have one such process each.
    """

    def __init__(
        self,
        detectors: Sequence[DetectorName] = ("presidio",),
        model: str = "en-core-web-md",
        kinds: Sequence[str] = (),
        min_score: float = 0.3,
        allow: Sequence[str] = (),
        instructions: Sequence[str] = (),
        system: Literal["private", "public"] = "private",
        conversation: Literal["request", "first-turn", "caller"] = "request",
        replies: Literal["text", "sql"] = "text",
        restore_in: Sequence[Place] = DEFAULT,
        databases: Path | None = None,
        values: Sequence[str] = (),
        dates: bool = False,
        patterns: Sequence[OwnPattern] = (),
        words: Mapping[str, Sequence[str] | str] | None = None,
        hints: bool = False,
        key_file: Path = Path(".cosilo/pseudonym.key"),
        seconds: float = 60.0,
        remember: int = 10_000,
        apart: bool = False,
    ) -> None:
        if not detectors:
            raise ValueError("detectors must name at least one")
        if conversation not in _CONVERSATIONS:
            known = ", ".join(_CONVERSATIONS)
            raise ValueError(f"conversation = {conversation!r} is none of {known}")
        if not 0 <= min_score <= 1:
            raise ValueError(f"min_score must be 0 to 1, not {min_score!r}")
        if remember < 1 or seconds <= 0:
            raise ValueError("remember and seconds must be positive")
        settings = Settings(
            detectors=tuple(detectors),
            model=model,
            kinds=tuple(kinds),
            min_score=min_score,
            allow=tuple(allow),
            public_system=system == "public",
            databases=None if databases is None else str(databases),
            values=tuple(values),
            hints=hints,
            seconds=seconds,
            instructions=tuple(instructions),
            dates=dates,
            patterns=tuple(patterns),
            words=tuple(
                (k, v if isinstance(v, str) else tuple(v)) for k, v in (words or {}).items()
            ),
        )
        self.hiding = Elsewhere(settings) if apart else Hiding(settings)
        self.languages = _languages(detectors, model)
        self._seconds = seconds
        self._seconds_per_kb = sum(_SECONDS_PER_KB[name] for name in detectors)
        self._conversation = conversation
        self._sql = replies == "sql"
        self._places = places(restore_in)
        self._key_file = Path(key_file)
        self._key: bytes | None = None
        self._caller: Callable[[str], bytes] = lambda _: b""
        self._vaults: Recent[str, Vault] = Recent(remember)
        self._counts: Recent[str, Mapping[str, int]] = Recent(remember)
        self._withheld: Recent[str, Counter[str]] = Recent(remember)

    async def open(self) -> None:
        if isinstance(self.hiding, Elsewhere):
            await self.hiding.open()

    async def close(self) -> None:
        if isinstance(self.hiding, Elsewhere):
            await self.hiding.close()

    def most_bytes(self, seconds: float) -> float:
        return 1000 * min(seconds, self._seconds) / self._seconds_per_kb

    def bind(self, caller: Callable[[str], bytes]) -> None:
        """Derive placeholders also under what `caller` says of a request: whose it is, where a gateway
        serves several. Equal values of two of them cannot be linked, and neither can look up what the
        other's placeholders stand for.
        """
        self._caller = caller

    def counts(self, request: str) -> Mapping[str, int]:
        """How many different values of each kind were replaced for `request`; nothing else of them
        is kept. Empty for a request that is unknown or long past.
        """
        return self._counts.get(request) or {}

    def withheld(self, request: str) -> Mapping[str, int]:
        """How many placeholders of each kind were left in replies to `request`, because they stood
        where no value may come back.
        """
        return self._withheld.get(request) or {}

    def protect(self, owner: DataOwner) -> DataOwner:
        """The owner finds at home what would be hidden on the way out."""
        return owner.finding(all_of(owner.finds, finder(self.hiding)))

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
        """Hide, send, restore.

        Raises:
            PrivacyError: in doubt; nothing was sent.
        """
        if not message.replaceable:
            if _holds_more_than_numbers(message):
                raise PrivacyError(
                    f"the pseudonym defence cannot hide what is private in a "
                    f"{type(message).__name__}, so nothing was sent"
                )
            return await forward(message)
        vault, hidden = await self._hidden(message, request)
        reply = await forward(hidden)
        rules = self._rules(message, hidden)
        try:
            return self._restored(reply, hidden, vault.restorer, rules)
        finally:
            self._note(request, rules)

    def _rules(self, message: Message, hidden: Message) -> Rules:
        called = (
            frozenset(call.name for turn in hidden.chat for call in turn.tool_calls)
            if isinstance(hidden, Ask)
            else frozenset()
        )
        return Rules(self._places, cache(lambda: known_hosts(message.passages())), called)

    def _note(self, request: str, rules: Rules) -> None:
        if rules.withheld:
            self._withheld.put(request, (self._withheld.get(request) or Counter()) + rules.withheld)

    def _restored(
        self, reply: Message, hidden: Message, restorer: Restorer, rules: Rules
    ) -> Message:
        if isinstance(hidden, Ask) and isinstance(reply, Completion):
            generation = restored(
                reply.generation, restorer, hidden.sampling, sql=self._sql, rules=rules
            )
            return msgspec.structs.replace(reply, generation=generation)
        if not reply.replaceable:
            return reply

        def put_back(passage: Passage) -> str:
            if passage.what in ("label", "word"):
                return passage.text
            written = Places(restorer, json=passage.what in JSON, rules=rules)
            return restore(restorer, passage.text, written)

        return reply.with_passages(put_back)

    async def guard_stream(
        self, ask: Ask, forward: StreamHandler, *, request: str
    ) -> AsyncIterator[Delta]:
        vault, hidden = await self._hidden(ask, request)
        rules = self._rules(ask, hidden)
        stream = ReplyStream(vault.restorer, hidden.sampling, sql=self._sql, rules=rules)
        try:
            async with closing(forward(hidden)) as deltas:
                async for delta in deltas:
                    for piece in stream.feed(delta):
                        yield piece
            for piece in stream.finish():
                yield piece
        finally:
            self._note(request, rules)

    async def _hidden(self, message: M, request: str) -> tuple[Vault, M]:
        try:
            vault = self._vault(message, request)
            hidden = await self.hiding.hide(message, vault)
        except PrivacyError:
            raise
        except Exception as error:
            # Only the class: the text of a detector's error may quote what it failed on.
            what = type(error).__name__
        else:
            self._counts.put(request, vault.counts)
            return vault, hidden
        raise PrivacyError(f"private values could not be looked for ({what}), so nothing was sent")

    def _vault(self, message: Message, request: str) -> Vault:
        if self._key is None:
            self._key = secret_key(self._key_file)
        caller = self._caller(request)
        key = hmac.new(self._key, caller, hashlib.sha256).digest() if caller else self._key
        if self._conversation == "first-turn":
            # Every request carries its whole conversation, so nothing is kept between them: what
            # another caller's conversation holds can never be restored into this one.
            said = (p.text for p in message.passages() if p.what == "said" and p.by == "user")
            first = next(said, "")
            name = hmac.new(key, first.encode(errors="surrogatepass"), hashlib.sha256)
            return Vault(key, f"first-turn {name.hexdigest()}")
        if self._conversation == "caller":
            return Vault(key, "caller")
        vault = self._vaults.get(request)
        if vault is None:
            vault = Vault(key, f"request {request}")
            self._vaults.put(request, vault)
        return vault


def _holds_more_than_numbers(message: Message) -> bool:
    """Whether a field of `message` holds a text, bytes or a list that is not empty, and so may
    hold what was made of private text.
    """

    def holds(value: Any) -> bool:
        if isinstance(value, msgspec.Struct):
            return any(holds(getattr(value, f)) for f in value.__struct_fields__)
        if isinstance(value, Sized):
            return len(value) > 0
        return value is not None and not isinstance(value, bool | int | float)

    return any(holds(getattr(message, f)) for f in message.__struct_fields__)
