"""The complete list of what may cross between the parties, and how it is encoded.

The data owner sends a `Request`; the LM owner answers with the `Message` it names. A message is a
frozen msgspec struct, tagged with its class name and encoded as msgpack; the bytes counted anywhere
in Cosilo are the bytes of this encoding. Nothing is ever unpickled.

Nothing here may mention an `Example` or a `Secret`, and the import rules see to it.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Generic, TypeVar

import msgspec

from cosilo.boundary.wire import states
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
        """Upper bound on (prompt, completion) tokens billed when this request is sent once."""
        return 0, 0

    def reply_bound(self, tokens: int) -> int:
        """Upper bound on the bytes of what answers this request, of which `tokens` are written."""
        return 0

    def usage(self) -> tuple[int, int]:
        """(prompt, completion) tokens this reply says that it took; 0 where it says nothing, less where
        what it says is no number."""
        return 0, 0

    def written(self) -> int:
        """Bytes of what was written for this reply: an upper bound on its tokens, since each has at
        least one byte.
        """
        return 0

    def sent(self) -> int:
        """How many times the request was sent and may have been worked on until this reply came."""
        return 1

    def check(self) -> None:
        """Refuse field values that are of the right types but impossible (such as a probability
        above 1).

        Raises:
            ValueError: it says such a thing. A claim of tokens used is none: the meter judges it.
        """

    def restated(self, tokens_in: int, tokens_out: int) -> Message:
        """This reply, saying that it took so many tokens."""
        return self


R_co = TypeVar("R_co", bound=Message, covariant=True)


class Request(Message, Generic[R_co], frozen=True, kw_only=True):
    """A message the data owner sends; `reply` is the class it is answered with."""

    reply: ClassVar[type[Message]]


class Completion(Message, frozen=True, kw_only=True):
    generation: Generation

    def usage(self) -> tuple[int, int]:
        return self.generation.prompt_tokens, self.generation.completion_tokens

    def written(self) -> int:
        g = self.generation
        texts = [g.text, *(t for c in g.tool_calls for t in (c.id, c.name, c.arguments))]
        texts += [text for _, text in g.other_texts]
        return len("".join(texts).encode(errors="replace"))

    def sent(self) -> int:
        return self.generation.attempts

    def check(self) -> None:
        self.generation.check()

    def restated(self, tokens_in: int, tokens_out: int) -> Completion:
        generation = msgspec.structs.replace(
            self.generation, prompt_tokens=tokens_in, completion_tokens=tokens_out
        )
        return msgspec.structs.replace(self, generation=generation)


class Ask(Request[Completion], frozen=True, kw_only=True):
    """A chat the LM is asked to continue."""

    reply: ClassVar[type[Message]] = Completion
    chat: Chat
    sampling: Sampling = Sampling()

    def tokens_bound(self) -> tuple[int, int]:
        s = self.sampling
        more, written = 0, s.max_tokens
        if s.tools or s.response_format or s.tool_choice:
            more = _FORMS + _bytes(s.tools) + _bytes(s.response_format) + _bytes(s.tool_choice)
        if s.choices:  # a back end that scores them writes the whole of one
            written = max(written, *(_bytes(choice) + 1 for choice in s.choices))
        return _prompt_bound(self.chat, more), written

    def check(self) -> None:
        s = self.sampling
        if s.max_tokens < 0 or s.top_logprobs < 0 or not 0 <= s.temperature < math.inf:
            raise ValueError("sampling")
        if not 0 <= s.top_p <= 1:
            raise ValueError("sampling")

    def reply_bound(self, tokens: int) -> int:
        # As text and, where log-probabilities are shown, once more for the token and each alternative.
        return _FIELDS + tokens * _LONGEST_TOKEN * (3 + self.sampling.top_logprobs)


class Scored(Value, frozen=True):
    """A chat and a reply to it that the LM is asked to look at."""

    chat: Chat
    reply: str


class Scores(Message, frozen=True, kw_only=True):
    """What the LM would have said in place of each reply's tokens.

    Attributes:
        packed: `boundary.wire.logits.pack` of all replies' places, one after the other.
        lengths: how many places each reply has, its end of turn among them.
        vocabulary: a hash of the LM's tokeniser. Ids mean the same where it is the same.
        pieces: what each of a reply's tokens stands for in UTF-8, where that was asked for.
        spelt: what each id in `packed` stands for, from the lowest id up, where that was asked for.
        prompt_tokens: what it took; everything was read, nothing written.
    """

    reveals: ClassVar[Access] = Access.LOGITS
    packed: bytes
    lengths: tuple[Annotated[int, msgspec.Meta(ge=0, le=1 << 24)], ...]
    vocabulary: str
    pieces: tuple[tuple[bytes, ...], ...] = ()
    spelt: tuple[bytes, ...] = ()
    prompt_tokens: int = 0

    def usage(self) -> tuple[int, int]:
        return self.prompt_tokens, 0

    def restated(self, tokens_in: int, tokens_out: int) -> Scores:
        return msgspec.structs.replace(self, prompt_tokens=tokens_in)


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
        return sum(_prompt_bound(i.chat, _bytes(i.reply)) for i in self.items), 0

    def check(self) -> None:
        if not self.temperature < math.inf:
            raise ValueError("temperature")

    def places_bound(self) -> int:
        """Upper bound on the tokens of all replies, the ends of their turns among them."""
        return sum(_bytes(i.reply) + _TURN for i in self.items)

    def reply_bound(self, tokens: int) -> int:
        # An id, its step and, in `spelt`, what it stands for; and each place's rest mass and own piece.
        return _FIELDS + self.places_bound() * (32 + self.top * (16 + _LONGEST_TOKEN * self.pieces))


class States(Message, frozen=True, kw_only=True):
    """How the LM represents texts.

    Attributes:
        packed: `boundary.wire.states.pack` of one state for each text, in their order.
        prompt_tokens: what it took; everything was read, nothing written.
    """

    reveals: ClassVar[Access] = Access.ACTIVATIONS
    packed: bytes
    prompt_tokens: int = 0

    def usage(self) -> tuple[int, int]:
        return self.prompt_tokens, 0

    def restated(self, tokens_in: int, tokens_out: int) -> States:
        return msgspec.structs.replace(self, prompt_tokens=tokens_in)


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
        return sum(_bytes(text) + _TURN for text in self.texts), 0

    def reply_bound(self, tokens: int) -> int:
        return _FIELDS + len(self.texts) * 2 * states.WIDEST


_TURN = 8
"""Tokens that a template puts around a turn, or a call in it."""

TEMPLATE = 128
"""Tokens of a chat's template beside its turns: some begin with instructions and a date."""

_FORMS = 512
"""Tokens that explain to a model how tools are called, or a form is filled."""

_LONGEST_TOKEN = 128
"""Bytes of a vocabulary's longest words, runs of spaces mostly."""

_FIELDS = 1024
"""Bytes of a reply besides what was written: names, numbers, the ids of calls."""


def _prompt_bound(chat: Chat, more: int) -> int:
    """Most tokens in `chat` and `more` bytes beside it."""
    # Byte-level tokenisers emit at most one token per byte, and come close to it on digits.
    size = more + TEMPLATE
    for turn in chat:
        size += _TURN + _bytes(turn.content)
        if turn.name or turn.tool_call_id or turn.extra:
            size += _bytes(turn.name) + _bytes(turn.tool_call_id) + _bytes(turn.extra)
        for call in turn.tool_calls:
            size += _TURN + _bytes(call.id) + _bytes(call.name)
            size += _bytes(call.arguments) + _bytes(call.extra)
        for _, text in turn.other_texts:
            size += _bytes(text)
    return size


def _bytes(text: str) -> int:
    """How many `text` has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def encode(message: Message) -> bytes:
    """`message` as tagged msgpack."""
    return _ENCODER.encode(message)


LARGEST = 1 << 28
"""Bytes of the largest message that is read."""


def decode(data: bytes) -> Message:
    """The message that `encode` made `data` from.

    Raises:
        UnexpectedReplyError: the bytes are not a known message, or what it says cannot be (an ε that is
            no number, a probability above 1); the text holds none of them.
    """
    if len(data) > LARGEST:
        raise UnexpectedReplyError(f"{len(data)} bytes are more than a message may have, {LARGEST}")
    try:
        message = _decoded(data)
        if not 0 <= message.epsilon < math.inf:
            raise ValueError("ε")
        message.check()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        what = type(error).__name__
        raise UnexpectedReplyError(f"{len(data)} bytes are not a known message ({what})") from None
    return message


def _decoded(data: bytes) -> Message:
    if _decoders:
        try:
            return _decoders[max(_decoders)].decode(data)
        except msgspec.DecodeError:
            pass  # perhaps a kind that a plug-in has added since
    return _decoder().decode(data)


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
