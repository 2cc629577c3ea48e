"""A vector goes up that its reader cannot read, and logits come down that their maker cannot.

    data owner: ──AskHead──▶ LM's owner         which encoder its head is for
                ◀──HeadDescribed──
                ──EvaluationKeys──▶              in parts, once: to compute with, not to read
                ◀──KeysTaken──
                ──EncryptedVector──▶             of one text
                ◀──EncryptedLogits──             for the data owner's secret key alone

The data owner reads logits, and sends nothing of them back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar

import msgspec

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS, TURN
from cosilo.boundary.messages.passages import Passage
from cosilo.models.base import Shows
from cosilo.types import Amount, Count

PART = 15 << 16
"""Bytes of keys in one message: with what is around them below a mebibyte, the most that aiohttp sends
at once without complaint."""

_PARTS = 68

MOST_KEYS = _PARTS * PART
"""Bytes that keys of one name may have."""

MOST_LABELS = 1 << 12
"""That a head may tell apart."""

_VECTOR, _LOGITS = 1 << 19, 1 << 18  # bytes of a ciphertext with two primes, and with one

Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""A SHA-256."""

Encoder = Annotated[str, msgspec.Meta(max_length=256)]


class HeadDescribed(Message, frozen=True, kw_only=True):
    """What a head is for.

    Attributes:
        labels: that it tells apart, in the order of its logits.
        inputs: numbers in a vector.
        left: of how many more vectors this client may have the logits.
    """

    shows: ClassVar[Shows] = Shows.HEAD
    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MOST_LABELS)]
    inputs: Annotated[int, msgspec.Meta(ge=1, le=MOST_LABELS)]
    left: Count

    def passages(self) -> list[Passage]:
        return [Passage(label, "label") for label in self.labels]

    def tampered(self, request: Message, lie: Callable[[str], str]) -> HeadDescribed:
        """Each label stands where the next one stood."""
        return msgspec.structs.replace(self, labels=(*self.labels[1:], self.labels[0]))


class AskHead(Request[HeadDescribed], frozen=True, kw_only=True):
    """Asks what the LM owner's head tells apart.

    Attributes:
        encoder: the identity of the one that the data owner's vectors come from.
    """

    reply: ClassVar[type[Message]] = HeadDescribed
    shows: ClassVar[Shows] = Shows.HEAD
    encoder: Encoder

    def passages(self) -> list[Passage]:
        return []  # a public model's name

    def tokens_bound(self) -> tuple[int, int]:
        return TURN, 0

    def reply_bound(self, tokens: int) -> int:
        return HeadDescribed.largest

    def question(self) -> Mapping[str, object] | None:
        return None  # `left` is of the moment

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn()

    def prompts(self) -> Sequence[object]:
        return ()


class KeysTaken(Message, frozen=True, kw_only=True):
    """A part of the keys was taken.

    Attributes:
        whole: all are there now.
    """

    shows: ClassVar[Shows] = Shows.HEAD
    whole: bool

    def passages(self) -> list[Passage]:
        return []

    def tampered(self, request: Message, lie: Callable[[str], str]) -> KeysTaken:
        return self  # an owner who has them not says so at the next vector


class EvaluationKeys(Request[KeysTaken], frozen=True, kw_only=True):
    """A part of the keys that a vector of this client's is computed on with. Nothing is read with them.

    Attributes:
        name: the SHA-256 of all parts together.
        part, parts: which of how many, from 0; all have `PART` bytes but the last.
        turning: how many bytes of all parts are the keys that turn ciphertexts; the rest is the public
            key.
    """

    reply: ClassVar[type[Message]] = KeysTaken
    shows: ClassVar[Shows] = Shows.HEAD
    largest: ClassVar[int] = PART + (1 << 16)
    name: Digest
    part: Annotated[int, msgspec.Meta(ge=0, lt=_PARTS)]
    parts: Annotated[int, msgspec.Meta(ge=1, le=_PARTS)]
    turning: Annotated[int, msgspec.Meta(ge=0, le=MOST_KEYS)]
    packed: Annotated[bytes, msgspec.Meta(min_length=1)]

    def passages(self) -> list[Passage]:
        return []  # random numbers

    def check(self) -> None:
        last = self.part == self.parts - 1
        if self.part >= self.parts or not (len(self.packed) == PART or last):
            raise ValueError("part")

    def tokens_bound(self) -> tuple[int, int]:
        return TURN, 0

    def reply_bound(self, tokens: int) -> int:
        return FIELDS

    def question(self) -> Mapping[str, object] | None:
        return None  # other keys each time

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn()

    def prompts(self) -> Sequence[object]:
        return ()


class EncryptedLogits(Message, frozen=True, kw_only=True):
    """Logits that the data owner alone can read.

    Attributes:
        packed: a ciphertext, as SEAL writes it.
        took: CPU seconds of the LM owner's, as it says.
    """

    shows: ClassVar[Shows] = Shows.HEAD
    largest: ClassVar[int] = _LOGITS
    packed: bytes
    took: Amount = 0.0

    def passages(self) -> list[Passage]:
        return []

    def tampered(self, request: Message, lie: Callable[[str], str]) -> EncryptedLogits:
        """Bytes turned around: no ciphertext, which is noticed. Other logits under the data owner's
        public key are not."""
        return msgspec.structs.replace(self, packed=self.packed[::-1])

    def seconds(self) -> float:
        return self.took


class EncryptedVector(Request[EncryptedLogits], frozen=True, kw_only=True):
    """A text's vector, encrypted for the data owner's own secret key.

    It says nothing of the text to whoever has not that key, so that reading its passages, of which
    there are none, is reading all that it says (under the assumption that CKKS rests on: ring learning
    with errors, at 128 bits).

    Attributes:
        keys: the name of those that it can be computed on with.
        packed: a ciphertext, as SEAL writes it.
    """

    reply: ClassVar[type[Message]] = EncryptedLogits
    shows: ClassVar[Shows] = Shows.HEAD
    largest: ClassVar[int] = _VECTOR
    keys: Digest
    packed: bytes

    def passages(self) -> list[Passage]:
        return []

    def tokens_bound(self) -> tuple[int, int]:
        return TURN, 0

    def reply_bound(self, tokens: int) -> int:
        return EncryptedLogits.largest

    def question(self) -> Mapping[str, object] | None:
        return None  # encrypted anew each time; what was answered could not be read with other keys

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn(logits=1)

    def prompts(self) -> Sequence[object]:
        return ()
