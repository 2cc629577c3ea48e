"""What a request would do: a list of steps, each for one thing that was made from the records.

served (where told to) ─▶ bundles, reports, certificates, checkpoints ─▶ rows of the data files
─▶ each run made again ─▶ shared recorded replies ─▶ served points swapped ─▶ a search ─▶ other parties
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from cosilo.benchmark import places
from cosilo.benchmark.noting import run_lineage
from cosilo.benchmark.rows import Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.record.ledger import connect
from cosilo.forget.elsewhere import address_of, askable, held_of, peer_of, unasked
from cosilo.forget.home import DataHome, DataRun, RecordRows, file_of, ids_in, resolved
from cosilo.lineage.artifacts import Artifact, ArtifactKind
from cosilo.lineage.beside import FITTED, fitted_of, serving
from cosilo.lineage.processes import ServingProcess
from cosilo.lineage.requests import ForgetStep, Method, StepState
from cosilo.parties.held_elsewhere import HeldElsewhere

OUTSIDE: Mapping[ArtifactKind, Method] = {
    ArtifactKind.BUNDLE: Method.DELETE,
    ArtifactKind.REPORT: Method.DELETE,
    ArtifactKind.AGGREGATE: Method.DELETE,
    ArtifactKind.CERTIFICATE: Method.WITHDRAW,
    ArtifactKind.SERVED: Method.TAKE_DOWN,
    ArtifactKind.ABROAD: Method.NONE,
}
"""What was made of a run and is not in its folder's databases: undone one by one."""

WITH_RUN: Mapping[ArtifactKind, Method] = {
    ArtifactKind.DATA: Method.DELETE,
    ArtifactKind.STATE: Method.RETRAIN,
    ArtifactKind.HEAD: Method.RETRAIN,
    ArtifactKind.ADAPTER: Method.RETRAIN,
    ArtifactKind.WEIGHTS: Method.RETRAIN,
    ArtifactKind.THRESHOLD: Method.RECHOOSE,
    ArtifactKind.ROUTER: Method.RECHOOSE,
    ArtifactKind.PROMPT: Method.RECHOOSE,
    ArtifactKind.SYNTHETIC: Method.RETRAIN,
    ArtifactKind.MEASUREMENT: Method.RETRAIN,
    ArtifactKind.ANSWER: Method.DELETE,
    ArtifactKind.SEALED: Method.DELETE,
}
"""What goes when a run is made again in a folder of its own, which then takes the old one's place."""

_FILES = (ArtifactKind.BUNDLE, ArtifactKind.REPORT, ArtifactKind.AGGREGATE)
"""What is deleted as the files that it is."""

DAY = 86400.0
WEEK = 7 * DAY


@dataclass(frozen=True)
class RemakingCost:
    """What making the runs again takes, by what it took before.

    Attributes:
        answers: that were made, and are made again.
        cpu_seconds, seconds: of them; calls of large models are replayed and cost neither.
    """

    answers: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class ForgetPlan:
    """What would be done, and what is worth knowing before.

    Attributes:
        records: how many are forgotten.
        notes: without any text or id of a record.
        held: place and artifact of a step that asks a party → what it has besides requests.
    """

    records: int
    steps: tuple[ForgetStep, ...]
    notes: tuple[str, ...]
    cost: RemakingCost
    held: Mapping[tuple[str, str], HeldElsewhere] = field(default_factory=dict)


def plan_for(
    home: DataHome,
    records: RecordRows,
    *,
    take_down: bool = False,
    retrain: bool = True,
    days: float = 30.0,
) -> ForgetPlan:
    """The plan for forgetting `records`.

    Args:
        take_down: end what serves a point, instead of having it prepare the point again.
        retrain: make runs again; otherwise all that was made in them is deleted.
        days: that other parties have to answer.

    Raises:
        StoreError: a run cannot be read.
    """
    by_file: dict[Path, set[str]] = {}
    for row in records.rows:
        by_file.setdefault(file_of(row.where), set()).add(resolved(row.where))
    first: list[ForgetStep] = []
    remade: list[ForgetStep] = []
    last: list[ForgetStep] = []
    parties: list[ForgetStep] = []
    held: dict[tuple[str, str], HeldElsewhere] = {}
    notes: list[str] = []
    costs: list[RemakingCost] = []
    for run in home.runs:
        ids = ids_in(run, records.rows)
        store = Store(run.folder, write=False)
        try:
            with run_lineage(store) as lineage:
                late = lineage.late
                derived = lineage.derived(ids)
                certified = {
                    name
                    for id in ids
                    for name in lineage.sets_of(id)
                    if name.endswith("/certificate")
                }
            if late:
                notes.append(
                    f"{run.folder}: begun before lineage: what was made then counts as made from "
                    "every record of it; its bundles, reports and served points are not known"
                )
            if certified:
                notes.append(
                    f"{run.folder}: a record is in the certificate split, so certificates given so far "
                    "are withdrawn"
                )
            if derived:  # its reports say so, also where nobody noted a certificate
                first.append(
                    ForgetStep(
                        method=Method.WITHDRAW,
                        kind=ArtifactKind.CERTIFICATE,
                        place=str(run.folder),
                        note="whatever was certified of this run",
                    )
                )
            for step, theirs in _asked(run, derived, time.time() + days * DAY):
                parties.append(step)
                held[step.place, step.artifact] = theirs
            can = {peer_of(step) for step in parties if step.place == str(run.folder)}
            trials = store.trials()
            for artifact in _as_it_lies(run, derived):
                if artifact.kind is ArtifactKind.ABROAD and artifact.place in can:
                    continue
                _place(run, artifact, trials, take_down, first, remade, last)
                if artifact.kind is ArtifactKind.BUNDLE:
                    _serving(run, run.folder / artifact.place, first, last)
            remade += _whole_run(run, {s.artifact for s in remade if s.place == str(run.folder)})
            if left := unasked(run, can):
                last.append(
                    ForgetStep(
                        method=Method.SHRED,
                        kind=ArtifactKind.SEALED,
                        place=str(run.folder),
                        note=f"requests over the network that it no longer makes: {', '.join(left)}",
                    )
                )
            if retrain:
                costs.append(_cost(store))
            shared = run.plan.replay.path
            if shared is not None and str(shared) not in {s.place for s in last}:
                last.append(
                    ForgetStep(
                        method=Method.DELETE,
                        kind=ArtifactKind.ANSWER,
                        place=str(shared),
                        note="replies that only runs as they were had asked for",
                    )
                )
        finally:
            store.close()
    first += _fitted_from(by_file)
    data = [
        ForgetStep(
            method=Method.DELETE,
            kind=ArtifactKind.DATA,
            place=str(path),
            note=_positions(path, places),
        )
        for path, places in sorted(by_file.items())
    ]
    unread = [
        ForgetStep(
            method=Method.NONE,
            state=StepState.UNREACHABLE,
            place=str(path),
            note="it looks like a run and cannot be read: nobody knows what is in it",
        )
        for path in home.unread
    ]
    last.sort(key=lambda step: step.method is Method.NONE)
    search = ForgetStep(method=Method.VERIFY, place=str(home.folder), note="a search of all files")
    if not retrain:
        remade = [_deleted(step) for step in remade]
    return ForgetPlan(
        records=len(records.ids),
        steps=(*first, *data, *remade, *last, search, *parties, *unread),
        held=held,
        notes=tuple(notes),
        cost=RemakingCost(
            sum(c.answers for c in costs),
            sum(c.cpu_seconds for c in costs),
            sum(c.seconds for c in costs),
        ),
    )


def _as_it_lies(run: DataRun, artifacts: Iterable[Artifact]) -> Iterator[Artifact]:
    """The artifacts with the places that they have now, where what stands around the run was moved (or
    copied) with it since they were noted."""
    about = json.loads((run.folder / "run.json").read_text("utf-8"))
    for artifact in artifacts:
        if Path(artifact.place).is_absolute():
            now = places.moved(Path(artifact.place), about, run.plan)
            yield replace(artifact, place=str(now)) if now.exists() else artifact
        else:
            yield artifact


def _place(
    run: DataRun,
    artifact: Artifact,
    trials: Mapping[str, Trial],
    take_down: bool,
    first: list[ForgetStep],
    remade: list[ForgetStep],
    last: list[ForgetStep],
) -> None:
    """Put the step for `artifact` where it belongs."""
    step = ForgetStep(
        method=OUTSIDE.get(artifact.kind) or WITH_RUN.get(artifact.kind) or Method.NONE,
        artifact=artifact.id,
        kind=artifact.kind,
        place=str(run.folder),
        note=artifact.place,
    )
    if artifact.kind in WITH_RUN and not in_files(step):
        remade.append(step)
    elif artifact.kind is ArtifactKind.SERVED:
        _served(step, artifact, take_down, first, last)
    elif artifact.kind is ArtifactKind.ABROAD:
        last.append(_sent(step, run, artifact, trials))
    elif step.method is Method.NONE:
        last.append(
            _changed(step, state=StepState.UNREACHABLE, note=f"{artifact.place}: no step yet")
        )
    else:
        first.append(step if artifact.kind in OUTSIDE else _changed(step, method=Method.DELETE))


def _serving(run: DataRun, bundle: Path, first: list[ForgetStep], last: list[ForgetStep]) -> None:
    """The steps for processes that serve a bundle: it is deleted, so that they cannot prepare it again
    and are ended."""
    for artifact in serving(bundle):
        process = ServingProcess.at(artifact.place)
        if process is None or (process.here and not process.runs):
            continue
        step = ForgetStep(
            method=Method.TAKE_DOWN,
            artifact=artifact.id,
            kind=artifact.kind,
            place=str(run.folder),
            note=artifact.place,
        )
        _served(step, artifact, True, first, last)


def _fitted_from(files: Iterable[Path]) -> list[ForgetStep]:
    """The steps for what `cosilo fit` made of these files: it knows texts and no records, so what it
    made of a file is made from each of its rows, and is made again by the same command."""
    return [
        ForgetStep(
            method=Method.DELETE,
            artifact=artifact.id,
            kind=artifact.kind,
            place=str(file.parent),
            note=artifact.place,
        )
        for file in sorted(files)
        for artifact in fitted_of(file)
    ]


def files_deleted(plan: ForgetPlan) -> list[Path]:
    """Files and folders that the plan deletes one by one: bundles, reports, checkpoints."""
    return [
        Path(step.place) / step.note  # an absolute path stays one
        for step in plan.steps
        if step.method is Method.DELETE and in_files(step)
    ]


def in_files(step: ForgetStep) -> bool:
    """Whether what it undoes is deleted as the files that it is, or lies in a folder of its own: work
    under way in one that the plan named, or what `cosilo fit` made."""
    return (
        step.kind in _FILES
        or step.artifact.endswith("/checkpoints")
        or step.artifact.startswith(FITTED)
    )


def _served(
    step: ForgetStep,
    artifact: Artifact,
    take_down: bool,
    first: list[ForgetStep],
    last: list[ForgetStep],
) -> None:
    process = ServingProcess.at(artifact.place)
    if process is not None and not process.here:
        note = f"{artifact.place}: on another machine; end it there, then forget again"
        last.append(_changed(step, state=StepState.OPEN, note=note, deadline=time.time() + WEEK))
    elif take_down:
        first.append(step)
    else:
        last.append(_changed(step, method=Method.RETRAIN))


def _sent(
    step: ForgetStep, run: DataRun, artifact: Artifact, trials: Mapping[str, Trial]
) -> ForgetStep:
    trial = artifact.id.split("/")[1]
    sent = _messages(run.folder / "ledger.sqlite", trial)
    if sent == 0:  # nothing had crossed: there is nothing to reach
        return _changed(step, method=Method.DELETE, note=f"{artifact.place}: nothing was sent")
    what = "messages" if sent is None else counted(sent, "message")
    by = f" by the point {trials[trial].point}" if trial in trials else ""
    note = (
        f"{artifact.place}: {what} sent to it{by}, any of which may hold the record; what "
        "it kept is not known here"
    )
    return _changed(step, state=StepState.UNREACHABLE, note=note)


def _asked(
    run: DataRun, derived: Sequence[Artifact], until: float
) -> Iterator[tuple[ForgetStep, HeldElsewhere]]:
    """The steps that ask parties which can be asked, and what these have besides requests."""
    known = {artifact.id for artifact in derived}
    sent: dict[str, Artifact] = {}
    trials: dict[str, set[str]] = {}
    for artifact in derived:
        if artifact.kind is ArtifactKind.ABROAD:
            sent[artifact.place] = artifact
            whole = artifact.id.partition("/sent/")[0]
            if whole in known:  # what preparing made is made from it, not only what was answered
                trials.setdefault(artifact.place, set()).add(whole.partition("/")[2])
    for peer, artifact in sent.items():
        if not askable(run, peer):
            continue
        held = held_of(run, peer, trials.get(peer, set()))
        many = len(held.federations), len(held.adapters) + len(held.bodies)
        more = f", updates in {many[0]} federations and {many[1]} adapters" if any(many) else ""
        yield (
            ForgetStep(
                method=Method.ASK,
                artifact=artifact.id,
                kind=artifact.kind,
                place=str(run.folder),
                note=f"{peer} at {address_of(run, peer)}: requests that the run no longer makes{more}",
                deadline=until,
            ),
            held,
        )


def _messages(ledger: Path, trial: str) -> int | None:
    """How many messages crossed upwards in the trial; None where nobody can say."""
    if not ledger.is_file():
        return None
    query = (
        "SELECT count(*) FROM entries WHERE direction = 'up'"
        " AND (chain = ?1 OR chain GLOB ?1 || '/*')"
    )
    with closing(connect(ledger)) as db:
        return int(db.execute(query, (trial,)).fetchone()[0])


def _whole_run(run: DataRun, there: Iterable[str]) -> Iterator[ForgetStep]:
    """The step for the run itself where none of its artifacts brings one: its data file changes, so
    that it has to be made again also where it never had the record."""
    if not set(there):
        yield ForgetStep(
            method=Method.RETRAIN,
            kind=ArtifactKind.MEASUREMENT,
            place=str(run.folder),
            note="made again, as its data file is another",
        )


def _deleted(step: ForgetStep) -> ForgetStep:
    return _changed(step, method=Method.DELETE)


def _cost(store: Store) -> RemakingCost:
    query = "SELECT count(*), sum(cpu_seconds), sum(seconds) FROM items"
    answers, cpu, seconds = store.rows(query)[0]
    return RemakingCost(int(answers), float(cpu or 0), float(seconds or 0))


def _positions(path: Path, places: Iterable[str]) -> str:
    """Which rows, as `data_rows` reads them again: by number, which says nothing of anybody."""
    return json.dumps(sorted(place.removeprefix(f"{path} ") for place in places))


def _changed(step: ForgetStep, **changes: object) -> ForgetStep:
    return replace(step, **changes)  # type: ignore[arg-type]


def counted(count: int, what: str) -> str:
    """So many of them."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def said(plan: ForgetPlan, *, retrain: bool) -> list[str]:
    """The plan in lines, in the order in which it would be carried out."""
    lines = [f"to forget {counted(plan.records, 'record')}:"]
    for method, steps in _grouped(plan.steps):
        lines.append(f"  {method}")
        lines += [f"    {line}" for line in _lines(steps)]
    lines += [f"note: {note}" for note in plan.notes]
    cost = plan.cost
    if retrain:
        lines.append(
            f"cost: {cost.answers} answers are made again, which took {cost.cpu_seconds:.0f} s of CPU, "
            "training not counted; no large model is called"
        )
    else:
        lines.append("cost: nothing is made again; `cosilo bench` does it when you want it")
    return lines


def _grouped(steps: Sequence[ForgetStep]) -> Iterator[tuple[str, list[ForgetStep]]]:
    found: dict[str, list[ForgetStep]] = {}
    for step in steps:
        name = str(step.method)
        if step.method is Method.ASK:
            name += (
                f", to be answered until {time.strftime('%Y-%m-%d', time.gmtime(step.deadline))}"
            )
        elif step.state is StepState.OPEN:
            name = "open, waits for others"
        found.setdefault(name, []).append(step)
    yield from found.items()


def _lines(steps: Sequence[ForgetStep]) -> Iterator[str]:
    """Several things of one kind in one place are one line."""
    counted: dict[tuple[str, str, str], int] = {}
    for step in steps:
        note = "" if step.kind == ArtifactKind.DATA and step.note.startswith("[") else step.note
        of_run = step.kind in WITH_RUN and not (
            note.startswith("made")
            or step.artifact.startswith(FITTED)
            or step.method is Method.SHRED
        )
        key = (step.kind, step.place, "" if of_run else note)
        counted[key] = counted.get(key, 0) + 1
    for (kind, place, note), count in counted.items():
        times = f"{count} × " if count > 1 else ""
        yield f"{times}{kind or 'all'} in {place}" + (f" ({note})" if note else "")
