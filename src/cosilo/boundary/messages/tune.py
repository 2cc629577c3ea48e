"""The data owner says what is right of texts that may cross; the LM's owner tunes an adapter on that.

    data owner: ──Tune──▶ LM's owner      chats, and of each how likely each of the choices is right,
                ◀──Tuned──                or a reply and how much it is worth: the name to ask by

An adapter is the data owner's alone, as with `PlugIn`. The same request is the same adapter: it is
trained once, also where it is sent again after a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar

import msgspec

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS, in_utf8, prompt_bound
from cosilo.boundary.messages.passages import Change, Passage, in_chat
from cosilo.models.base import Shows
from cosilo.types import Chat, Claim

MOST = 1 << 14
"""Lessons in one request."""

WHOLE = 1000
"""What is certain, as a share."""

Share = Annotated[int, msgspec.Meta(ge=0, le=WHOLE)]

_Nats = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Tuned(Message, frozen=True, kw_only=True):
    """An adapter was trained.

    Attributes:
        name: what to ask by.
        first, last: the loss at the first and at the last step, in nats, as the LM's owner says.
        prompt_tokens: what was read in training; nothing is written.
    """

    shows: ClassVar[Shows] = Shows.TEXT
    largest: ClassVar[int] = 1 << 16
    name: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    first: _Nats = 0.0
    last: _Nats = 0.0
    prompt_tokens: Claim = 0

    def passages(self) -> list[Passage]:
        return []  # a hash, and numbers

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Tuned:
        return self  # whatever name it is, what answers by it is looked at

    def usage(self) -> tuple[int, int]:
        return self.prompt_tokens, 0

    def restated(self, tokens_in: int, tokens_out: int) -> Tuned:
        return msgspec.structs.replace(self, prompt_tokens=tokens_in)


class Tune(Request[Tuned], frozen=True, kw_only=True):
    """Lessons for an adapter of the LM.

    What it says of a text besides the text is a number for each choice, or one for its reply: made by
    the data owner's model of the text as it is at home, whatever stands in its place here.

    Attributes:
        chats: of each lesson.
        choices: a closed set of replies; empty where each lesson has a reply of its own.
        replies: those, as many as chats; empty where there are choices.
        shares: of each lesson, how likely each choice is right, or how much its reply is worth; only
            proportions count, within a lesson or among all replies.
        steps, batch, learning_rate, rank, seed: of the training; the LM's owner limits them.
        confidence: with choices, the share that the LM's own opinion has in what it learns, once
            `warmup` of the steps are done (Burns et al., arXiv 2312.09390, 4.3).
        again: it was sent before, and the owner has the adapter no longer; so whatever is on record is
            no answer to this.
    """

    reply: ClassVar[type[Message]] = Tuned
    shows: ClassVar[Shows] = Shows.TEXT
    replaceable: ClassVar[bool] = True
    largest: ClassVar[int] = 1 << 26
    chats: Annotated[tuple[Chat, ...], msgspec.Meta(min_length=1, max_length=MOST)]
    choices: Annotated[tuple[str, ...], msgspec.Meta(max_length=1 << 10)] = ()
    replies: Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST)] = ()
    shares: Annotated[
        tuple[Annotated[tuple[Share, ...], msgspec.Meta(min_length=1, max_length=1 << 10)], ...],
        msgspec.Meta(min_length=1, max_length=MOST),
    ]
    steps: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    batch: Annotated[int, msgspec.Meta(ge=1, le=1 << 10)]
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)]
    rank: Annotated[int, msgspec.Meta(ge=1, le=1 << 12)]
    seed: Annotated[int, msgspec.Meta(ge=0, le=1 << 32)] = 0
    confidence: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    warmup: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    again: bool = False

    def fault(self) -> str:
        """What does not fit together in it; empty where all does."""
        if bool(self.choices) == bool(self.replies):
            return "lessons have choices, or replies of their own, and not both"
        if self.replies and len(self.replies) != len(self.chats):
            return f"{len(self.chats)} chats have {len(self.replies)} replies"
        if self.choices and not 2 <= len(set(self.choices)) == len(self.choices):
            return "the choices are fewer than two, or one stands there twice"
        width = len(self.choices) or 1
        if len(self.shares) != len(self.chats) or any(len(row) != width for row in self.shares):
            return f"of {len(self.chats)} lessons not {width} shares each are given"
        if not (all if self.choices else any)(any(row) for row in self.shares):
            return "of a lesson, or of all replies, every share is 0"
        return ""

    def with_passages(self, change: Change) -> Tune:
        def at(passage: Passage) -> str:
            return change(passage) if passage.text else passage.text

        return msgspec.structs.replace(
            self,
            chats=tuple(in_chat(chat, change) for chat in self.chats),
            choices=tuple(at(Passage(choice, "label")) for choice in self.choices),
            replies=tuple(at(Passage(reply, by="assistant")) for reply in self.replies),
        )

    def tokens_bound(self) -> tuple[int, int]:
        shared = sum(in_utf8(choice) + 1 for choice in self.choices)
        own = [in_utf8(reply) + 1 for reply in self.replies] or [shared] * len(self.chats)
        # Asked before `fault` is, too, where there may be fewer replies than chats.
        once = sum(prompt_bound(chat, more) for chat, more in zip(self.chats, own, strict=False))
        return once * -(-self.steps * self.batch // len(self.chats)), 0

    def runs(self) -> int:
        return self.steps * self.batch

    def question(self) -> Mapping[str, object] | None:
        return None if self.again else super().question()

    def reply_bound(self, tokens: int) -> int:
        return FIELDS

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn()

    def prompts(self) -> Sequence[object]:
        return self.chats
