"""A large model and a small one that learn from each other, on data that their owner holds.

a round's adapter of the small model ──exchange──▶ that adapter, which has learned from the large model
                  an adapter of the large model ──▶ that adapter, which has learned from the small one
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from cosilo.models.base import Array, Tokens
from cosilo.types import Chat


@dataclass(frozen=True)
class PublicExample:
    """A chat and what is right to reply."""

    chat: Chat
    target: str


@dataclass(frozen=True, eq=False)
class Exchanged:
    """What came of an exchange.

    Attributes:
        small, large: the adapters' matrices, by name, see `models.low_rank`.
        losses: "small" and "large" → the loss at the first and at the last step, in nats.
    """

    small: Mapping[str, Array]
    large: Mapping[str, Array]
    losses: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class TaughtLesson:
    """A reply, and what a teacher would have said at some of its places.

    Attributes:
        places: which of the reply's tokens, shape (m,).
        ids, logprobs: tokens of the student's, ascending, and how likely they are, shape (m, k).
        rest: log of what all others have, shape (m,).
        size: of the student's vocabulary.
    """

    tokens: Tokens
    places: NDArray[np.int64]
    ids: NDArray[np.int32]
    logprobs: Array
    rest: Array
    size: int

    @property
    def digest(self) -> str:
        """A hash of all of it but the reply."""
        found = hashlib.sha256(f"{self.size} {self.logprobs.shape}".encode())
        for array in (self.places, self.ids, self.logprobs, self.rest):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:16]


class MutualModel(Protocol):
    """A large model that learns from a small one, and teaches it."""

    @property
    def small_base(self) -> str:
        """The digest of the small model that adapters are for; see `white_box.adapters.base_digest`."""

    @property
    def settings(self) -> str:
        """A hash of all that decides what comes of an exchange, besides its arguments."""

    def exchange(
        self,
        number: int,
        small: Mapping[str, Array],
        scale: float,
        large: Mapping[str, Array] | None,
        folder: Path | None,
    ) -> Exchanged:
        """Both learn from the other as it was before; the same arguments give the same to the bit.

        Args:
            number: of the round, from 1.
            small: the adapter of the small model.
            scale: what its product is multiplied by.
            large: the adapter of the large one; None before the first round.
            folder: where a training that was killed goes on from.

        Raises:
            ModelError: a loss is not finite.
            StoreError: `folder` cannot be written.
        """

    def keep_adapter(self, large: Mapping[str, Array], folder: Path) -> None:
        """Write the adapter of the large model where it can be opened from.

        Raises:
            StoreError: it cannot be written.
        """


def exchanges(model: object) -> TypeGuard[MutualModel]:
    """Whether it learns from a small model; asked of its class, as it may have to be loaded."""
    return hasattr(type(model), "exchange")


class TaughtModel(Protocol):
    """A large model that learns from what others would say of public examples, and says so itself."""

    @property
    def public(self) -> Sequence[PublicExample]: ...

    @property
    def sequences(self) -> Sequence[Tokens]:
        """The public examples as its tokens."""

    @property
    def settings(self) -> str:
        """A hash of all that decides what it learns, besides the arguments."""

    @property
    def vocabulary(self) -> str:
        """A hash of its tokeniser."""

    @property
    def vocabulary_size(self) -> int: ...

    def piece(self, token: int) -> bytes:
        """What a token stands for."""

    def tokenize(self, chat: Chat, reply: str) -> Tokens:
        """Prompt and reply as the model sees them."""

    def predictions(self, large: Mapping[str, Array] | None) -> Iterator[Array]:
        """The logits that predicted each public target's tokens, (tokens, vocabulary_size).

        Args:
            large: the adapter that it predicts with; None for none.
        """

    def learn(
        self,
        number: int,
        lessons: Sequence[TaughtLesson],
        large: Mapping[str, Array] | None,
        folder: Path | None,
    ) -> Mapping[str, Array]:
        """The adapter once it has learned; the same arguments give the same to the bit.

        Args:
            number: of the round, from 1.
            lessons: of what others know better; where there are none the adapter stays as it is.
            large: the adapter before; None before the first round.
            folder: where a training that was killed goes on from.

        Raises:
            ModelError: a loss is not finite.
            StoreError: `folder` cannot be written.
        """

    def keep_adapter(self, large: Mapping[str, Array], folder: Path) -> None:
        """Write the adapter where it can be opened from.

        Raises:
            StoreError: it cannot be written.
        """


def is_taught(model: object) -> TypeGuard[TaughtModel]:
    """Whether it learns from others' opinions; asked of its class, as it may have to be loaded."""
    return hasattr(type(model), "learn") and hasattr(type(model), "predictions")
