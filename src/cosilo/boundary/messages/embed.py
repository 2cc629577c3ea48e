"""Texts, and the vectors that the LM's owner makes of them for comparing texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS, TURN, in_utf8
from cosilo.boundary.messages.passages import Change, Passage
from cosilo.models.base import Array, Shows
from cosilo.types import Claim

WIDEST = 1 << 14
"""Numbers in a vector wider than any there is."""

MOST = 2048
"""Texts in one request, as OpenAI has it."""


class Embeddings(Message, frozen=True, kw_only=True):
    """Vectors of texts, in their order.

    Attributes:
        packed: one row for each text, little-endian float32, as the model's owner gave them.
        prompt_tokens: what it took; everything was read, nothing written.
        attempts: how many of the times that the request was sent may have been worked on.
    """

    shows: ClassVar[Shows] = Shows.STATES
    largest: ClassVar[int] = 1 << 28
    packed: bytes
    prompt_tokens: Claim = 0
    attempts: Claim = 1

    def rows(self, count: int) -> Array:
        """The vectors of `count` texts, shape (count, width).

        Raises:
            ValueError: the bytes are not so many vectors, or hold what is no number.
        """
        if not self.packed or len(self.packed) % (4 * count):
            raise ValueError("vectors of another number of texts")
        found: Array = np.frombuffer(self.packed, "<f4").reshape(count, -1)
        if found.shape[1] > WIDEST or not np.isfinite(found).all():
            raise ValueError("no vectors")
        return found

    def passages(self) -> list[Passage]:
        return []  # numbers, about texts that went up

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Embeddings:
        """Each text's vector is that of the text before it; a lone one is turned around."""
        count = len(request.passages())
        found = self.rows(count)
        swapped = np.roll(found, 1, axis=0) if count > 1 else -found
        return msgspec.structs.replace(self, packed=swapped.tobytes())

    def usage(self) -> tuple[int, int]:
        return self.prompt_tokens, 0

    def sent(self) -> int:
        return self.attempts

    def restated(self, tokens_in: int, tokens_out: int) -> Embeddings:
        return msgspec.structs.replace(self, prompt_tokens=tokens_in)


class Embed(Request[Embeddings], frozen=True, kw_only=True):
    """Texts that the LM's owner is asked to turn into vectors.

    A text with placeholders in it is of nearly the same use: texts that name the same value still come
    to lie close together, as it is the same placeholder in all of them.

    Attributes:
        dimensions: how many numbers a vector is wanted to have; as many as the model makes, when unset.
    """

    reply: ClassVar[type[Message]] = Embeddings
    shows: ClassVar[Shows] = Shows.STATES
    replaceable: ClassVar[bool] = True
    largest: ClassVar[int] = 1 << 26
    texts: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MOST)]
    dimensions: Annotated[int, Meta(ge=1, le=WIDEST)] | None = None

    def with_passages(self, change: Change) -> Embed:
        # Of no turn: all of one caller's requests are one conversation, so that a question's vector
        # can be compared with those of texts that were embedded before.
        return msgspec.structs.replace(
            self, texts=tuple(change(Passage(text)) for text in self.texts)
        )

    def tokens_bound(self) -> tuple[int, int]:
        return sum(in_utf8(text) + TURN for text in self.texts), 0

    def runs(self) -> int:
        return len(self.texts)

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn(states=len(self.texts))

    def prompts(self) -> Sequence[object]:
        return self.texts

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, Embeddings):
            width = reply.rows(len(self.texts)).shape[1]
            if self.dimensions not in (None, width):
                raise ValueError("vectors of another length")

    def reply_bound(self, tokens: int) -> int:
        return FIELDS + len(self.texts) * 4 * (self.dimensions or WIDEST)
