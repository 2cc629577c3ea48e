"""What an LM's owner lets the other side see, checked before it works and again in what it answers."""

from __future__ import annotations

from typing import Protocol

from msgspec.structs import replace

from cosilo.boundary.messages import Message
from cosilo.boundary.transports.base import Handles
from cosilo.errors import CapabilityError
from cosilo.models.base import Shows, TextModel, goes_on
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


def requires_threads(peer: Peer, *, by: str) -> None:
    """Refuse a large model of this house that cannot go on from what it has read; whether one elsewhere
    can is known there.

    Raises:
        CapabilityError: it cannot.
    """
    party: object = peer
    while (inner := getattr(party, "inner", None)) is not None:
        party = inner
    model: TextModel | None = getattr(party, "model", None)
    if model is not None and not goes_on(model):
        raise CapabilityError(
            f"{by} needs a large model that keeps what it has read; {model.name!r} does not (the torch "
            "and llamacpp back ends do, also behind a `cosilo host`)"
        )


def shown(delta: Delta, exposes: Shows) -> Delta:
    """A piece of a reply in words, without the log-probabilities that its owner does not show."""
    return replace(delta, tokens=()) if delta.tokens and Shows.LOGPROBS not in exposes else delta
