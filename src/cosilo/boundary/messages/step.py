"""A thread: a conversation with the LM, token by token, in which nothing is sent twice.

    Step(chat)                  ──▶  the likeliest tokens after the prompt
    Step(thread, "ref")         ──▶  … after "ref": the LM's owner still has what it computed before
    Step(thread, draft="und is")──▶  … and how much of the draft the LM would have written itself

A thread is named by the hash of all its content. So a name means the same whatever happened before, and
an owner that has forgotten the thread needs but the content again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import msgspec

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS, LONGEST_TOKEN, TURN, in_utf8, prompt_bound
from cosilo.boundary.messages.passages import Passage, in_order
from cosilo.boundary.wire import logits
from cosilo.models.base import Shows
from cosilo.types import Chat, Claim, Count, Many

NAME = 16
"""Bytes of a thread's name."""

_CHAT = msgspec.msgpack.Encoder()

Token = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]
DRAFTED = 512
"""Tokens of a draft at most."""


class ThreadName:
    """What a thread is called: a hash of its chat and of the bytes of the reply so far.

    It does not depend on the steps in which these came, nor on how they are cut into tokens.
    """

    def __init__(self, chat: Chat) -> None:
        # Encoded, a chat says where it ends, so no two contents give the same bytes.
        self._hash = hashlib.blake2b(_CHAT.encode(chat), digest_size=NAME, person=b"cosilo thread")

    def __bytes__(self) -> bytes:
        return self._hash.digest()

    def after(self, text: bytes) -> ThreadName:
        """The name when the reply has gone on with `text`."""
        found = ThreadName.__new__(ThreadName)
        found._hash = self._hash.copy()
        found._hash.update(text)
        return found


class Steps(Message, frozen=True, kw_only=True, rename={
    "packed": "p", "accepted": "a", "lengths": "l", "back": "b", "spelt": "s", "new": "n",
    "before": "c",
}):  # fmt: skip
    """What the LM says at the places that a `Step` is about.

    The first place is behind what is new (in front of the first drafted token); with `Step.each` there
    is one behind every drafted token too; without it the only place is behind those accepted.

    Attributes:
        packed: `boundary.wire.logits.pack_few` of the places; each place's likeliest token is a step
            above all others.
        accepted: how many of the drafted tokens, from the first on, are the likeliest where they stand.
        lengths: the bytes of each drafted token, where the draft came as text.
        back: bytes in front of the draft that belong to its first token; the first place is in front of
            these. More than 0 only where a draft that came as text goes on with a word begun before.
        spelt: what each id in `packed` stands for, from the lowest id up, where that was asked for.
        vocabulary: of a thread just opened, a hash of the LM's tokeniser. Ids mean the same where it is
            the same.
        ends: of a thread just opened, the tokens that end a reply.
        new: tokens of the thread that came with this step.
        before: tokens that it had already.
    """

    shows: ClassVar[Shows] = Shows.LOGITS
    largest: ClassVar[int] = 1 << 28
    packed: bytes
    accepted: Count = 0
    lengths: Many[Count] = ()
    back: Count = 0
    spelt: Many[bytes] = ()
    vocabulary: str = ""
    ends: Many[Token] = ()
    new: Claim = 1
    before: Claim = 0

    def passages(self) -> list[Passage]:
        return []  # numbers, about texts that went up

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Steps:
        """The same tokens at each place, the likeliest of them now the least likely; and a draft that
        was refused is accepted, one that was accepted refused."""
        top = logits.unpack(self.packed)
        ends = top.logprobs.max(axis=1) + top.logprobs.min(axis=1)
        inverted = replace(top, logprobs=ends[:, None] - top.logprobs)
        drafted = len(request.draft_ids) or len(self.lengths) if isinstance(request, Step) else 0
        return msgspec.structs.replace(
            self, packed=logits.pack_few(inverted), accepted=0 if self.accepted else drafted
        )

    def places(self) -> int:
        return logits.places_in(self.packed)

    def usage(self) -> tuple[int, int]:
        return self.new + self.before, 0

    def cached(self) -> int:
        return self.before

    def restated(self, tokens_in: int, tokens_out: int) -> Steps:
        cached = max(0, min(self.before, tokens_in))
        return msgspec.structs.replace(self, new=tokens_in - cached, before=cached)


class Step(Request[Steps], frozen=True, kw_only=True, rename={
    "thread": "t", "ids": "i", "draft_ids": "d", "held": "h", "top": "k", "partial": "u",
    "text": "x", "each": "e",
}):  # fmt: skip
    """What is new on a thread, and what is asked about it.

    What is new is sent as text, which the LM's owner cuts into tokens, or as ids, where both sides have
    the same vocabulary. Ids that are not how their text is cut are refused.

    Attributes:
        thread: the name of the thread that this goes on; empty to open one.
        chat: what a thread that is opened is the reply to.
        vocabulary: of a step that opens a thread with ids, whose ids they are.
        text, ids: the reply's next part, as one or the other.
        draft, draft_ids: what may come after it, to be checked; as the part before it is sent.
        partial: `ids` are parts of one character behind `text`, which are no text yet.
        held: tokens that the thread has so far, at most: so many may be billed as read before.
        top: how many of the likeliest tokens are wanted at each place.
        each: whether the place behind every drafted token is wanted, whatever was accepted before it.
        spell: whether to say what the ids stand for.
    """

    reply: ClassVar[type[Message]] = Steps
    shows: ClassVar[Shows] = Shows.LOGITS
    largest: ClassVar[int] = 1 << 26
    on_threads: ClassVar[bool] = True
    thread: Annotated[bytes, msgspec.Meta(max_length=NAME)] = b""
    chat: Chat = ()
    vocabulary: Annotated[str, msgspec.Meta(max_length=64)] = ""
    text: str = ""
    ids: Many[Token] = ()
    draft: str = ""
    draft_ids: Annotated[tuple[Token, ...], msgspec.Meta(max_length=DRAFTED)] = ()
    held: Count = 0
    top: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 64
    partial: bool = False
    each: bool = False
    spell: bool = False

    def check(self) -> None:
        if len(self.thread) not in (0, NAME) or bool(self.thread) == bool(self.chat):
            raise ValueError("a thread is either gone on with, by its name, or opened with a chat")
        if self.partial and (not self.ids or self.draft or self.draft_ids):
            raise ValueError("parts of a character")
        if (self.text or self.draft) and (self.ids or self.draft_ids) and not self.partial:
            raise ValueError("text and ids")
        if self.chat and (self.ids or self.draft_ids) and not self.vocabulary:
            raise ValueError("ids of no vocabulary")
        if len(self.draft) > DRAFTED * LONGEST_TOKEN:
            raise ValueError("draft")

    def passages(self) -> list[Passage]:
        """Not replaceable: the probabilities would be those of another text than the strategy goes on
        with. Ids are no text; see `legible`."""
        said = [Passage(text, by="assistant") for text in (self.text, self.draft) if text]
        return in_order(self.chat) + said

    def legible(self) -> bool:
        return self.partial or not (self.ids or self.draft_ids)

    def brought(self) -> int:
        """Upper bound on the tokens in what is new and drafted."""
        return in_utf8(self.text) + len(self.ids) + in_utf8(self.draft) + len(self.draft_ids)

    def tokens_bound(self) -> tuple[int, int]:
        if self.chat:
            return prompt_bound(self.chat, self.brought()), 0
        return self.held + self.brought() + TURN, 0

    def places_bound(self) -> int:
        """Upper bound on the places that the reply is about."""
        return 1 + (in_utf8(self.draft) + len(self.draft_ids)) * self.each

    def drawn(self, reply: Message | None = None) -> Drawn:
        places = self.places_bound()
        if isinstance(reply, Steps) and self.each:
            places = 1 + (len(self.draft_ids) or len(reply.lengths))
        return Drawn(logits=places * self.top)

    def prompts(self) -> Sequence[object]:
        return (self.chat,) if self.chat else ()

    def check_reply(self, reply: Message) -> None:
        if not isinstance(reply, Steps):
            return
        drafted = len(self.draft_ids) or len(reply.lengths)
        if sum(reply.lengths) != in_utf8(self.draft) or not all(reply.lengths):
            raise ValueError("not the lengths of what was drafted")
        if reply.accepted > drafted or (reply.back and not self.draft):
            raise ValueError("more than was drafted")
        if bool(reply.spelt) > self.spell or bool(reply.vocabulary or reply.ends) > bool(self.chat):
            raise ValueError("what was not asked for")

    def reply_bound(self, tokens: int) -> int:
        # An id, its step and what it stands for; each drafted token's length; a place's rest mass.
        each = 32 + self.top * (16 + (LONGEST_TOKEN + 5) * self.spell)
        return FIELDS + 5 * in_utf8(self.draft) + self.places_bound() * each
