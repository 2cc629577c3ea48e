"""The page of what was made from records: all of it, counted, and nothing that names anybody."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import made_up
from cosilo.lineage.artifacts import Artifact, ArtifactKind, MadeFrom
from cosilo.lineage.graph import LineageGraph
from cosilo.lineage.requests import ForgetStep, Method, StepState
from cosilo.lineage.store import Lineage
from cosilo.report.html import html
from cosilo.report.made_from import MOST, Became, MadeFromRecords, after_step, made_from
from cosilo.report.page.made_from import lineage_section
from pages import HOSTILE, Page

CANARY = "patient-4711-kel"


def artifact(id: str, kind: ArtifactKind, by: str = "") -> Artifact:
    return Artifact(id=id, kind=kind, place=f"/out/{CANARY}", made_by=by)


def graph_of(folder: Path, points: int = 2, *, by: str = "point") -> LineageGraph:
    """Trials of some points, what each made, and a report of them all."""
    lineage = Lineage(folder)
    with lineage.together():
        lineage.gather("task/1f/train", [CANARY, "b", "c"])
        lineage.gather("task/1f/test", ["d"])
        lineage.gather(f"round/{CANARY}", [CANARY])
        trained = frozenset({"task/1f/train", f"round/{CANARY}"})
        for n in range(points):
            trial = f"trial/{n}"
            lineage.note(artifact(trial, ArtifactKind.STATE, f"{by} {n}"), MadeFrom(sets=trained))
            source = frozenset({trial})
            for kind in (ArtifactKind.HEAD, ArtifactKind.ABROAD):
                lineage.note(
                    artifact(f"{trial}/{kind}", kind, f"{by} {n}"),
                    MadeFrom(artifacts=source, sets=frozenset({"task/1f/test"})),
                )
        prompt = artifact("prompt", ArtifactKind.PROMPT)
        lineage.note(prompt, MadeFrom(records=frozenset({CANARY})))
        trials = frozenset(f"trial/{n}" for n in range(points))
        report = artifact("report", ArtifactKind.REPORT, "cosilo report")
        lineage.note(
            report, MadeFrom(artifacts=trials | {f"trial/{n}/head" for n in range(points)})
        )
        lineage.gone("trial/0/head", "chosen again")
    with lineage:
        return lineage.graph([CANARY])


def reached(made: MadeFromRecords) -> set[tuple[str, str]]:
    return {(made.boxes[a].title, made.boxes[b].title) for a, b in made.edges}


def test_all_that_was_made_is_there_by_the_ways_it_was_made(tmp_path: Path) -> None:
    graph = graph_of(tmp_path)
    made = made_from(graph, {"trial/1/sent to another party": Became.UNREACHABLE})
    assert made.artifacts == len(graph.artifacts) == 8
    assert all(made.boxes[a].layer < made.boxes[b].layer for a, b in made.edges)
    assert reached(made) == {
        ("set of records", "state of preparing"),
        ("train split", "state of preparing"),
        ("single records", "prompt"),
        ("state of preparing", "head"),
        ("state of preparing", "sent to another party"),
        ("state of preparing", "report"),
        ("head", "report"),
    }
    told = {(box.title, box.detail): box.became for box in made.boxes}
    assert told["train split", "1 of 3 records"] is None
    assert told["single records", "1 record"] is None
    assert told["head", "point 0"] is Became.AGAIN
    assert told["head", "point 1"] is Became.STANDS
    assert told["sent to another party", "point 1"] is Became.UNREACHABLE


def test_many_of_one_kind_are_one_box_with_their_number(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, points=60)
    made = made_from(graph)
    assert len(made.boxes) <= 12
    assert made.artifacts == len(graph.artifacts) == 182
    folded = {(b.title, b.count, b.detail, b.became) for b in made.boxes}
    assert ("state of preparing", 60, "by 60 points", Became.STANDS) in folded
    assert ("head", 59, "by 59 points", Became.STANDS) in folded
    assert ("head", 1, "point 0", Became.AGAIN) in folded
    small = made_from(graph_of(tmp_path / "small", points=2))
    assert reached(made) == reached(small), "folding loses no way"


def test_many_sets_are_one_box_of_a_split(tmp_path: Path) -> None:
    with Lineage(tmp_path) as lineage:
        sets = {f"task/{n:02}/train" for n in range(MOST + 1)}
        for name in sets:
            lineage.gather(name, [CANARY])
        lineage.note(artifact("head", ArtifactKind.HEAD), MadeFrom(sets=frozenset(sets)))
        made = made_from(lineage.graph())
    assert [(b.title, b.detail) for b in made.boxes] == [("train split", "13 sets"), ("head", "")]
    assert made.edges == ((0, 1),)


def test_data_are_numbered_as_they_were_used(tmp_path: Path) -> None:
    with Lineage(tmp_path) as lineage:
        for data in ("ff", "aa"):
            for split in ("tune", "train"):
                lineage.gather(f"task/{data}/{split}", [CANARY, data])
                made = artifact(f"{data}/{split}", ArtifactKind.HEAD)
                lineage.note(made, MadeFrom(sets=frozenset({f"task/{data}/{split}"})))
        found = made_from(lineage.graph())
    assert [(b.title, b.detail) for b in found.boxes if b.layer == 0] == [
        ("train split", "2 records, data 1"),
        ("tune split", "2 records, data 1"),
        ("train split", "2 records, data 2"),
        ("tune split", "2 records, data 2"),
    ]


@pytest.mark.parametrize(
    ("method", "state", "expected"),
    [
        (Method.RETRAIN, StepState.PLANNED, Became.AGAIN),
        (Method.DELETE, StepState.DONE, Became.DELETED),
        (Method.TAKE_DOWN, StepState.PLANNED, Became.WITHDRAWN),
        (Method.ASK, StepState.PLANNED, Became.ASKED),
        (Method.ASK, StepState.APPROXIMATE, Became.ASKED),
        (Method.ASK, StepState.UNREACHABLE, Became.UNREACHABLE),
        (Method.ASK, StepState.DONE, Became.DELETED),
        (Method.TAKE_DOWN, StepState.OPEN, Became.ASKED),
        (Method.NONE, StepState.UNREACHABLE, Became.UNREACHABLE),
    ],
)
def test_what_becomes_of_it_is_what_its_step_does(
    method: Method, state: StepState, expected: Became
) -> None:
    assert after_step(ForgetStep(method=method, state=state)) is expected


def test_picture_and_table_say_the_same_and_nothing_more(tmp_path: Path) -> None:
    made = made_from(graph_of(tmp_path))
    text = lineage_section("lineage", "Made", made)
    page = Page(text)
    assert page.open == []
    assert CANARY not in text
    assert "kel" not in text
    assert "trial/" not in text
    assert len([p for p in page.of("path") if p.get("class") == "edge"]) == len(made.edges)
    assert len(page.of("rect")) == len(made.boxes) == len(page.of("tr")) - 1
    for box in made.boxes:
        for said in filter(None, (box.title, box.detail, box.became)):
            assert any(said in row for row in page.texts["tr"]), "the table has it"
            assert any(said in group for group in page.texts["g"]), "the picture has it"
    assert [b.get("tabindex") for b in page.of("div") if b.get("role") == "region"] == ["0", "0"]


def test_states_differ_without_their_colours(tmp_path: Path) -> None:
    made = made_from(graph_of(tmp_path))
    boxes = tuple(replace(made.boxes[-1], became=state) for state in Became)
    page = Page(lineage_section("x", "Made", MadeFromRecords(boxes=boxes, edges=())))
    marks = {p["d"] for p in page.of("path") if p.get("class") == "mark"}
    assert len(marks) == len(Became)
    for state in Became:
        assert state in page.texts["text"]


def test_no_name_breaks_out_of_its_place(tmp_path: Path) -> None:
    made = made_from(graph_of(tmp_path, by=HOSTILE))
    text = html(replace(made_up.report(), made_from=made))
    page = Page(text)
    assert page.open == []
    assert page.of("img") == []
    assert len(page.of("script")) == 2
    assert not any(re.match("on|style", name) for _, found in page.elements for name in found)
    assert '<a href="#lineage">' in text


def test_a_run_that_noted_nothing_has_no_such_section() -> None:
    assert 'id="lineage"' not in html(made_up.report())
