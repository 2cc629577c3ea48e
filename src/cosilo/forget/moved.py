"""Where runs and data are now that were moved since a request about them began.

A request's steps name places. A run that moves takes its own lineage along, in which the request stands
with the place that it was at; data move with the folder in which the request is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from cosilo.forget.erasure import finished
from cosilo.forget.home import DataHome, DataRun
from cosilo.lineage.requests import ForgetRequest, ForgetStep, Method
from cosilo.lineage.store import Lineage, has_lineage

NOT_THERE = (
    "no run of these files is there any more: put it back there, or name the folder it is in now with "
    "--runs, or say with --deleted that it was deleted, and forget again"
)

_WAS_HERE = "where the run was when the request began"


def note_request(run: DataRun, ids: Collection[str], request: str) -> None:
    """Note the request in the run's own lineage, and where the run is."""
    step = ForgetStep(method=Method.NONE, place=str(run.folder), note=_WAS_HERE)
    with Lineage(run.folder) as there:
        there.begin([there.name(id) for id in ids], (step,), id=request)


def follow(home: DataHome, lineage: Lineage) -> None:
    """Note in the steps of requests that are not finished where their runs and data are now; what is
    where it was, and what nobody finds, stays as it is."""
    for request in lineage.requests():
        if finished(request, home.folder):
            continue
        ways = [*_of_runs(home, request), *_of_home(home, request)]
        for number, step in enumerate(request.steps):
            place, note = _now(Path(step.place), ways), Path(step.note)
            if place is not None:
                lineage.move(request.id, number, step.state, place=str(place))
            if note.is_absolute() and (file := _now(note, ways)) is not None:
                lineage.move(request.id, number, step.state, note=str(file))


def _now(place: Path, ways: Sequence[tuple[Path, Path]]) -> Path | None:
    """Where it is by one of the ways that its folder went; None where it was, or nobody knows."""
    if place.exists():
        return None
    there = (new / place.relative_to(old) for old, new in ways if place.is_relative_to(old))
    return next(filter(Path.exists, there), None)


def _of_runs(home: DataHome, request: ForgetRequest) -> Iterator[tuple[Path, Path]]:
    """Where runs of the home were, and are."""
    for run in home.runs:
        if has_lineage(run.folder):
            with Lineage(run.folder, write=False) as there:
                known = [r.steps for r in there.requests() if r.id == request.id]
            yield from (
                (Path(step.place), run.folder)
                for steps in known
                for step in steps
                if step.note == _WAS_HERE
            )


def _of_home(home: DataHome, request: ForgetRequest) -> Iterator[tuple[Path, Path]]:
    """Where the folder was that the request is kept in, and is."""
    for step in request.steps:
        if step.method is Method.VERIFY:
            yield Path(step.place), home.folder
