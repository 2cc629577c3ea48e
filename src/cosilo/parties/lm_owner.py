"""The party with the large model: it serves messages and keeps its weights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from cosilo.boundary.messages import Ask, Message
from cosilo.models.base import Shows, TextModel
from cosilo.parties.bodies import ClientBodies
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.exposure import permit, shown
from cosilo.parties.forgets import ForgetBook, MemoryForgets
from cosilo.parties.joint import JointRuns
from cosilo.parties.serving import answer, pieces
from cosilo.parties.threads import Threads
from cosilo.types import Delta, closing


@dataclass(frozen=True)
class LMOwner:
    """Serves `model`, as far as it `exposes` it.

    Attributes:
        exposes: a request for more is refused, and what a back end shows unasked (token
            log-probabilities) is left out of the reply.
        client: whom it serves, where there are several: each has threads of its own.
        federation: the one that it coordinates, if it does.
        threads: those under way; one table for all clients keeps them within one limit.
        bodies: the adapters that it trains on its layers for clients; it trains none when unset.
        joint: the joint computations that it takes part in; a table of the model's own when unset.
        forgets: what it notes of requests to forget.
    """

    model: TextModel
    exposes: Shows = Shows.TEXT
    name: str = "lm-owner"
    client: str = ""
    federation: Federation | None = field(default=None, repr=False, compare=False)
    threads: Threads = field(default_factory=Threads, repr=False, compare=False)
    bodies: ClientBodies | None = field(default=None, repr=False, compare=False)
    joint: JointRuns | None = field(default=None, repr=False, compare=False)
    forgets: ForgetBook = field(default_factory=MemoryForgets, repr=False, compare=False)

    async def handle(self, message: Message) -> Message:
        """The reply to `message`.

        Raises:
            CapabilityError: it shows more than this owner exposes, or nothing serves such messages.
        """
        permit(message, self.exposes, by=self.name)
        return (await answer(self, message)).shown(self.exposes)

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        permit(ask, self.exposes, by=self.name)
        async with closing(pieces(self, ask)) as deltas:
            async for delta in deltas:
                yield shown(delta, self.exposes)
