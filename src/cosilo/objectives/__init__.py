"""What a run is judged by. Importing this package registers every objective it holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cosilo.objectives import (
    efficiency,
    exposure,
    integrity,
    membership,
    privacy,
    selective,
    updates,
    utility,
)
from cosilo.objectives.base import Floats, Measure, Measurement, Run, objectives
from cosilo.objectives.reading import reading
from cosilo.objectives.reliability import Reliability, reliability
from cosilo.objectives.scoring import attacked

__all__ = [
    "Reliability",
    "attacked",
    "efficiency",
    "exposure",
    "integrity",
    "item_values",
    "measure_all",
    "membership",
    "privacy",
    "reliability",
    "selective",
    "updates",
    "utility",
]

_FAMILIES = ("utility", "privacy", "efficiency", "exposure", "integrity")
_CHIEF = ("utility", "privacy", "usd_per_1k", "exposure", "integrity")


def measure_all(run: Run) -> tuple[Measurement, ...]:
    """Every objective that `run` has anything to measure on, by family, each family's chief first.

    The record is read a few times in all, however many objectives there are. A run without items
    measures nothing.
    """
    if not run.items:
        return ()
    run = _read_once(run)
    found = [_measured(objectives.create(name), run) for name in objectives.names()]
    measured = [m for m in found if m is not None]
    return tuple(sorted(measured, key=_place))


def _read_once(run: Run) -> Run:
    sides = {name: replace(side, entries=reading(side)) for name, side in run.sides.items()}
    return replace(run, entries=reading(run), sides=sides)


_CURIOUS = ("privacy", "exposure")
"""What one party learns of another: of several other sides each is a party of its own."""


def _measured(measure: Measure, run: Run) -> Measurement | None:
    """The number; where there are several other sides, and it is what one party learns, that of the
    single one for which it is worst. What all of them learn together stands beside it."""
    objective = measure.objective
    whole = measure(run)
    if objective.family not in _CURIOUS or not run.sides or whole is None:
        return whole
    found = {name: m for name, side in run.sides.items() if (m := measure(side)) is not None}
    if not found:
        return whole
    worst = max if objective.goal == "min" else min
    name = worst(found, key=lambda name: found[name].value)
    beside = (
        f"{name}, the worst of {len(run.sides)} other sides; all together: {whole.value:.3g} "
        f"[{whole.low:.3g}, {whole.high:.3g}]"
    )
    if all(m == whole for m in found.values()):
        beside = f"the same for each of {len(run.sides)} other sides and for all together"
    return replace(found[name], note="; ".join(filter(None, (found[name].note, beside))))


def _values(measure: Measure, run: Run) -> Floats | None:
    """The values for the certificate: of several other sides, item by item that of the worst."""
    objective = measure.objective
    if objective.family not in _CURIOUS or not run.sides:
        return measure.values(run)
    found = [v for side in run.sides.values() if (v := measure.values(side)) is not None]
    worst = np.maximum if objective.goal == "min" else np.minimum
    return worst.reduce(found) if found else None


def _place(measurement: Measurement) -> tuple[int, bool, str]:
    objective = measurement.objective
    return _FAMILIES.index(objective.family), objective.name not in _CHIEF, objective.name


def item_values(run: Run) -> dict[str, Floats]:
    """Objective name → its values, one per item it applies to: what a certificate tests."""
    if not run.items:
        return {}
    run = _read_once(run)
    found = {name: _values(objectives.create(name), run) for name in objectives.names()}
    return {name: values for name, values in found.items() if values is not None}
