"""What an LM's owner lets the other side see, checked before it works and again in what it answers."""

from __future__ import annotations

from typing import Protocol, TypeVar

from msgspec.structs import replace

from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.boundary.transports.base import Handles
from cosilo.errors import CapabilityError
from cosilo.models.base import Access
from cosilo.types import Delta, Generation

Reply = TypeVar("Reply", Generation, Delta)


class Peer(Handles, Protocol):
    """The other side as a session is opened with it: it answers messages, and says what it shows."""

    @property
    def name(self) -> str: ...
    @property
    def exposes(self) -> Access: ...


def permit(message: Message, exposes: Access, *, by: str) -> None:
    """Refuse a message whose reply would show more than the owner called `by` exposes.

    Raises:
        CapabilityError: it would.
    """
    if message.reveals > exposes:
        raise CapabilityError(
            f"{by} exposes {exposes.name.lower()} and does not serve {type(message).__name__}"
        )
    if isinstance(message, Ask) and message.sampling.top_logprobs and exposes < Access.LOGPROBS:
        raise CapabilityError(
            f"{by} exposes {exposes.name.lower()}: log-probabilities were asked for"
        )


def shown(reply: Message, exposes: Access) -> Message:
    """`reply` without what a back end says unasked and its owner does not show."""
    if isinstance(reply, Completion):
        generation = shown_words(reply.generation, exposes)
        if generation is not reply.generation:
            return replace(reply, generation=generation)
    return reply


def shown_words(said: Reply, exposes: Access) -> Reply:
    """The same for a reply in words, or a piece of one: log-probabilities are left out."""
    return replace(said, tokens=()) if said.tokens and exposes < Access.LOGPROBS else said
