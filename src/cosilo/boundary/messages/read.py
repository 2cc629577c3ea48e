"""Texts, and how the LM represents them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS, TURN, in_utf8
from cosilo.boundary.messages.passages import Passage
from cosilo.boundary.wire import states
from cosilo.models.base import Shows
from cosilo.types import Claim, Count


class States(Message, frozen=True, kw_only=True):
    """How the LM represents texts.

    Attributes:
        packed: `boundary.wire.states.pack` of one state for each text, in their order.
        prompt_tokens: what it took; everything was read, nothing written.
    """

    shows: ClassVar[Shows] = Shows.STATES
    largest: ClassVar[int] = 1 << 28
    packed: bytes
    prompt_tokens: Claim = 0

    def passages(self) -> list[Passage]:
        return []  # numbers, about texts that went up

    def tampered(self, request: Message, lie: Callable[[str], str]) -> States:
        """Each text's state is that of the text before it; a lone one is turned around."""
        count = len(request.passages())
        found = states.unpack(self.packed, count)
        swapped = np.roll(found, 1, axis=0) if count > 1 else -found
        return msgspec.structs.replace(self, packed=states.pack(swapped))

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
    shows: ClassVar[Shows] = Shows.STATES
    largest: ClassVar[int] = 1 << 26
    texts: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1 << 20)]
    layer: Count | None = None

    def passages(self) -> list[Passage]:
        """Not replaceable: the states would be those of other texts."""
        return [Passage(text) for text in self.texts]

    def tokens_bound(self) -> tuple[int, int]:
        return sum(in_utf8(text) + TURN for text in self.texts), 0

    def runs(self) -> int:
        return len(self.texts)

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn(states=len(self.texts))

    def prompts(self) -> Sequence[object]:
        return self.texts

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, States) and len(reply.packed) % (2 * len(self.texts)):
            raise ValueError("hidden states of another number of texts")

    def reply_bound(self, tokens: int) -> int:
        return FIELDS + len(self.texts) * 2 * states.WIDEST
