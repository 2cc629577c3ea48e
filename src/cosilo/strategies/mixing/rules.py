"""How one distribution is made of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cosilo.strategies.mixing.gate import Gate, seen_at_home, seen_of_both
from cosilo.strategies.mixing.numbers import Row

_MOST = 50.0  # by which one token's log-probability is moved where a model holds it impossible


@dataclass(frozen=True)
class Difference:
    """log p + α (log p⁺ − log p⁻), of models at home p⁺ and p⁻."""

    alpha: float
    prior: ClassVar[int] = 1

    def asks(self, homes: Sequence[Row]) -> bool:
        return True

    def alone(self, homes: Sequence[Row]) -> Row:
        return homes[0]

    def joined(self, large: Row, homes: Sequence[Row]) -> Row:
        with np.errstate(invalid="ignore"):
            moved = homes[0] - homes[1]
        return large + self.alpha * np.nan_to_num(moved, nan=0.0, posinf=_MOST, neginf=-_MOST)


@dataclass(frozen=True)
class Weighed:
    """w p + (1 − w) p of home: a share of each, `weight` everywhere or what `gate` says of a place."""

    weight: float
    gate: Gate | None = None
    prior: ClassVar[int] = 0

    def asks(self, homes: Sequence[Row]) -> bool:
        return True

    def alone(self, homes: Sequence[Row]) -> Row:
        return homes[0]

    def joined(self, large: Row, homes: Sequence[Row]) -> Row:
        share = self.weight
        if self.gate is not None:
            share = float(self.gate(seen_of_both(large, homes[0])[None])[0])
        with np.errstate(divide="ignore"):
            found: Row = np.logaddexp(np.log(share) + large, np.log1p(-share) + homes[0])
        return found


@dataclass(frozen=True)
class Deferred:
    """The model at home, but where `gate` gives the large one more than `threshold`, that one alone."""

    gate: Gate
    threshold: float
    prior: ClassVar[int] = 0

    def asks(self, homes: Sequence[Row]) -> bool:
        return float(self.gate(seen_at_home(homes[0])[None])[0]) > self.threshold

    def alone(self, homes: Sequence[Row]) -> Row:
        return homes[0]

    def joined(self, large: Row, homes: Sequence[Row]) -> Row:
        return large
