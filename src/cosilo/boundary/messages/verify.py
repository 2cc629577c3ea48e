"""A reply that the LM writes itself, a draft of what comes next at a time.

    Verify(chat, draft="The ref")  ──▶  "The re" and the LM's own next token, "turn": "The return"
    Verify(thread, draft=" was")   ──▶  " was" and one token more …

The LM chooses each token as it would alone, and looks at a draft only to see how much of it is what it
chose. So whatever is drafted, the reply is the LM's own, and nothing of its probabilities crosses. A
thread is named by a hash of its prompt and its tokens, which the reply says: the tokens are the LM's,
and so only its owner knows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import msgspec

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import FIELDS, LONGEST_TOKEN, TURN, in_utf8, prompt_bound
from cosilo.boundary.messages.passages import Change, Passage, in_chat
from cosilo.boundary.messages.step import NAME
from cosilo.errors import PrivacyError
from cosilo.models.base import Shows
from cosilo.types import Amount, Chat, Claim, Count, Sampling

LONGEST = 1 << 20
"""Characters of a draft."""


class Verified(Message, frozen=True, kw_only=True, rename={
    "thread": "t", "text": "x", "at": "n", "drafted": "d", "accepted": "a", "new": "i", "before": "c",
    "own": "o",
}):  # fmt: skip
    """What a reply goes on with.

    Attributes:
        thread: the name of the thread, with this; empty where the reply has ended.
        text: what is new of the reply; with `Verify.whole` all of it so far. Text that could be the
            beginning of a stop string, or of a character, comes with a later one.
        finish: why the reply has ended; empty where it goes on.
        at: tokens that the reply has so far.
        drafted, accepted: tokens of the draft, as the LM cuts it, and how many of them it wrote.
        vocabulary: of a thread just opened, a hash of the LM's tokeniser.
        new, before: tokens read, and of the thread those read for earlier messages.
        own: tokens written that were not drafted.
        took: seconds that it was worked on.
    """

    shows: ClassVar[Shows] = Shows.TEXT
    replaceable: ClassVar[bool] = True
    largest: ClassVar[int] = 1 << 24
    thread: Annotated[bytes, msgspec.Meta(max_length=NAME)] = b""
    text: str = ""
    finish: Literal["", "stop", "length"] = ""
    at: Count = 0
    drafted: Count = 0
    accepted: Count = 0
    vocabulary: Annotated[str, msgspec.Meta(max_length=64)] = ""
    new: Claim = 1
    before: Claim = 0
    own: Claim = 1
    took: Amount = 0.0

    def check(self) -> None:
        if self.accepted > self.drafted:
            raise ValueError("more than was drafted")
        if len(self.thread) not in (0, NAME):
            raise ValueError("a name")

    def with_passages(self, change: Change) -> Verified:
        text = self.text and change(Passage(self.text))
        return msgspec.structs.replace(self, text=text)

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Verified:
        """The reply ends here, with a lie."""
        return msgspec.structs.replace(self, text=lie(self.text), finish="stop", thread=b"")

    def usage(self) -> tuple[int, int]:
        return self.new + self.before, self.own

    def cached(self) -> int:
        return self.before

    def seconds(self) -> float:
        return self.took

    def written(self) -> int:
        return in_utf8(self.text)

    def restated(self, tokens_in: int, tokens_out: int) -> Verified:
        cached = max(0, min(self.before, tokens_in))
        return msgspec.structs.replace(self, new=tokens_in - cached, before=cached, own=tokens_out)


class Verify(Request[Verified], frozen=True, kw_only=True, rename={
    "thread": "t", "draft": "d", "held": "h", "whole": "w",
}):  # fmt: skip
    """What may come next in a reply, and the question what does.

    The LM goes on with as much of the draft as it would write itself, and with one token more.

    Attributes:
        thread: the name of the thread that this goes on; empty to open one.
        chat, sampling: what a thread that is opened is the reply to, and how that is drawn: by its
            temperature, top_p, seed, max_tokens and stop strings.
        draft: what may come behind the text that was told so far.
        held: tokens that the thread has so far, at most: so many may be billed as read before.
        whole: the chat goes with every message, the draft begins with all that was told of the reply,
            and all of it is told each time: a defence in between sees every value whole.
    """

    reply: ClassVar[type[Message]] = Verified
    shows: ClassVar[Shows] = Shows.TEXT
    replaceable: ClassVar[bool] = True
    largest: ClassVar[int] = 1 << 26
    on_threads: ClassVar[bool] = True
    thread: Annotated[bytes, msgspec.Meta(max_length=NAME)] = b""
    chat: Chat = ()
    sampling: Sampling = Sampling()
    draft: Annotated[str, msgspec.Meta(max_length=LONGEST)] = ""
    held: Count = 0
    whole: bool = False

    def check(self) -> None:
        if len(self.thread) not in (0, NAME):
            raise ValueError("a name")
        if not self.chat and (not self.thread or self.whole):
            raise ValueError("a reply to nothing")
        if self.chat and self.thread and not self.whole:
            raise ValueError("a thread is either gone on with, by its name, or opened with a chat")
        if self.sampling != asked_of(self.sampling):
            raise ValueError("a reply on a thread is drawn by fewer settings")

    def passages(self) -> list[Passage]:
        found: list[Passage] = []

        def note(passage: Passage) -> str:
            found.append(passage)
            return passage.text

        self._with(note)
        return found

    def with_passages(self, change: Change) -> Verify:
        """This message with other texts.

        Raises:
            PrivacyError: it is not `whole`: half of a value is nothing that one would know for private.
        """
        if not self.whole:
            raise PrivacyError(
                "a draft that comes without the reply before it cannot be looked through, so nothing "
                "was sent"
            )
        return self._with(change)

    def _with(self, change: Change) -> Verify:
        def stop(text: str) -> str:
            return change(Passage(text, "stop")) if text else text

        sampling = msgspec.structs.replace(self.sampling, stop=tuple(map(stop, self.sampling.stop)))
        draft = self.draft and change(Passage(self.draft, by="assistant"))
        chat = in_chat(self.chat, change)
        return msgspec.structs.replace(self, chat=chat, sampling=sampling, draft=draft)

    def tokens_bound(self) -> tuple[int, int]:
        drafted = in_utf8(self.draft)
        opened = prompt_bound(self.chat, drafted) if self.chat else 0
        return max(opened, self.held + drafted + TURN), 1

    def reply_bound(self, tokens: int) -> int:
        # With `whole` all that was told before stands in the draft.
        return FIELDS + tokens * LONGEST_TOKEN + in_utf8(self.draft) + HELD_BACK

    def drawn(self, reply: Message | None = None) -> Drawn:
        return Drawn()

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, Verified) and bool(reply.vocabulary) > bool(self.chat):
            raise ValueError("what was not asked for")


HELD_BACK = 4096
"""Bytes that may come later than they were written: beginnings of stop strings, mostly."""


def asked_of(sampling: Sampling) -> Sampling:
    """What of `sampling` a reply on a thread is drawn by."""
    return Sampling(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        stop=sampling.stop,
    )
