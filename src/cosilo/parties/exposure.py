"""What an LM's owner lets the other side see, checked before it works and again in what it answers."""

from __future__ import annotations

from typing import Protocol

from msgspec.structs import replace

from cosilo.boundary.messages import Message
from cosilo.boundary.transports.base import Handles
from cosilo.errors import CapabilityError
from cosilo.models.base import Shows
from cosilo.types import Delta


class Peer(Handles, Protocol):
    """The other side as a session is opened with it: it answers messages, and says what it shows."""

    @property
    def name(self) -> str: ...
    @property
    def exposes(self) -> Shows: ...


def permit(message: Message, exposes: Shows, *, by: str) -> None:
    """Refuse a message whose reply would show more than the owner called `by` exposes.

    Raises:
        CapabilityError: it would.
    """
    wanted = message.wants()
    if wanted not in exposes:
        raise CapabilityError(
            f"{by} exposes {exposes} and does not serve {type(message).__name__} messages that ask for "
            f"{wanted & ~exposes}"
        )


def shown(delta: Delta, exposes: Shows) -> Delta:
    """A piece of a reply in words, without the log-probabilities that its owner does not show."""
    return replace(delta, tokens=()) if delta.tokens and Shows.LOGPROBS not in exposes else delta
