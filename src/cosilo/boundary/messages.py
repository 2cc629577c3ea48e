"""The complete list of what may cross between the parties, and how it is encoded.

The data owner sends a `Request`; the LM owner answers with the `Message` it names. A message is a
frozen msgspec struct, tagged with its class name and encoded as msgpack; the bytes counted anywhere
in Cosilo are the bytes of this encoding. Nothing is ever unpickled.

Nothing here may mention an `Example` or a `Secret`, and the import rules see to it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Generic, TypeVar

import msgspec

from cosilo.errors import UnexpectedReplyError
from cosilo.models.base import Access
from cosilo.types import Chat, Generation, Sampling, Value


class Message(Value, frozen=True, kw_only=True, tag_field="message", tag=True):
    """One thing said across the boundary.

    `epsilon` is the privacy spent to make it, stated by the defence that made it, so that the meter
    and the ledger see the budget travel with the data.
    """

    reveals: ClassVar[Access] = Access.TEXT
    epsilon: float = 0.0

    def tokens_bound(self) -> tuple[int, int]:
        """Upper bound on (prompt, completion) tokens this request can be billed for."""
        return 0, 0

    def usage(self) -> tuple[int, int]:
        """(prompt, completion) tokens this reply was billed for."""
        return 0, 0


R_co = TypeVar("R_co", bound=Message, covariant=True)


class Request(Message, Generic[R_co], frozen=True, kw_only=True):
    """A message the data owner sends; `reply` is the class it is answered with."""

    reply: ClassVar[type[Message]]


class Completion(Message, frozen=True, kw_only=True):
    generation: Generation

    def usage(self) -> tuple[int, int]:
        g = self.generation
        return g.prompt_tokens * g.attempts, g.completion_tokens


class Ask(Request[Completion], frozen=True, kw_only=True):
    """A chat the LM is asked to continue."""

    reply: ClassVar[type[Message]] = Completion
    chat: Chat
    sampling: Sampling = Sampling()

    def tokens_bound(self) -> tuple[int, int]:
        more = len(f"{self.sampling.tools}{self.sampling.response_format}".encode())
        return _prompt_bound(self.chat, more), self.sampling.max_tokens


class Scored(Value, frozen=True):
    """A chat and a reply to it that the LM is asked to look at."""

    chat: Chat
    reply: str


class Scores(Message, frozen=True, kw_only=True):
    """What the LM would have said in place of each reply's tokens.

    Attributes:
        packed: `boundary.logits.pack` of all replies' places, one after the other.
        lengths: how many places each reply has, its end of turn among them.
        vocabulary: a hash of the LM's tokeniser. Ids mean the same where it is the same.
        pieces: what each of a reply's tokens stands for in UTF-8, where that was asked for.
        spelt: what each id in `packed` stands for, from the lowest id up, where that was asked for.
        prompt_tokens: what it took; everything was read, nothing written.
    """

    reveals: ClassVar[Access] = Access.LOGITS
    packed: bytes
    lengths: tuple[int, ...]
    vocabulary: str
    pieces: tuple[tuple[bytes, ...], ...] = ()
    spelt: tuple[bytes, ...] = ()
    prompt_tokens: int = 0

    def usage(self) -> tuple[int, int]:
        return self.prompt_tokens, 0


class Score(Request[Scores], frozen=True, kw_only=True):
    """Replies that the LM is asked to give its next-token probabilities for, word by word.

    Attributes:
        top: how many of the most probable tokens are wanted at each place.
        temperature: what the logits are divided by before anything else.
        ids: say which tokens they are; without, only their sorted probabilities come.
        pieces: say how the LM cuts the replies into tokens, and what the ids stand for.
    """

    reply: ClassVar[type[Message]] = Scores
    reveals: ClassVar[Access] = Access.LOGITS
    items: Annotated[tuple[Scored, ...], msgspec.Meta(min_length=1)]
    top: Annotated[int, msgspec.Meta(ge=1)] = 64
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    ids: bool = True
    pieces: bool = False

    def tokens_bound(self) -> tuple[int, int]:
        return sum(_prompt_bound(i.chat, len(i.reply.encode())) for i in self.items), 0


class States(Message, frozen=True, kw_only=True):
    """How the LM represents texts.

    Attributes:
        packed: `boundary.states.pack` of one state for each text, in their order.
        prompt_tokens: what it took; everything was read, nothing written.
    """

    reveals: ClassVar[Access] = Access.ACTIVATIONS
    packed: bytes
    prompt_tokens: int = 0

    def usage(self) -> tuple[int, int]:
        return self.prompt_tokens, 0


class Read(Request[States], frozen=True, kw_only=True):
    """Texts that the LM is asked to read as they are, without its chat template.

    Attributes:
        layer: after how many layers the state of a text's last token is wanted; all, when unset.
    """

    reply: ClassVar[type[Message]] = States
    reveals: ClassVar[Access] = Access.ACTIVATIONS
    texts: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    layer: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def tokens_bound(self) -> tuple[int, int]:
        return sum(len(text.encode()) + 8 for text in self.texts), 0


def _prompt_bound(chat: Chat, more: int) -> int:
    """Most tokens in `chat` and `more` bytes beside it."""
    # Byte-level tokenisers emit at most one token per byte, and come close to it on digits. Each
    # turn, and each call in it, costs a few template tokens.
    texts = [text for t in chat for text in (t.content, t.name, t.tool_call_id)]
    calls = [c for t in chat for c in t.tool_calls]
    texts += [text for c in calls for text in (c.id, c.name, c.arguments)]
    return len("".join(texts).encode()) + more + 8 * (len(chat) + len(calls)) + 8


def encode(message: Message) -> bytes:
    """`message` as tagged msgpack."""
    return _ENCODER.encode(message)


def decode(data: bytes) -> Message:
    """The message that `encode` made `data` from.

    Raises:
        UnexpectedReplyError: the bytes are not a known message; the text holds none of them.
    """
    if _decoders:
        try:
            return _decoders[max(_decoders)].decode(data)
        except msgspec.DecodeError:
            pass  # perhaps a kind that a plug-in has added since
    try:
        return _decoder().decode(data)
    except msgspec.DecodeError as error:
        what = type(error).__name__
        raise UnexpectedReplyError(f"{len(data)} bytes are not a known message ({what})") from None


_ENCODER = msgspec.msgpack.Encoder()
_decoders: dict[int, msgspec.msgpack.Decoder[Message]] = {}


def _decoder() -> msgspec.msgpack.Decoder[Message]:
    kinds = sorted(_concrete(Message), key=lambda kind: kind.__name__)
    if len(kinds) not in _decoders:
        union = kinds[0]
        for kind in kinds[1:]:
            union = union | kind  # type: ignore[assignment]
        _decoders[len(kinds)] = msgspec.msgpack.Decoder(union)
    return _decoders[len(kinds)]


def _concrete(kind: type[Message]) -> list[type[Message]]:
    found = []
    for child in kind.__subclasses__():
        below = _concrete(child)
        found += below or ([child] if child is not Request else [])
    return found
