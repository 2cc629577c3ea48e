"""What a report says of what other parties have, by the requests beside the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cosilo.forget import picture
from cosilo.lineage.artifacts import Artifact, ArtifactKind
from cosilo.lineage.graph import LineageGraph
from cosilo.lineage.requests import Evidence, ForgetStep, Method, StepState
from cosilo.lineage.store import Lineage
from cosilo.report.made_from import Became


class FoundRun:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "run"
        self.files = (folder / "data.csv",)


def sent(trial: str, peer: str) -> Artifact:
    return Artifact(id=f"trial/{trial}/sent/{peer}", kind=ArtifactKind.ABROAD, place=peer, at=1.0)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (StepState.PLANNED, None),
        (StepState.OPEN, Became.ASKED),
        (StepState.DONE, Became.DELETED),
        (StepState.UNREACHABLE, Became.UNREACHABLE),
    ],
)
def test_one_that_was_asked_was_asked_of_all_it_had_been_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: StepState, expected: Became | None
) -> None:
    monkeypatch.setattr(picture, "run_at", lambda _: FoundRun(tmp_path))
    first, second, other = sent("1", "large"), sent("2", "large"), sent("1", "other")
    head = Artifact(id="trial/1/head", kind=ArtifactKind.HEAD, at=1.0)
    with Lineage(tmp_path) as lineage:
        here = str(tmp_path / "run")
        asked = ForgetStep(
            method=Method.ASK, artifact=second.id, kind=ArtifactKind.ABROAD, place=here
        )
        home = ForgetStep(method=Method.DELETE, artifact=head.id, kind=head.kind, place=here)
        request = lineage.begin([b"x" * 16], [asked, home])
        lineage.move(request.id, 0, state, evidence=Evidence(what="told"))
        lineage.move(request.id, 1, StepState.DONE)
    later = replace(sent("3", "large"), at=request.at + 1)
    graph = LineageGraph(artifacts=(first, second, other, head, later))
    wanted = {} if expected is None else {first.id: expected, second.id: expected}
    assert picture.known_of(tmp_path / "run", graph) == wanted


def test_where_nothing_can_be_read_nothing_is_said(tmp_path: Path) -> None:
    assert picture.known_of(tmp_path, LineageGraph(artifacts=(sent("1", "large"),))) == {}
