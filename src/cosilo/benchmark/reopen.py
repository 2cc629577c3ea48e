"""Points of a finished run, opened again for serving: what is served is what was measured.

`prepare` is run again over the answers that the run recorded, so it costs nothing and ends in the
same thresholds, routers and small models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cosilo.benchmark import places
from cosilo.benchmark.parts import fill, make_owner, ready, replay_path, small_models
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.results import Results, opened
from cosilo.benchmark.rows import PUBLIC, Trial
from cosilo.defences.base import defences
from cosilo.errors import ConfigError, DataError
from cosilo.models.base import EVERYTHING, Embedder, TextModel
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.present import require_present
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.remote import LargeModel, RemoteOwner
from cosilo.session import (
    DefenceConfig,
    PointConfig,
    check_options,
    loads_of,
    make_large,
    make_model,
    owned,
)
from cosilo.strategies.base import strategies
from cosilo.tables import Table
from cosilo.tasks.base import SPLITS, Task
from cosilo.tasks.config import grader, load_task
from cosilo.tasks.kinds import Kept


@dataclass(frozen=True)
class Reopened:
    """Points of a finished run with the models and recorded answers that they are served with.

    Attributes:
    owner: the data owner, its small model trained as the plan says.
    untrained: the small model before that.
    peers: name → large model, for requests to come; those that the points speak to.
    recorded: name → the run's recorded answers of that model and nothing else, for `prepare`.
    points: the operating points asked for.
    system: the system turn that all of the task's questions have in common; empty where they differ.
    """

    plan: Plan
    task: Task
    owner: DataOwner
    untrained: TextModel
    peers: Mapping[str, LargeModel]
    recorded: Mapping[str, Recorded]
    points: tuple[PointConfig, ...]
    system: str

    def speaks_to(self, point: PointConfig) -> tuple[str, ...]:
        """The names of the large models that `point` speaks to; the plan's first where nothing
        crosses."""
        return tuple(self.plan.peers_of(point)) or (next(iter(self.plan.peers)),)

    async def close(self) -> None:
        for model in (*self.peers.values(), self.owner.model):
            await model.close()
        for answers in self.recorded.values():
            answers.store.close()


def reopen(path: Path, names: Sequence[str]) -> Reopened:
    """The points called `names` of the run in the folder `path`.

    Where the data files are gone, the run's own copy of the task serves; they are not read from a
    place where they are others.

    Raises:
        ConfigError: there is no run, or no finished point of that name; the nearest is named. Or a
            model file is another, or the recorded answers are not there.
        DataError: the data files have changed since, or are gone and needed.
    """
    with opened(path) as results:
        plan, trials = results.plan, [results.trial(name) for name in names]
        answers_path, about = replay_path(plan, results.store), results.store.read_json("run.json")
        now = places.data_now(about, plan)
        if now == "changed":
            raise DataError(f"the data files have changed since {str(path)!r} was measured on them")
        kept = kept_task(results) if now == "gone" else None
    places.require_models(about, plan)
    if not answers_path.is_file():
        raise ConfigError(
            f"the recorded answers of {str(path)!r} are not at {str(answers_path)!r}: put them there"
        )
    points = tuple(
        _moved(point_of(name, trial), about, plan)
        for name, trial in zip(names, trials, strict=True)
    )
    used = [m for m in (plan.small, *plan.peers.values(), plan.embedder) if m is not None]
    require_present(loads_of(used, points))
    task = kept or load_task(plan.task, plan.base)
    points = tuple(ready(point, task, answers_path.parent) for point in points)
    untrained, small = small_models(plan, task, path, answers_path.parent)
    embedder = make_model(plan.embedder) if plan.embedder else small
    spoken = {name for point in points for name in plan.peers_of(point)}
    peers = {n: make_large(c) for n, c in plan.peers.items() if n in spoken or c is plan.large}
    for model in peers.values():
        if not isinstance(model, RemoteOwner):
            fill(model, task)
    owner = make_owner(plan, task, small, embedder if isinstance(embedder, Embedder) else None)
    store = ReplayStore(answers_path)
    recorded = {
        name: Recorded(owned(model, EVERYTHING), store, of=model, offline=True)
        for name, model in peers.items()
    }
    return Reopened(plan, task, owner, untrained, peers, recorded, points, shared_system(task))


def kept_task(results: Results) -> Task:
    """The run's own copy of its task.

    Raises:
        DataError: it has none, or answers cannot be graded with it alone.
    """
    plan, store, id = results.plan, results.store, results.task
    about = store.about(id)
    if about.sampling is None:
        raise DataError(
            f"the data files of {str(store.path)!r} are not in {str(plan.base)!r}, and this old run "
            "keeps no copy of them: put them there"
        )
    splits = {split: store.examples(id, split) for split in SPLITS}
    kept = Kept(tuple(e for s in splits.values() for e in s), about.labels, plan.base)
    return Task(
        name=about.name,
        kind=about.kind,
        splits=splits,
        grade=grader(plan.task, kept),
        sampling=about.sampling,
        labels=about.labels,
        gold_secrets=about.gold_secrets,
        notes=about.notes,
        public=store.examples(id, PUBLIC),
        instructions=about.instructions,
    )


def _moved(point: PointConfig, about: Mapping[str, object], plan: Plan) -> PointConfig:
    """`point` with the paths among its options where they are now."""

    def now(options: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: places.moved(value, about, plan) if isinstance(value, Path) else value
            for name, value in options.items()
        }

    around = tuple(replace(d, options=now(d.options)) for d in point.defences)
    return replace(point, options=now(point.options), defences=around)


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
    return PointConfig(name, settings["strategy"], options, around, trial.named)


def _defence(name: str, kind: str, options: Table) -> DefenceConfig:
    found = check_options(defences, kind, options, where=f"defence {name!r}")
    return DefenceConfig(name, kind, found)
