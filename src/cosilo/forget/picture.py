"""What was made from some records, and what becomes of it, as a page without an id or a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cosilo.errors import CosiloError
from cosilo.forget.elsewhere import peer_of
from cosilo.forget.home import DataHome, RecordRows, ids_in, kept_in, run_at
from cosilo.forget.planning import ForgetPlan, counted
from cosilo.lineage.artifacts import Artifact, ArtifactKind
from cosilo.lineage.graph import LineageGraph
from cosilo.lineage.requests import ForgetStep, Method, StepState
from cosilo.lineage.store import Lineage, has_lineage
from cosilo.report.html import whole_page
from cosilo.report.made_from import Became, after_step, made_from
from cosilo.report.markup import joined, tag
from cosilo.report.page.made_from import lineage_section


def plan_page(home: DataHome, records: RecordRows, plan: ForgetPlan) -> str:
    """The plan as HTML: for each run, what was made from `records`, and what would become of it.

    Raises:
        StoreError: a run's lineage cannot be read.
    """
    sections = []
    for number, run in enumerate(home.runs, 1):
        with Lineage(run.folder, write=False) as lineage:
            graph = lineage.graph(ids_in(run, records.rows))
        made = made_from(graph, _by_steps(graph.artifacts, plan.steps, run.folder))
        name = run.plan.name if len(home.runs) == 1 else f"{run.plan.name}, run {number}"
        if not made.boxes:
            said = tag("p", "Nothing was made from these records in this run.", class_="note")
            sections.append(tag("section", tag("h2", name), said, id=f"run-{number}"))
            continue
        sections.append(
            lineage_section(
                f"run-{number}",
                name,
                made,
                f"{made.artifacts:,} things were made from the records in this run. What is marked "
                "as made again is what a run would have made that never saw them.",
            )
        )
    count = counted(plan.records, "record")
    title = f"What would become of what was made from {count}"
    body = joined(
        tag(
            "header",
            tag("div", "Cosilo: a plan to forget; nothing is changed yet", class_="over"),
            tag("h1", title),
            tag(
                "p",
                "From left to right: in which sets the records are, what was made from them, and what "
                "was made from that. The page names no record.",
            ),
        ),
        tag("main", *sections),
        tag("footer", "Made by Cosilo. This file is whole: it asks no network for anything."),
    )
    return whole_page(title, body)


def known_of(run: Path, graph: LineageGraph) -> dict[str, Became]:
    """What requests to forget say of what still stands in the graph of the run in the folder `run`, by
    the artifact's id; empty where there are none, or nobody can say."""
    known: dict[str, Became] = {}
    try:
        found = run_at(run)
        for folder in kept_in(found.files):
            if has_lineage(folder):
                with Lineage(folder, write=False) as lineage:
                    requests = lineage.requests()
                for request in requests:
                    before = [a for a in graph.artifacts if a.at <= request.at]
                    steps = [step for step in request.steps if _told(step)]
                    known |= _by_steps(before, steps, found.folder)
    except CosiloError:
        pass
    return known


def _told(step: ForgetStep) -> bool:
    """It says what became of something. What is at home stands until the step is done, and is gone from
    then on."""
    if step.kind == ArtifactKind.ABROAD:
        return step.settled or step.state is StepState.OPEN
    return step.state in (StepState.OPEN, StepState.UNREACHABLE)


def _by_steps(
    artifacts: Iterable[Artifact], steps: Sequence[ForgetStep], folder: Path
) -> dict[str, Became]:
    """What steps about a run make of these; one that asks a party is about all that it was sent."""
    here = [step for step in steps if step.place == str(folder)]
    one = {step.artifact: after_step(step) for step in here}
    party = {peer_of(step): after_step(step) for step in here if step.method is Method.ASK}
    found: dict[str, Became] = {}
    for artifact in artifacts:
        if artifact.id in one:
            found[artifact.id] = one[artifact.id]
        elif artifact.kind is ArtifactKind.ABROAD and artifact.place in party:
            found[artifact.id] = party[artifact.place]
    return found
