"""What a run is judged by. Importing this package registers every objective it holds."""

from __future__ import annotations

from dataclasses import replace

from cosilo.objectives import efficiency, exposure, integrity, membership, privacy, utility
from cosilo.objectives.base import Floats, Measurement, Run, objectives
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
    run = replace(run, entries=reading(run))
    found = [objectives.create(name)(run) for name in objectives.names()]
    measured = [m for m in found if m is not None]
    return tuple(sorted(measured, key=_place))


def _place(measurement: Measurement) -> tuple[int, bool, str]:
    objective = measurement.objective
    return _FAMILIES.index(objective.family), objective.name not in _CHIEF, objective.name


def item_values(run: Run) -> dict[str, Floats]:
    """Objective name → its values, one per item it applies to: what a certificate tests."""
    if not run.items:
        return {}
    run = replace(run, entries=reading(run))
    found = {name: objectives.create(name).values(run) for name in objectives.names()}
    return {name: values for name, values in found.items() if values is not None}
