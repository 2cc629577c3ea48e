"""What a record says that another party has of the data owner, by the names that party knows it by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cosilo.boundary.messages import (
    Body,
    Contribute,
    Forget,
    Masked,
    Message,
    OpenBody,
    PluggedIn,
    Tuned,
)
from cosilo.boundary.messages.body import BodyVersion
from cosilo.boundary.messages.forget import InFederation, in_parts
from cosilo.boundary.record.ledger import Entry
from cosilo.errors import CosiloError


@dataclass(frozen=True)
class HeldElsewhere:
    """Names of what one party has.

    Attributes:
        requests: ids on the network.
        federations: with the rounds that updates were given for.
        adapters, bodies: names of those that are this owner's.
    """

    requests: tuple[str, ...] = ()
    federations: tuple[InFederation, ...] = ()
    adapters: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ()

    def asked(self, forget: str) -> list[Forget]:
        """The messages that ask for all of it to be forgotten; none where there is nothing."""
        return in_parts(
            forget,
            requests=self.requests,
            federations=self.federations,
            adapters=self.adapters,
            bodies=self.bodies,
        )


def held_elsewhere(network: Iterable[Entry], crossed: Iterable[Entry]) -> HeldElsewhere:
    """What the party behind these entries has.

    Args:
        network: of the record of what went over the network to it (`parties.remote.NETWORK`), whose
            requests are ids there; none for a party in this process.
        crossed: of the record of messages to it and back. What is kept as a digest alone, or was
            forgotten, names nothing.
    """
    up = (entry for entry in network if entry.direction == "up")
    ids = {entry.request for entry in up if entry.kind != Forget.__name__}
    rounds: dict[str, set[int]] = {}
    adapters, bodies = set(), set()
    opened: dict[tuple[str, int], OpenBody] = {}
    for entry in crossed:
        match _message(entry):
            case Contribute() | Masked() as gave:
                rounds.setdefault(gave.federation, set()).add(gave.number)
            case PluggedIn() | Tuned() as told:
                adapters.add(told.name)
            case OpenBody(train=True) as asked:
                opened[entry.chain, entry.number] = asked
            case Body() as said if entry.answers is not None:
                if (opening := opened.get((entry.chain, entry.answers))) is not None:
                    bodies.add(bytes(BodyVersion.first(opening, said)).hex())
    federations = [InFederation(federation=f, rounds=tuple(sorted(n))) for f, n in rounds.items()]
    return HeldElsewhere(
        tuple(sorted(ids)),
        tuple(sorted(federations, key=lambda each: each.federation)),
        tuple(sorted(adapters)),
        tuple(sorted(bodies)),
    )


_KINDS = frozenset(kind.__name__ for kind in (Contribute, Masked, PluggedIn, Tuned, OpenBody, Body))


def _message(entry: Entry) -> Message | None:
    if entry.kind not in _KINDS:
        return None
    try:
        return entry.message
    except CosiloError:
        return None
