"""A run's operating points on two objectives, as the gateway's page draws them. Not a verb."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosilo.gateway.ui.data import Front


def front_of(path: Path) -> Front | None:
    """What the run in the folder `path` measured: utility against what a request costs.

    The numbers are those of the validation split, which fronts are made of everywhere. None when
    no finished point has both.

    Raises:
        ConfigError: there is no run.
        StoreError: its files cannot be read.
    """
    from cosilo.benchmark.results import compared, opened
    from cosilo.gateway.ui.data import Front, ObjectiveAxis, PointMark
    from cosilo.selection import objectives_of, pareto_front

    with opened(path) as results:
        names = compared(results.points)
        if len(names) < 2 or names[0] != "utility":
            return None
        cost = names[-1]
        points = [p for p in results.points if {"utility", cost} <= p.validation.keys()]
        if not points:
            return None
        known = objectives_of(points)
        best = {p.id for p in pareto_front(points, [cost, "utility"])}
    axes = [ObjectiveAxis(name, known[name].unit, known[name].goal) for name in (cost, "utility")]
    marks = [
        PointMark(p.name, p.validation[cost].value, p.validation["utility"].value, p.id in best)
        for p in points
    ]
    return Front(axes[0], axes[1], marks)
