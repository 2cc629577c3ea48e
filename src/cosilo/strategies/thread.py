"""A thread with the LM, as a strategy holds it: it sends what is new and keeps track of the rest.

    thread = Thread(session.lm, chat, small)
    said = await thread.go_on()                     # the likeliest tokens after the prompt
    said = await thread.go_on([said.likeliest])     # … after one token more

Tokens go as text, which the LM's owner cuts in the same way where it has the same vocabulary: ids are
text that no guard and no measure of leaks can read. Only parts of a character, which are no text, go as
ids; all tokens do with `ids=True`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from msgspec.structs import replace

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages.step import Step, Steps, ThreadName
from cosilo.boundary.wire.logits import TopK, unpack
from cosilo.errors import CapabilityError, UnexpectedReplyError, UnknownThreadError
from cosilo.models.base import Words, canonical, whole_tokens
from cosilo.types import Chat


@dataclass(frozen=True, eq=False)
class ThreadReply:
    """What the LM says at the places that were asked about.

    Attributes:
        top: the likeliest tokens; one place, behind what is new and behind what was accepted of the
            draft; with `each` one behind what is new, and one behind every drafted token.
        accepted: how many of the drafted tokens, as the LM cuts them, it would have written itself.
        lengths: the bytes of each drafted token.
        back: bytes of the reply in front of the draft that belong to its first token.
        spelt: what each id in `top` stands for, where that was asked for.
    """

    top: TopK
    accepted: int = 0
    lengths: tuple[int, ...] = ()
    back: int = 0
    spelt: dict[int, bytes] = field(default_factory=dict)

    @property
    def likeliest(self) -> int:
        """The likeliest token at the last place."""
        assert self.top.ids is not None
        return int(self.top.ids[-1, np.argmax(self.top.logprobs[-1])])

    @property
    def agreed(self) -> int:
        """How many bytes of the draft were accepted."""
        return sum(self.lengths[: self.accepted])


class Thread:
    """A reply to `chat` that grows, and what the LM thinks of it.

    Args:
        words: of the strategy's own model; without them only text can be said.
        top: how many of the likeliest tokens are wanted at each place.
        ids: send tokens as ids where the vocabulary is the same. No measure of leaks has a number then.

    Attributes:
        text: the reply so far, in UTF-8; it may end within a character.
        shared: whether the LM has the vocabulary of `words`; None before the first reply.
        ends: the LM's tokens that end a reply; empty before the first reply.
    """

    def __init__(
        self,
        channel: Channel,
        chat: Chat,
        words: Words | None = None,
        *,
        top: int = 64,
        ids: bool = False,
    ) -> None:
        self.text = b""
        self.shared: bool | None = None
        self.ends: frozenset[int] = frozenset()
        self._channel = channel
        self._chat = chat
        self._words = words
        self._top = top
        self._as_ids = ids
        self._begin = ThreadName(chat)
        self._ids: list[int] = []  # the reply's tokens as they were said
        self._told = b""  # the text that the LM's owner has of the thread, drafts included
        self._places: list[int] = []  # where in it the thread has a name there, ascending
        self._held = 0

    async def go_on(
        self,
        new: Sequence[int] | str = "",
        draft: Sequence[int] | str = "",
        *,
        each: bool = False,
        spell: bool = False,
    ) -> ThreadReply:
        """Add `new` to the reply, and ask what comes then, and how much of `draft` would.

        The draft is not added. What of it is to stay is part of `new` the next time, and is not sent
        again. A thread that the LM's owner has forgotten is sent whole, once.

        Args:
            new, draft: tokens of a vocabulary that both sides share, or text. A draft begins and ends
                between two characters.
            each: ask for the place behind every drafted token.
            spell: ask what the ids stand for.

        Raises:
            CapabilityError: tokens, and the LM has another vocabulary; or a draft beside half a
                character.
            UnexpectedReplyError: the reply does not fit what was asked.
            and what `Channel.send` raises.
        """
        added, pieces = self._tokens(new)
        self.text += new.encode() if isinstance(new, str) else b"".join(pieces)
        self._ids += added
        if isinstance(new, str) and new and self._words is not None:
            self._ids = list(self._words.cut(self._decoded(self.text))[0])
        drafted, pieces = self._tokens(draft)
        tail = draft.encode() if isinstance(draft, str) else b"".join(pieces)
        asked = Step(chat=self._chat, top=self._top, each=each, spell=spell)
        step = self._filled(asked, drafted, tail)
        try:
            steps = await self._channel.send(step)
        except UnknownThreadError:
            self._told, self._places = b"", []
            step = self._filled(asked, drafted, tail)
            steps = await self._channel.send(step)
        if step.chat:
            self.shared = self._words is not None and steps.vocabulary == self._words.vocabulary
            self.ends = frozenset(steps.ends)
            if (self._ids and not isinstance(new, str)) or drafted:
                self._require_shared()
        said = _said(steps, step, tail, [len(piece) for piece in pieces])
        seen = len(said.lengths) if each else said.accepted
        same = _alike(self._told, self.text)
        places = {0, *(p for p in self._places if p <= same)}
        places.update(accumulate(said.lengths[:seen], initial=len(self.text)))
        self._told, self._places = self.text + tail, sorted(places)
        self._held = sum(steps.usage())
        return said

    def _tokens(self, said: Sequence[int] | str) -> tuple[list[int], list[bytes]]:
        """The tokens that are said, and what each stands for behind the reply so far."""
        if isinstance(said, str) or not said:
            return [], []
        self._require_shared()
        assert self._words is not None
        return list(said), list(self._words.spelt([*self._ids, *said])[len(self._ids) :])

    def _require_shared(self) -> None:
        if self._words is None or self.shared is False:
            raise CapabilityError(
                "tokens can be said to a large model that has the vocabulary of one's own; say text"
            )

    def _filled(self, asked: Step, drafted: Sequence[int], tail: bytes) -> Step:
        """`asked`, with what the LM's owner has not got of the reply and of the draft."""
        same = _alike(self._told, self.text)
        known = [p for p in self._places if p <= same] or [0]
        words = self._words
        if self._as_ids and self.shared and words and canonical(words, [*self._ids, *drafted]):
            ends = [0, *accumulate(map(len, words.spelt(self._ids)))]
            at = max(p for p in known if p in ends)
            found = replace(asked, ids=tuple(self._ids[ends.index(at) :]), draft_ids=tuple(drafted))
            return self._named(found, at, words.vocabulary)
        whole, parts = self._whole()
        if parts and tail:
            raise CapabilityError("a draft cannot stand behind half a character: ask without one")
        at = max(p for p in known if p <= whole and self._between(p))
        found = replace(
            asked,
            text=self._decoded(self.text[at:whole]),
            ids=parts,
            partial=bool(parts),
            draft=self._decoded(tail),
        )
        return self._named(found, at, words.vocabulary if words and parts else "")

    def _named(self, step: Step, at: int, vocabulary: str) -> Step:
        """`step` behind the first `at` bytes of the reply; one that opens the thread where it has no
        name yet."""
        if not self._places:
            return replace(step, vocabulary=vocabulary)
        name = bytes(self._begin.after(self.text[:at]))
        return replace(step, chat=(), thread=name, held=self._held)

    def _whole(self) -> tuple[int, tuple[int, ...]]:
        """How much of the reply is whole characters, and the tokens behind it that are not."""
        try:
            self.text.decode()
            return len(self.text), ()
        except UnicodeDecodeError:
            assert self._words is not None  # a text that was said as text is whole
            pieces = self._words.spelt(self._ids)
            count = whole_tokens(pieces)
            if count is None:
                raise CapabilityError("the tokens that were said are no text") from None
            return len(b"".join(pieces[:count])), tuple(self._ids[count:])

    def _between(self, at: int) -> bool:
        """Whether the place is between two characters."""
        return at == len(self.text) or self.text[at] & 0xC0 != 0x80

    def _decoded(self, text: bytes) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise CapabilityError(
                "text cannot go on within a character, nor end within one: say tokens up to its end"
            ) from None


def _said(steps: Steps, step: Step, tail: bytes, lengths: Sequence[int]) -> ThreadReply:
    """What `steps` says, where it fits `step`, whose draft was `tail`, of tokens of `lengths`.

    Raises:
        UnexpectedReplyError: it does not.
    """
    cut = tuple(lengths) if step.draft_ids else steps.lengths
    fits = sum(cut) == len(tail) and all(cut) and steps.accepted <= len(cut)
    places = 1 + len(cut) * step.each
    top = unpack(steps.packed, most=places * step.top)
    if not fits or top.ids is None or len(top) != places:
        raise UnexpectedReplyError("a step was answered for another draft than was asked about")
    named = np.unique(top.ids).tolist() if step.spell else []
    if len(named) != len(steps.spelt):
        raise UnexpectedReplyError("a step's ids were not all spelt, as was asked for")
    spelt = dict(zip(named, steps.spelt, strict=True))
    return ThreadReply(top, steps.accepted, cut, steps.back, spelt)


def _alike(a: bytes, b: bytes) -> int:
    """How many bytes both begin with."""
    same = min(len(a), len(b))
    if a[:same] == b[:same]:
        return same
    return next(i for i in range(same) if a[i] != b[i])
