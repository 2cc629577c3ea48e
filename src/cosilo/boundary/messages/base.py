"""What a message is, how it is encoded, and how bytes are read as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import msgspec

from cosilo.boundary.messages.passages import Change, Passage
from cosilo.errors import (
    BoundaryError,
    CapabilityError,
    ConfigError,
    PrivacyError,
    UnexpectedReplyError,
)
from cosilo.models.base import EVERYTHING, Shows
from cosilo.privacy.mechanisms import Release
from cosilo.types import Amount, Value


class Drawn(NamedTuple):
    """How much of the LM replies have shown beside text: what a copy of it could be made from.

    Attributes:
        logits: logits or probabilities of single tokens.
        states: hidden states, each of one token or text.
        gradients: gradients, each of one token or text.
    """

    logits: int = 0
    states: int = 0
    gradients: int = 0


class Beside(NamedTuple):
    """Bytes that cross beside messages, as shares that parties compute on.

    Attributes:
        up: that the data owner sends.
        down: that it is sent.
        steps: one after another, at most: how often one of two parties may have waited for what the
            other sent.
    """

    up: int = 0
    down: int = 0
    steps: int = 0

    @property
    def bytes(self) -> int:
        """Both ways."""
        return self.up + self.down


class Message(Value, frozen=True, kw_only=True, tag_field="message", tag=True):
    """One thing said across the boundary.

    A class states what the rest of the house needs to know of its messages. What it does not state is
    taken for the worst: all its strings are read as private, no defence lets it pass, only an owner who
    shows everything answers it, and without a bound on what it costs it is not sent.

    What may stand in a field is declared with the field: the range of a number, how many there may be
    of what comes in numbers (`cosilo.types` has names for both). Bytes that say something else are
    refused before the field is made.

    Attributes:
        shows: what an owner must show of the LM to answer this request, or what this reply shows.
        epsilon: the privacy spent to make it, stated by the defence that made it, so that the meter and
            the ledger see the budget travel with the data.
        release: the mechanism that spent it, on the first message that depends on what came out of it.
            Without one, a message is encoded as if there were no such field.
        replaceable: all that is private in it are its passages, and it is of the same use with others
            in their places. So no message that holds arrays made of private texts, and none whose
            reply is of use for these very texts only.
        largest: bytes of the longest message of this kind, no less than `SMALL`.
        on_threads: only a model that goes on from what it has read can answer it.
        turn: what preparing is counted by, where it sends one of these for each: a "round", a "step".
    """

    shows: ClassVar[Shows] = EVERYTHING
    replaceable: ClassVar[bool] = False
    largest: ClassVar[int] = 1 << 20
    on_threads: ClassVar[bool] = False
    turn: ClassVar[str] = ""
    epsilon: Amount = 0.0
    release: Release | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        global _decoder
        super().__init_subclass__(**options)
        _kinds.append(cls)
        _decoder = None  # one that knows this kind, too, is made when it is needed

    def wants(self) -> Shows:
        """What this very request asks to see: `shows`, and what its options add."""
        return self.shows

    def shown(self, exposes: Shows) -> Self:
        """This reply, without what a back end says unasked and the LM's owner does not show.

        Raises:
            CapabilityError: without it there is no reply left.
        """
        if self.shows not in exposes:
            raise CapabilityError(
                f"a {type(self).__name__} shows {self.shows & ~exposes}, which is not exposed"
            )
        return self

    def passages(self) -> list[Passage]:
        """The texts that it carries, in a fixed order."""
        if not self.replaceable:
            return [Passage(text) for text in strings(msgspec.to_builtins(self))]
        found: list[Passage] = []

        def note(passage: Passage) -> str:
            found.append(passage)
            return passage.text

        self.with_passages(note)
        return found

    def with_passages(self, change: Change) -> Self:
        """This message, saying in the place of each passage what `change` makes of it.

        Raises:
            PrivacyError: its class does not say how.
        """
        raise PrivacyError(f"nothing in a {type(self).__name__} can be replaced")

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Self:
        """This reply to `request` as a hostile owner of the LM would give it, if it says anything else
        at all.

        Args:
            lie: what to say in the place of a text.

        Raises:
            CapabilityError: its class does not say how, so nobody can tell what tampering would do.
        """
        if not self.replaceable:
            raise CapabilityError(
                f"nobody knows how a {type(self).__name__} is tampered with; its class must say it in "
                "`tampered`"
            )
        return self.with_passages(lambda p: lie(p.text) if p.what == "said" else p.text)

    def legible(self) -> bool:
        """Whether its passages are all that it says of texts; not where token ids or states do."""
        return True

    def tokens_bound(self) -> tuple[int, int]:
        """Upper bound on (prompt, completion) tokens billed when this request is sent once."""
        return 0, 0

    def runs(self) -> int:
        """How often the LM is run for this request: once for each chat, reply or text in it."""
        return 1

    def reply_bound(self, tokens: int) -> int:
        """Upper bound on the bytes of what answers this request, of which `tokens` are written."""
        return 0

    def usage(self) -> tuple[int, int]:
        """(prompt, completion) tokens this reply says that it took; 0 where it says nothing, less where
        what it says is no number."""
        return 0, 0

    def cached(self) -> int:
        """How many of the prompt's tokens this reply says had been read before; less than 0 where what
        it says is no number."""
        return 0

    def seconds(self) -> float:
        """How long this reply says that it was worked on; 0 where it says nothing."""
        return 0.0

    def beside(self) -> Beside:
        """Bytes that cross beside this request and its reply: of a request the most, of a reply those
        that did."""
        return Beside()

    def written(self) -> int:
        """Bytes of what was written for this reply: an upper bound on its tokens, since each has at
        least one byte.
        """
        return 0

    def sent(self) -> int:
        """How many times the request was sent and may have been worked on until this reply came."""
        return 1

    def places(self) -> int:
        """At how many places of a text this reply shows what the LM would have said."""
        return 0

    def check(self) -> None:
        """Refuse field values that are impossible together; what is impossible in a field alone is
        declared with the field.

        Raises:
            ValueError: it says such a thing. A claim of tokens used is none: the meter judges it.
        """

    def restated(self, tokens_in: int, tokens_out: int) -> Message:
        """This reply, saying that it took so many tokens."""
        return self


def strings(value: object) -> Iterator[str]:
    """Every string in `value`, which is made of built-in types; the tag that names a class apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "message":
                yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)


_kinds: list[type[Message]] = []
_decoder: msgspec.msgpack.Decoder[Message] | None = None

R_co = TypeVar("R_co", bound=Message, covariant=True)


class Request(Message, Generic[R_co], frozen=True, kw_only=True):
    """A message the data owner sends; `reply` is the class it is answered with."""

    reply: ClassVar[type[Message]]

    def tokens_bound(self) -> tuple[int, int]:
        """Upper bound on (prompt, completion) tokens billed when it is sent once.

        Raises:
            CapabilityError: its class does not say, so no budget could hold.
        """
        raise CapabilityError(
            f"{type(self).__name__} does not say how many tokens it may take, so no budget could hold; "
            "its class must say it in `tokens_bound`"
        )

    def reply_bound(self, tokens: int) -> int:
        return self.reply.largest

    def question(self) -> Mapping[str, object] | None:
        """What is asked of the LM: with its identity, all that decides the reply, so that a reply is
        recorded under both and the same question is answered once. None where a recorded reply would
        be no answer the next time.
        """
        return {"score": encode(self)}  # as the keys of scores have always been made

    def lasts(self, reply: Message) -> bool:
        """Whether `reply` is an answer for good, so that it is recorded: not where the other side only
        says to ask again.
        """
        return True

    def drawn(self, reply: Message | None = None) -> Drawn | None:
        """What `reply` shows beside text; without one, the most that a reply can show. None where that
        is not known, so that an owner who limits it does not serve such requests.
        """
        return Drawn() if self.shows == Shows.TEXT else None

    def prompts(self) -> Sequence[object]:
        """What the LM is given, piece by piece: an owner counts how many different ones it has read."""
        return (self,)

    def check_reply(self, reply: Message) -> None:
        """Refuse a reply, of the right class, that this request did not ask for: for more texts, say,
        or with token ids where none were wanted.

        Raises:
            ValueError: it is such a reply.
        """


def encode(message: Message) -> bytes:
    """`message` as tagged msgpack.

    Raises:
        BoundaryError: it is longer than its kind may be.
    """
    data = _ENCODER.encode(message)
    if len(data) > message.largest:
        error = BoundaryError(_too_long(data, type(message)))
        error.worked = 0 if isinstance(message, Request) else None
        raise error
    return data


SMALL, LARGEST = 1 << 16, 1 << 28
"""Bytes that a message of any kind may have, and that one of no kind has more of."""


def decode(data: bytes) -> Message:
    """The message that `encode` made `data` from.

    Raises:
        UnexpectedReplyError: the bytes are not a known message, or too many for one, or what it says
            cannot be (an ε that is no number, a probability above 1); the text holds none of them.
        ConfigError: two classes of messages have one name.
    """
    if len(data) > SMALL:
        _check_length(data)  # before anything is made of it
    try:
        message = (_decoder or _made()).decode(data)
        message.check()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        what = type(error).__name__
        raise UnexpectedReplyError(f"{len(data)} bytes are not a known message ({what})") from None
    return message


def _check_length(data: bytes) -> None:
    """Refuse `data` that is longer than a message of the kind it begins with may be.

    Raises:
        UnexpectedReplyError: it is, or it does not begin with a known kind.
    """
    found = _BEGINS.match(data)
    kind = None
    if found is not None:
        kind = classes().get(found[1].decode(errors="replace"))
    if kind is None:
        raise UnexpectedReplyError(f"{len(data)} bytes do not begin with a known kind of message")
    if len(data) > kind.largest:
        raise UnexpectedReplyError(_too_long(data, kind))


def _too_long(data: bytes, kind: type[Message]) -> str:
    return f"{len(data)} bytes are more than a {kind.__name__} may have, {kind.largest}"


def classes() -> dict[str, type[Message]]:
    """Name on the wire → class, of every class of messages there is.

    Raises:
        ConfigError: two classes of one name.
    """
    found: dict[str, type[Message]] = {}
    for kind in _kinds:
        if kind is Request:
            continue
        name = str(kind.__struct_config__.tag)
        other = found.setdefault(name, kind)
        if _place(other) != _place(kind):
            raise ConfigError(
                f"two classes of messages are called {name!r} on the wire, {_place(other)} and "
                f"{_place(kind)}; give one another name, or a `tag`"
            )
        found[name] = kind  # a module that is loaded again replaces what it had defined
    return found


def _place(kind: type[Message]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


_ENCODER = msgspec.msgpack.Encoder()

# A map of up to 15 or 65,535 fields; the first is `message`, a text of up to 31 or 255 bytes.
_BEGINS = re.compile(
    rb"(?:[\x81-\x8f]|\xde..)\xa7message(?:[\xa1-\xbf]|\xd9.)([A-Za-z_][\w.-]*)", re.DOTALL
)


def _made() -> msgspec.msgpack.Decoder[Message]:
    """A decoder for every class of messages there is."""
    global _decoder
    union, *others = classes().values()
    for kind in others:
        union = union | kind  # type: ignore[assignment]
    _decoder = msgspec.msgpack.Decoder(union)
    return _decoder
