"""Points of a finished run, opened again for serving: what is served is what was measured.

`prepare` is run again over the answers that the run recorded, so it costs nothing and ends in the
same thresholds, routers and small models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosilo.benchmark.identity import task_identity
from cosilo.benchmark.parts import fill, make_owner, ready, replay_path, small_model
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.results import opened
from cosilo.benchmark.store import Trial
from cosilo.defences.base import defences
from cosilo.errors import ConfigError, DataError
from cosilo.models.base import Embedder, TextModel
from cosilo.models.present import require_present
from cosilo.models.replay import ReplayModel
from cosilo.parties.data_owner import DataOwner
from cosilo.session import DefenceConfig, PointConfig, check_options, loads_of, make_model
from cosilo.strategies.base import strategies
from cosilo.tables import Table
from cosilo.tasks.base import Task
from cosilo.tasks.config import load_task


@dataclass(frozen=True)
class Reopened:
    """Attributes:
    owner: the data owner, its small model trained as the plan says.
    large: the large model itself, for requests to come.
    answers: the run's recorded answers and nothing else, for `prepare`.
    points: the operating points asked for.
    system: the system turn that all of the task's questions have in common; empty where they differ.
    """

    plan: Plan
    task: Task
    owner: DataOwner
    large: TextModel
    answers: TextModel
    points: tuple[PointConfig, ...]
    system: str


def reopen(path: Path, names: Sequence[str]) -> Reopened:
    """The points called `names` of the run in the folder `path`.

    Raises:
        ConfigError: there is no run, or no finished point of that name; the nearest is named.
        DataError: the data files are not there any more, or have changed.
    """
    with opened(path) as results:
        plan, trials = results.plan, [results.trial(name) for name in names]
        answers_path, measured_on = replay_path(plan, results.store), results.task
    if task_identity(plan) != measured_on:
        raise DataError(f"the data files have changed since {str(path)!r} was measured on them")
    points = tuple(point_of(name, trial) for name, trial in zip(names, trials, strict=True))
    used = [m for m in (plan.small, plan.large, plan.embedder) if m is not None]
    require_present(loads_of(used, points))
    task = load_task(plan.task, plan.base)
    points = tuple(ready(point, task, answers_path.parent) for point in points)
    small = small_model(plan, task)
    embedder = make_model(plan.embedder) if plan.embedder else small
    large = make_model(plan.large)
    fill(large, task)
    owner = make_owner(plan, task, small, embedder if isinstance(embedder, Embedder) else None)
    answers = ReplayModel(large, answers_path, offline=True)
    return Reopened(plan, task, owner, large, answers, points, shared_system(task))


def shared_system(task: Task) -> str:
    """The system turn of every question of `task`; empty where they differ, or have none."""
    found = {
        "\n".join(turn.content for turn in example.chat if turn.role == "system")
        for examples in task.splits.values()
        for example in examples
    }
    return found.pop() if len(found) == 1 else ""


def point_of(name: str, trial: Trial) -> PointConfig:
    """The operating point that `trial` ran.

    Raises:
        ConfigError: it is not finished, or its settings mean nothing to this version.
    """
    if trial.state != "done":
        raise ConfigError(f"point {name!r} is not finished: {trial.error or 'interrupted'}")
    settings = json.loads(trial.settings)
    options = check_options(
        strategies, settings["strategy"], settings["options"], where=f"point {name!r}"
    )
    around = tuple(_defence(d["name"], d["kind"], d["options"]) for d in settings["defences"])
    return PointConfig(name, settings["strategy"], options, around)


def _defence(name: str, kind: str, options: Table) -> DefenceConfig:
    found = check_options(defences, kind, options, where=f"defence {name!r}")
    return DefenceConfig(name, kind, found)
