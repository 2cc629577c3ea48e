"""A reply that the LM writes, crossing by crossing: a draft goes up, and what the LM keeps of it comes
down with a token of its own.

    async for each in rounds(session, chat, drafter, count=6):
        each.said                                   # all of the reply that was told so far
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from time import perf_counter

from cosilo.boundary.messages import Verified, Verify
from cosilo.boundary.messages.verify import asked_of
from cosilo.errors import UnexpectedReplyError, UnknownThreadError
from cosilo.strategies.base import Session
from cosilo.strategies.drafting import Drafter, worded
from cosilo.types import Chat, Sampling


@dataclass(frozen=True)
class DraftedStep:
    """One crossing of a reply.

    Attributes:
        said: all that was told of the reply so far.
        draft_s, crossing_s: seconds for the draft, and for the message and its reply.
    """

    said: str
    reply: Verified
    draft_s: float
    crossing_s: float


async def rounds(
    session: Session,
    chat: Chat,
    drafter: Drafter,
    *,
    count: int,
    most: int = 0,
    told: Callable[[str], None] = lambda vocabulary: None,
) -> AsyncGenerator[DraftedStep, None]:
    """The reply to `chat`, drawn as the session says. Behind a defence every message says the whole of
    chat, reply and draft, and a draft ends with a word, so that no value crosses in parts.

    Args:
        count: tokens of a draft.
        most: where more than 0, a draft that was kept whole is followed by one of two tokens more, up
            to so many, and another by one of one less.
        told: given a hash of the LM's tokeniser where the thread is opened.

    Raises:
        UnexpectedReplyError: the reply does not come on.
        and what `Channel.send` and `told` raise.
    """
    whole, limit = session.defended, session.sampling.max_tokens
    thread, said, known, at, held, forgotten = b"", "", "", 0, 0, 0
    while forgotten <= limit:
        started = perf_counter()
        if len(known) > len(said) and known.startswith(said):
            draft = known[len(said) :]  # told before the thread was forgotten
        else:
            draft = await drafter.draft(said, at, min(count, max(1, limit - at - 1)))
        drafted = perf_counter()
        opens = not thread
        message = Verify(
            thread=thread,
            chat=chat if opens or whole else (),
            sampling=asked_of(session.sampling) if opens or whole else Sampling(),
            draft=said + worded(draft) if whole else draft,
            held=held,
            whole=whole,
        )
        try:
            reply = await session.lm.send(message)
        except UnknownThreadError:
            if opens:
                raise
            thread, said, known, at, held = b"", "", max(known, said, key=len), 0, 0
            forgotten += 1
            continue
        crossed = perf_counter()
        if whole and not opens and reply.vocabulary:
            at = 0  # the LM's owner had forgotten the thread, and has begun it again
        full = reply.finish == "length" and reply.at == at > 0  # no room for a token more
        came = full or at < reply.at <= limit
        if not came or bool(reply.thread) == bool(reply.finish):
            raise UnexpectedReplyError("a reply did not come on by a token at least")
        if reply.vocabulary:
            told(reply.vocabulary)
        said = reply.text if whole else said + reply.text
        thread, at, held = reply.thread, reply.at, sum(reply.usage())
        yield DraftedStep(said, reply, drafted - started, crossed - drafted)
        if reply.finish:
            return
        if most and reply.drafted:
            right = reply.accepted == reply.drafted
            count = min(count + 2, most) if right else max(1, count - 1)
    raise UnexpectedReplyError("the LM's owner forgets every thread, so no reply comes on")
