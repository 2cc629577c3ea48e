"""Replies, and what the LM would have said in place of their tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import msgspec

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS, LONGEST_TOKEN, TURN, in_utf8, prompt_bound
from cosilo.boundary.messages.lend import AdapterName
from cosilo.boundary.messages.passages import Passage, in_order
from cosilo.boundary.wire import logits
from cosilo.models.base import Shows
from cosilo.types import Chat, Claim, Many, Value


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

    shows: ClassVar[Shows] = Shows.LOGITS
    largest: ClassVar[int] = 1 << 28
    packed: bytes
    lengths: Many[Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]]
    vocabulary: str
    pieces: Many[Many[bytes]] = ()
    spelt: Many[bytes] = ()
    prompt_tokens: Claim = 0

    def passages(self) -> list[Passage]:
        return []  # numbers, about texts that went up

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Scores:
        """The same tokens at each place, the likeliest of them now the least likely."""
        top = logits.unpack(self.packed)
        ends = top.logprobs.max(axis=1) + top.logprobs.min(axis=1)
        turned = ends[:, None] - top.logprobs
        inverted = replace(top, logprobs=turned if top.ids is not None else turned[:, ::-1])
        return msgspec.structs.replace(self, packed=logits.pack(inverted))

    def usage(self) -> tuple[int, int]:
        return self.prompt_tokens, 0

    def places(self) -> int:
        return sum(self.lengths)

    def restated(self, tokens_in: int, tokens_out: int) -> Scores:
        return msgspec.structs.replace(self, prompt_tokens=tokens_in)


class Score(Request[Scores], frozen=True, kw_only=True):
    """Replies that the LM is asked to give its next-token probabilities for, word by word.

    Attributes:
        top: how many of the most probable tokens are wanted at each place.
        temperature: what the logits are divided by before anything else.
        ids: say which tokens they are; without, only their sorted probabilities come.
        pieces: say how the LM cuts the replies into tokens, and what the ids stand for.
        adapter: as in `Ask`.
    """

    reply: ClassVar[type[Message]] = Scores
    shows: ClassVar[Shows] = Shows.LOGITS
    largest: ClassVar[int] = 1 << 26
    items: Annotated[tuple[Scored, ...], msgspec.Meta(min_length=1, max_length=1 << 20)]
    top: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)] = 64
    temperature: Annotated[float, msgspec.Meta(gt=0, le=sys.float_info.max)] = 1.0
    ids: bool = True
    pieces: bool = False
    adapter: AdapterName = ""

    def passages(self) -> list[Passage]:
        """Not replaceable: the probabilities would be those of another text than the small model
        learns from."""
        found: list[Passage] = []
        for item in self.items:
            found += in_order(item.chat)
            found += [Passage(item.reply, by="assistant")] if item.reply else []
        return found

    def tokens_bound(self) -> tuple[int, int]:
        return sum(prompt_bound(i.chat, in_utf8(i.reply)) for i in self.items), 0

    def runs(self) -> int:
        return len(self.items)

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, Scores):
            if len(reply.lengths) != len(self.items):
                raise ValueError("not the scores of each reply")
            if (reply.pieces or reply.spelt) and not self.pieces:
                raise ValueError("pieces that were not asked for")
            if sum(reply.lengths) > self.places_bound():
                raise ValueError("more places than the replies can have")

    def places_bound(self) -> int:
        """Upper bound on the tokens of all replies, the ends of their turns among them."""
        return sum(in_utf8(i.reply) + TURN for i in self.items)

    def drawn(self, reply: Message | None = None) -> Drawn:
        places = sum(reply.lengths) if isinstance(reply, Scores) else self.places_bound()
        return Drawn(logits=places * self.top)

    def prompts(self) -> Sequence[object]:
        return self.items

    def reply_bound(self, tokens: int) -> int:
        # An id, its step and, in `spelt`, what it stands for; and each place's rest mass and own piece.
        return FIELDS + self.places_bound() * (32 + self.top * (16 + LONGEST_TOKEN * self.pieces))
