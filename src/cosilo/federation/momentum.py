"""How far a federation goes where a round's updates lead: a step of the server's own, with momentum.

    v ← m v + (what the rule made − where the round began)        where the next one begins ← + η v

FedAvgM (Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", arXiv 1909.06335). Owners that know few classes each pull to their own; what such
pulls have in common over rounds adds up in v, and the rest takes turns and cancels out.

The last v is (where this round began − where the last one did) / η, so it is written nowhere: whoever
has the adapters of two rounds goes on as if it had never stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cosilo.federation.rules import Aggregate
from cosilo.federation.updates import Floats, Tensors


@dataclass(frozen=True)
class ServerStep:
    """What is made of a rule's result before owners go on from it.

    Attributes:
        momentum: m, how much of the last step comes again in this one; 0 for none.
        rate: η, how far a step goes; 1 for all the way to what the rule made.

    Raises:
        ValueError: m is not from 0 to below 1, or η not positive and finite.
    """

    momentum: float = 0.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum = {self.momentum!r} is not from 0 to below 1")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"server_rate = {self.rate!r} is not positive and finite")

    @property
    def whole(self) -> bool:
        """Whether what the rule made is what owners go on from, to the bit."""
        return self.momentum == 0 and self.rate == 1

    def __call__(self, made: Aggregate, before: Tensors, earlier: Tensors | None) -> Aggregate:
        """What owners go on from, as `made` with other tensors.

        Args:
            made: what the rule made; `made.error` stays what the rule did.
            before: what owners began the round with.
            earlier: what they began the round before that with; None in the first round.

        Raises:
            ValueError: the rule's result is added to weights, so that there is no way to it from
                `before`; or the three have other shapes.
        """
        if self.whole:
            return made
        if made.adds:
            raise ValueError("a result that is added to weights has no way that a step could go on")
        known = (made.tensors, before, before if earlier is None else earlier)
        first, *others = ({name: t.shape for name, t in some.items()} for some in known)
        if any(other != first for other in others):
            raise ValueError("a round's result has other shapes than what the rounds began with")
        found: dict[str, Floats] = {}
        for name in sorted(made.tensors):
            start = before[name].astype(np.float64)
            stepped = start + self.rate * (made.tensors[name] - start)
            if earlier is not None:
                stepped += self.momentum * (start - earlier[name])  # η m v, whatever η is
            with np.errstate(over="ignore"):  # what has no room is looked for by whoever keeps it
                found[name] = np.asarray(stepped, np.float32)
        return replace(made, tensors=found)
