"""What selection works on: one operating point with everything that was measured of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cosilo.errors import ConfigError
from cosilo.objectives.base import Floats, Measurement, Objective
from cosilo.registry import unknown


@dataclass(frozen=True)
class Point:
    """A strategy with its settings and defences.

    Attributes:
        id: content hash.
        name: unique and readable, e.g. "cascade calls=0.4 + pseudonym".
        validation: objective name → its measurement on the validation split: what points are
            compared by.
        test: the same on the test split: reported, never used to choose.
        certificate: objective name → its values on the certificate split, one per item the
            objective applies to (`Measure.values`); same items, same order for all points.
    """

    id: str
    name: str
    strategy: str
    defences: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    validation: Mapping[str, Measurement] = field(default_factory=dict)
    test: Mapping[str, Measurement] = field(default_factory=dict)
    certificate: Mapping[str, Floats] = field(default_factory=dict)


def named(points: Iterable[Point], name: str) -> Point:
    """The point called `name`.

    Raises:
        ConfigError: there is none; the message gives the nearest name.
    """
    known = {point.name: point for point in points}
    if name not in known:
        raise ConfigError(unknown("point", name, known))
    return known[name]


def objectives_of(points: Sequence[Point]) -> dict[str, Objective]:
    """Every objective measured on the validation split of some point, by name."""
    return {
        name: measurement.objective
        for point in points
        for name, measurement in point.validation.items()
    }
