"""What a run makes of its records, noted in the run's lineage before it is made.

    splits ──▶ the run's copy of the data
        ├────▶ trial (what preparing makes) ──▶ answers, what crossed, recorded replies, what was sent
        └──────────────────────────────────┘              └──▶ bundles, reports, certificates, served

Strategies know nothing of it. A trial may read every record of `train` and `tune`, so all that it makes
counts as made from all of them; what stands in the run of `validation`, `certificate` and `test` counts
as made from these, too. What preparing made in particular is read off the strategy it returned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from cosilo.benchmark.parts import SHARDS, keyed, replay_path
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.rows import Trial
from cosilo.benchmark.small import Remembering
from cosilo.benchmark.store import Store
from cosilo.lineage.artifacts import Artifact, ArtifactKind, MadeFrom
from cosilo.lineage.store import Lineage
from cosilo.models.base import TextModel
from cosilo.models.parts import has_parts
from cosilo.models.sharded import ShardedModel
from cosilo.parties.coordinating.learning import learned_beside
from cosilo.parties.data_owner import DataOwner
from cosilo.session import PointConfig, make_strategy
from cosilo.strategies.base import Strategy
from cosilo.tasks.base import SPLITS, Split
from cosilo.types import Demonstration, Turn

LEARNED_FROM: tuple[Split, ...] = ("train", "tune")
"""What preparing may read; the rest of a task's splits it never sees."""

FORGOTTEN = "forgotten.json"
"""In a run's folder: what was forgotten of it, for its reports. See `cosilo forget`."""


@dataclass(frozen=True)
class Withdrawal:
    """Certificates of a run that were withdrawn for a request to forget.

    Attributes:
        at: when the request began, in seconds of the machine's clock.
        records: how many it was about.
    """

    request: str
    at: float
    records: int

    def __str__(self) -> str:
        day = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d")
        whom = "a record" if self.records == 1 else f"{self.records} records"
        return (
            f"{whom} of this run's data had to be forgotten (request {self.request[:12]}, {day}): "
            "certificates and reports given before are withdrawn, and all numbers here are of what is "
            "left"
        )


def forgotten_of(run: Path) -> list[Withdrawal]:
    """What was forgotten of the run in the folder `run`, the newest last."""
    try:
        return msgspec.json.decode((run / FORGOTTEN).read_bytes(), type=list[Withdrawal])
    except (OSError, msgspec.DecodeError):
        return []


def set_of(task: str, split: str) -> str:
    """What a split of a task is called in the lineage."""
    return f"task/{task}/{split}"


class Notes:
    """The lineage of the run in `folder`, and what its trials are called there.

    Args:
        splits: split → ids of the task's examples.
    """

    def __init__(self, folder: Path, task: str, splits: Mapping[Split, Sequence[str]]) -> None:
        self._folder = folder
        self._task = task
        self._splits = {split: ids for split, ids in splits.items() if ids}

    def trial(
        self, trial: str, point: PointConfig, *, plan: Plan, store: Store, sends: bool
    ) -> None:
        """Note all that a trial is about to make.

        Raises:
            StoreError: it cannot be noted; then it must not be made.
        """
        peers = list(plan.peers_of(point)) if sends else []
        replies = replay_path(plan, store)
        options = keyed(point, replies.parent).options
        checkpoints = options.get("checkpoints")
        stages = plan.small.shards is not None and make_strategy(point).needs.trainable
        with Lineage(self._folder) as lineage, lineage.together():
            self._gathered(lineage)
            note_trial(
                lineage,
                trial,
                point.name,
                read=self._sets(LEARNED_FROM),
                answered=self._sets(s for s in SPLITS if s not in LEARNED_FROM),
                replies=place_of(replies, self._folder) if sends else "",
                peers=peers,
                checkpoints=place_of(checkpoints, self._folder) if checkpoints else "",
                stages=SHARDS if stages else "",
                aggregates=_aggregates(plan, peers, self._folder),
                folders=_trained_in(plan, point.strategy, options, peers, self._folder),
            )

    def prepared(
        self,
        trial: str,
        point: PointConfig,
        strategy: Strategy,
        before: DataOwner,
        after: DataOwner,
    ) -> None:
        """Note what preparing made: it is there as long as the process is, and each time anew."""
        known = {id for ids in self._splits.values() for id in ids}
        made = prepared_artifacts(trial, point, strategy, before, after, known)
        _note_prepared(self._folder, trial, made)

    def _gathered(self, lineage: Lineage) -> None:
        for split, ids in self._splits.items():
            lineage.gather(set_of(self._task, split), ids)
        data = Artifact(
            id=data_artifact(self._task),
            kind=ArtifactKind.DATA,
            place="run.sqlite#examples",
            made_by="cosilo bench",
        )
        lineage.note(data, MadeFrom(sets=self._sets(SPLITS)))

    def _sets(self, splits: Iterator[Split] | Sequence[Split]) -> frozenset[str]:
        return frozenset(set_of(self._task, split) for split in splits if split in self._splits)


class LentNotes:
    """What preparing a trial made in a folder of its own, written there until its run takes it in."""

    def __init__(self, folder: Path, splits: Mapping[Split, Sequence[str]]) -> None:
        self._folder = folder
        self._known = {id for ids in splits.values() for id in ids}

    def prepared(
        self,
        trial: str,
        point: PointConfig,
        strategy: Strategy,
        before: DataOwner,
        after: DataOwner,
    ) -> None:
        """As `Notes.prepared`."""
        made = prepared_artifacts(trial, point, strategy, before, after, self._known)
        told = msgspec.json.encode({trial: [(a.id, a.kind, a.place, a.made_by) for a in made]})
        new = self._folder / f".{_PREPARED}.new"
        new.write_bytes(told)
        new.replace(self._folder / _PREPARED)


_PREPARED = "prepared.json"


def note_prepared(run: Path, folder: Path) -> None:
    """Note in the lineage of `run` what preparing made in the folder of a trial of it.

    Raises:
        StoreError: it cannot be noted.
    """
    if not (folder / _PREPARED).is_file():
        return
    kind = dict[str, list[tuple[str, ArtifactKind, str, str]]]
    for trial, made in msgspec.json.decode((folder / _PREPARED).read_bytes(), type=kind).items():
        artifacts = [Artifact(id=i, kind=k, place=p, made_by=by) for i, k, p, by in made]
        _note_prepared(run, trial, artifacts)


def _note_prepared(run: Path, trial: str, made: Sequence[Artifact]) -> None:
    source = MadeFrom(artifacts=frozenset({trial_artifact(trial)}))
    with Lineage(run) as lineage, lineage.together():
        for artifact in made:
            lineage.note(artifact, source)


def prepared_artifacts(
    trial: str,
    point: PointConfig,
    strategy: Strategy,
    before: DataOwner,
    after: DataOwner,
    known: AbstractSet[str],
) -> list[Artifact]:
    """What preparing a trial made, `known` being the ids of the task's examples."""
    whole = trial_artifact(trial)
    found = [
        Artifact(
            id=f"{whole}/{name}",
            kind=kind,
            place="made anew whenever the point is prepared",
            made_by=point.name,
        )
        for name, kind in made_by_preparing(point, strategy, before, after)
    ]
    if after.learned - before.learned - known:
        texts = ArtifactKind.SYNTHETIC
        where = "run.sqlite#cards"
        found.append(Artifact(id=f"{whole}/texts", kind=texts, place=where, made_by=point.name))
    return found


def data_artifact(task: str) -> str:
    """What the data of a task, kept in a run, are called in the lineage."""
    return f"task/{task}"


def trial_artifact(trial: str) -> str:
    """What a trial is called in the lineage: all that preparing it makes."""
    return f"trial/{trial}"


def note_trial(
    lineage: Lineage,
    trial: str,
    point: str,
    *,
    read: frozenset[str],
    answered: frozenset[str],
    replies: str,
    peers: Sequence[str],
    checkpoints: str = "",
    stages: str = "",
    aggregates: Mapping[str, str] = {},
    folders: Mapping[str, str] = {},
) -> None:
    """Note the trial of that id, and what comes of it.

    Args:
        read, answered: the names of the sets that preparing reads, and that are answered.
        replies: where the large models' replies are recorded; empty where nothing crosses.
        stages: where the stages of what it trains in shards are kept; empty where it trains none.
        aggregates: of coordinators in this process, by name → where something of theirs is kept.
        folders: of models in this process, by name → the folder that the plan has them trained in.
    """
    whole = trial_artifact(trial)
    base = Artifact(id=whole, kind=ArtifactKind.STATE, place="run.sqlite#cards", made_by=point)
    lineage.note(base, MadeFrom(sets=read))
    found = [("answers", ArtifactKind.MEASUREMENT, "run.sqlite#items")]
    if replies:
        found += [
            ("record", ArtifactKind.SEALED, f"ledger.sqlite#{trial}"),
            ("replies", ArtifactKind.ANSWER, replies),
        ]
    if checkpoints:
        found.append(("checkpoints", ArtifactKind.STATE, checkpoints))
    if stages:
        found.append(("stages", ArtifactKind.STATE, stages))
    found += [(f"sent/{peer}", ArtifactKind.ABROAD, peer) for peer in peers]
    found += [(f"federation/{n}", ArtifactKind.AGGREGATE, at) for n, at in aggregates.items()]
    found += [(f"{n}/checkpoints", ArtifactKind.STATE, at) for n, at in folders.items()]
    sources = MadeFrom(sets=answered, artifacts=frozenset({whole}))
    for name, kind, place in found:
        artifact = Artifact(id=f"{whole}/{name}", kind=kind, place=place, made_by=point)
        lineage.note(artifact, sources)


def _aggregates(plan: Plan, peers: Sequence[str], run: Path) -> Mapping[str, str]:
    """Where the peers keep what came of their rounds that coordinate a federation in this process, and
    what a large model learned from it."""
    kept = {name: plan.peers[name].options.get("state_file") for name in peers}
    files = {name: path for name, path in kept.items() if isinstance(path, Path)}
    learned = {f"{name}/learned": learned_beside(path) for name, path in files.items()}
    return {name: place_of(path, run) for name, path in (files | learned).items()}


def _trained_in(
    plan: Plan, strategy: str, options: Mapping[str, Any], peers: Sequence[str], run: Path
) -> Mapping[str, str]:
    """The folders that the plan names for what the small model and the peers' models are trained to,
    and the one called as the strategy, beside its key, where it keeps how far its own training is."""
    named = {"small": plan.small.options.get("checkpoints")}
    if isinstance(key := options.get("key_file"), Path):
        named[strategy] = key.parent / strategy
    for name in peers:
        named[name] = plan.peers[name].options.get("checkpoints")
        body = plan.peers[name].body
        named[f"{name}/bodies"] = None if body is None else body.folder
    return {name: place_of(path, run) for name, path in named.items() if isinstance(path, Path)}


def note_stages(run: Path, task: str, shards: Sequence[Sequence[str]]) -> None:
    """Note the stages that the small model's shards are about to be trained in, each made from the
    records of its own shard alone.

    Args:
        shards: the ids of the records in each.

    Raises:
        StoreError: they cannot be noted, and so must not be made.
    """
    with Lineage(run) as lineage, lineage.together():
        for number, ids in enumerate(shards):
            if ids:
                name = f"{set_of(task, 'train')}/shard-{number}"
                lineage.gather(name, ids)
                artifact = Artifact(
                    id=f"{name}/stages",
                    kind=ArtifactKind.STATE,
                    place=f"{SHARDS}#{number}",
                    made_by="cosilo bench",
                )
                lineage.note(artifact, MadeFrom(sets=frozenset({name})))


def made_by_preparing(
    point: PointConfig, strategy: Strategy, before: DataOwner, after: DataOwner
) -> Iterator[tuple[str, ArtifactKind]]:
    """What preparing `point` made, by name: the small model where it learned from records, and what of
    the strategy it returned is not as configured."""
    if after.model is not before.model or after.learned:
        yield (
            "model",
            ArtifactKind.ADAPTER if has_parts(_inside(after.model)) else ArtifactKind.HEAD,
        )
    if not is_dataclass(strategy):
        return
    configured: object = make_strategy(point)
    for field in fields(strategy):
        value = getattr(strategy, field.name)
        was = field.default
        if type(configured) is type(strategy):
            was = getattr(configured, field.name)
        if value is was or (was is not MISSING and _same(value, was)):
            continue
        kind = kind_of(value)
        if kind is not None:
            yield field.name, kind


def _inside(model: TextModel) -> TextModel:
    """The model that remembers no answers and has no shards."""
    while isinstance(model, Remembering | ShardedModel):
        model = model.model if isinstance(model, Remembering) else model.base
    return model


def kind_of(value: object) -> ArtifactKind | None:
    """What an option is that preparing set; None where it is nothing that is made from records."""
    if isinstance(value, bool | Path | None):
        return None
    if isinstance(value, int | float):
        return ArtifactKind.THRESHOLD
    if isinstance(value, str | Turn | Demonstration):
        return ArtifactKind.PROMPT
    if isinstance(value, Mapping):
        return next(filter(None, map(kind_of, value.values())), None)
    if isinstance(value, Sequence):
        return next(filter(None, map(kind_of, value)), None)
    return ArtifactKind.ROUTER if callable(getattr(value, "save", None)) else ArtifactKind.STATE


def _same(value: object, was: object) -> bool:
    try:
        return bool(value == was)
    except ValueError:  # arrays, of which nobody can say it in one word
        return False


def run_lineage(store: Store) -> Lineage:
    """The lineage of a run, opened for writing. What an older version made in the run is noted as made
    from all of its records: nobody can say it closer."""
    trials = list(store.trials().values())  # first: whoever makes one has noted it before
    tasks = [task for (task,) in store.rows("SELECT id FROM tasks")]
    lineage = Lineage(store.path)
    try:
        known = lineage.noted([*map(data_artifact, tasks), *(trial_artifact(t.id) for t in trials)])
        older = [trial for trial in trials if trial_artifact(trial.id) not in known]
        if older or not known.issuperset(map(data_artifact, tasks)):
            with lineage.together():
                note_older(lineage, store, older)
    except BaseException:
        lineage.close()
        raise
    return lineage


def note_older(lineage: Lineage, store: Store, trials: Sequence[Trial]) -> None:
    """Note what the database of the run holds, and these trials as made from every record in it."""
    lineage.note_late()
    read: set[str] = set()
    answered: set[str] = set()
    for (task,) in store.rows("SELECT id FROM tasks"):
        for split in SPLITS:
            ids = [example.id for example in store.examples(task, split)]
            if ids:
                name = set_of(task, split)
                lineage.gather(name, ids)
                (read if split in LEARNED_FROM else answered).add(name)
        data = Artifact(id=data_artifact(task), kind=ArtifactKind.DATA, place="run.sqlite#examples")
        whole = frozenset(n for n in read | answered if n.startswith(set_of(task, "")))
        lineage.note(data, MadeFrom(sets=whole))
    for trial in trials:
        note_trial(
            lineage,
            trial.id,
            trial.point,
            read=frozenset(read),
            answered=frozenset(answered),
            replies="replay.sqlite",
            peers=_named_peers(trial),
        )


def _named_peers(trial: Trial) -> Sequence[str]:
    return tuple(json.loads(trial.settings).get("sides", ())) or ("large",)


def note_made(run: Path, artifact: Artifact, trials: Sequence[str], *, anew: bool = False) -> None:
    """Note something that is about to be made from finished trials of a run: a bundle, a report, a
    certificate, a served point.

    Args:
        run: its folder.
        trials: their ids.
        anew: nothing is left of what it was made from before.

    Raises:
        StoreError: it cannot be noted; then it must not be made.
    """
    store = Store(run, write=False)
    try:
        with run_lineage(store) as lineage, lineage.together():
            known = {a.id for a in lineage.standing()}
            wanted = {trial_artifact(trial) for trial in trials}
            sources = {id for id in wanted | {f"{id}/answers" for id in wanted} if id in known}
            if anew and artifact.id in known:
                lineage.gone(artifact.id, "made anew")
            lineage.note(artifact, MadeFrom(artifacts=frozenset(sources)))
    finally:
        store.close()


def place_of(path: Path, run: Path) -> str:
    """`path` as an artifact's place: from the run's folder where it is in it, as runs are moved."""
    path, run = path.resolve(), run.resolve()
    return str(path.relative_to(run) if path.is_relative_to(run) else path)


def of_file(kind: ArtifactKind, path: Path, run: Path, *, made_by: str) -> Artifact:
    """The artifact that a file or folder at `path` is, made from `run`."""
    place = place_of(path, run)
    return Artifact(id=f"{kind}/{place}", kind=kind, place=place, made_by=made_by)
