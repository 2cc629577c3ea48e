"""What comes of a round: its updates put together, from where the rounds before it had led."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cosilo.boundary.wire import tensors
from cosilo.federation.rules import Aggregate
from cosilo.federation.updates import OwnerUpdate, Tensors, pairs_of
from cosilo.models.low_rank import Layers
from cosilo.parties.coordinating.book import ClosedRound, KeptUpdate, Member
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.coordinating.updates import unpacked


@dataclass(frozen=True)
class RoundResults:
    """How updates of adapters, or of scalars, become what owners go on from.

    Attributes:
        layers: of the base model.
        closed: what came of a round before; None where it has not closed.
    """

    settings: FederationSettings
    layers: Layers
    closed: Callable[[int], ClosedRound | None]

    def before(self, number: int) -> Tensors:
        """What owners began the round with: those of the largest rank, where there are several."""
        settings = self.settings
        found = self.closed(number - 1)
        if found is None or found.adds:
            return settings.first(self.layers)
        return unpacked(found.packed, settings.shapes(self.layers, found.rank), settings.codec)

    def began(self, number: int) -> tuple[Tensors, Tensors | None]:
        """What owners began the round with, and the one before it, where that is looked at."""
        looked_at = number > 1 and self.settings.momentum > 0
        return self.before(number), self.before(number - 1) if looked_at else None

    def made(
        self, number: int, kept: Sequence[KeptUpdate], members: Mapping[str, Member]
    ) -> Aggregate:
        """What the rule makes of a round's updates.

        Raises:
            ValueError: nothing.
        """
        settings = self.settings
        updates = [
            OwnerUpdate(
                u.owner,
                float(members[u.owner].examples or 1) if settings.counts else 1.0,
                unpacked(u.packed or b"", settings.shapes(self.layers, u.rank), settings.codec),
            )
            for u in kept
        ]
        before, earlier = self.began(number)
        return settings.stepped(settings.made_rule()(updates, before), before, earlier)

    def packed(self, made: Aggregate, kept: Sequence[KeptUpdate]) -> ClosedRound:
        """As it is kept, and told.

        Raises:
            ValueError: it holds what has no room in its codec.
        """
        settings = self.settings
        data = tensors.pack(made.tensors, settings.codec)
        rank = settings.rank
        if settings.method == "adapter":
            rank = max(len(a) for a, _ in pairs_of(made.tensors).values())
        return ClosedRound(data, rank, made.adds, made.error, tuple(u.owner for u in kept))
