"""What a plan loads: known before anything runs, so that nothing is missing half way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cosilo.attacks
import cosilo.objectives
import cosilo.tasks  # noqa: F401 — these packages register what they hold
from cosilo.attacks.base import attacks
from cosilo.benchmark.plan import Plan
from cosilo.objectives.base import objectives
from cosilo.registry import Loads
from cosilo.session import loads_of
from cosilo.tasks.kinds import kinds


def running(plan: Plan) -> Loads:
    """What running `plan` loads: its data, its models, its points, the search; then `scoring` it."""
    used = [m for m in (plan.small, *plan.peers.values(), plan.embedder) if m is not None]
    points = [*plan.points, *(space.lowest for space in plan.spaces)]
    found = kinds.loads(plan.task.kind, plan.task.options) | loads_of(used, points)
    if any(Path(name).suffix.lower() == ".parquet" for name in _files(plan)):
        found |= Loads(packages=("pyarrow",))
    if plan.search:
        found |= Loads(packages=("optuna",))
    return found | scoring(plan)


def scoring(plan: Plan, only: tuple[str, ...] | None = None) -> Loads:
    """What measuring a run of `plan` loads, and certifying it where the plan has limits.

    Args:
        only: the attacks that are used, instead of those of the plan.
    """
    named = plan.attacks.names if only is None else only
    found = loads_of([plan.embedder or plan.small], [])  # the attackers' sentence encoder
    for name in attacks.names() if named is None else named:
        found |= attacks.loads(name)
    for name in objectives.names():
        found |= objectives.loads(name)
    if plan.limits or plan.at_least:
        found |= Loads(packages=("scipy",))
    return found


def _files(plan: Plan) -> Iterator[str]:
    for names in (*plan.task.files.values(), plan.task.public):
        yield from names
