"""A client's own adapter on the LM's layers, which its owner trains from the gradients that come.

    OpenBody(base, layers) ──▶ Body(how it will be trained)      version 0, the model as it is
    Backward(body = k)     ──▶ Gradients                         version k + 1

A version is named by what made it: the model, the owner's settings, and every gradient since. So both
sides know what it is called without being told, a step that is sent once more leads to the version that
is there already, and neither side can go on with another one than it means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

import msgspec

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS
from cosilo.boundary.messages.forward import Backward, Layer, Version
from cosilo.boundary.messages.passages import Passage
from cosilo.models.base import Shows
from cosilo.privacy.mechanisms import Positive

_STEP, _HASH = 4, 16
_PERSON = b"cosilo body"

Digest = Annotated[bytes, msgspec.Meta(max_length=32)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]


class BodyVersion:
    """Attributes:
    step: how many steps were taken.
    """

    def __init__(self, step: int, digest: bytes) -> None:
        self.step = step
        self._digest = digest

    @classmethod
    def first(cls, asked: OpenBody, said: Body) -> Self:
        """Version 0 of what was opened so."""
        about = (
            f"{asked.base.hex()} {asked.first} {asked.last} {asked.seed} {asked.training.hex()} "
            f"{said.rank} {said.learning_rate!r} {said.clip!r}"
        )
        return cls(0, _hashed(about.encode()))

    @classmethod
    def named(cls, name: bytes) -> Self:
        """The version of that name.

        Raises:
            ValueError: it is no name of one.
        """
        if len(name) != _STEP + _HASH:
            raise ValueError(f"{len(name)} bytes name no version of an adapter")
        return cls(int.from_bytes(name[:_STEP]), name[_STEP:])

    def __bytes__(self) -> bytes:
        return self.step.to_bytes(_STEP) + self._digest

    def after(self, step: Backward) -> BodyVersion:
        """The version that a `Backward` on this one leads to."""
        about = f"{step.thread.hex()} {step.codec} {step.back} {step.width}|".encode()
        return BodyVersion(self.step + 1, _hashed(self._digest + about + step.packed))


class Body(Message, frozen=True, kw_only=True):
    """How the adapter that was opened will be trained, as the LM's owner decides.

    Attributes:
        layers: how many the model has.
        rank: of its matrices; 0 where none was asked for.
        learning_rate: of each step.
        clip: gradients of its weights are scaled down to this norm.
    """

    shows: ClassVar[Shows] = Shows.GRADIENTS
    layers: Layer
    rank: Layer = 0
    learning_rate: Positive = 1.0
    clip: Positive = 1.0

    def passages(self) -> list[Passage]:
        return []  # numbers

    def tampered(self, request: Message, lie: object) -> Body:
        """Nothing to gain: another version than this would be unknown at the next step."""
        return self


class OpenBody(Request[Body], frozen=True, kw_only=True):
    """Begin an adapter of this client's own on the LM's layers behind the first `first`, up to the
    first `last`; or only ask whether the model is the same.

    Attributes:
        base: a hash of the model and its tokeniser, as the client has them.
        training: what tells this adapter from others with the same layers.
        seed: of the weights that it begins with.
        train: without it, none is begun.
        at: the version that the client has come to; empty to begin anew.
    """

    reply: ClassVar[type[Message]] = Body
    shows: ClassVar[Shows] = Shows.GRADIENTS
    base: Digest
    first: Layer
    last: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
    training: Version = b""
    seed: Seed = 0
    train: bool = True
    at: Version = b""

    def passages(self) -> list[Passage]:
        return []  # hashes and numbers

    def question(self) -> Mapping[str, object] | None:
        return None  # what follows needs an owner that has it

    def tokens_bound(self) -> tuple[int, int]:
        return 1, 0

    def reply_bound(self, tokens: int) -> int:
        return FIELDS

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn()

    def prompts(self) -> Sequence[object]:
        return ()

    def check(self) -> None:
        if not self.first < self.last or len(self.at) not in (0, _STEP + _HASH):
            raise ValueError("layers or version")


def _hashed(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_HASH, person=_PERSON).digest()
