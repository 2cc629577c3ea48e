"""What was made from some records, folded so that a page can show it: counts, kinds and points.

    records (layer 0) ──▶ what was made from them (1) ──▶ what was made from that (2) ──▶ …

An artifact's layer is the longest way to it, so every edge goes to a later layer. Neither ids of
artifacts nor their places are shown: whoever named a file may have named it after somebody.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cosilo.lineage.artifacts import Artifact, ArtifactKind
from cosilo.lineage.graph import LineageGraph, RecordSet
from cosilo.lineage.requests import ForgetStep, Method, StepState
from cosilo.tasks.base import SPLITS

MOST = 12
"""So many boxes stand in a layer before those of one kind become one."""


class Became(StrEnum):
    """What became, or would become, of something that was made from records."""

    STANDS = "stands"
    AGAIN = "made again"
    DELETED = "deleted"
    WITHDRAWN = "withdrawn"
    ASKED = "asked of another party"
    UNREACHABLE = "cannot be reached"


_BY: Mapping[str, Became] = {
    Method.DELETE: Became.DELETED,
    Method.SHRED: Became.DELETED,
    Method.RETRAIN: Became.AGAIN,
    Method.RECHOOSE: Became.AGAIN,
    Method.UNLEARN: Became.AGAIN,
    "made anew": Became.AGAIN,
    Method.WITHDRAW: Became.WITHDRAWN,
    Method.TAKE_DOWN: Became.WITHDRAWN,
    Method.ASK: Became.ASKED,
    Method.NONE: Became.UNREACHABLE,
}
_KINDS = {kind: at for at, kind in enumerate(ArtifactKind)}


def after_step(step: ForgetStep) -> Became:
    """What is to become of the artifact of a step, by its method. What waits for others is asked of
    them, and deleted once they signed that it is."""
    if step.method is Method.ASK and step.state is StepState.DONE:
        return Became.DELETED
    if step.state is StepState.UNREACHABLE:
        return Became.UNREACHABLE
    if step.state is StepState.OPEN:
        return Became.ASKED
    return _BY.get(step.method, Became.STANDS)


@dataclass(frozen=True, kw_only=True)
class MadeBox:
    """One box: a set of records, or all artifacts of one kind, layer, state and (if few) maker.

    Attributes:
        layer: 0 for records.
        title: what it is.
        detail: by what it was made, or how many records.
        count: how many artifacts.
        became: None for records.
    """

    layer: int
    title: str
    detail: str
    count: int = 1
    became: Became | None = None


@dataclass(frozen=True, kw_only=True)
class MadeFromRecords:
    """What a page shows of a lineage.

    Attributes:
        boxes: by layer.
        edges: (number of a box, number of one made from it), sorted.
        artifacts: how many there are in all.
    """

    boxes: tuple[MadeBox, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def artifacts(self) -> int:
        return sum(box.count for box in self.boxes if box.became is not None)


def made_from(graph: LineageGraph, to_be: Mapping[str, Became] | None = None) -> MadeFromRecords:
    """`graph`, folded.

    Args:
        to_be: id of an artifact that is not gone → what becomes of it; it stands where not given.
    """
    to_be = {} if to_be is None else to_be
    layers = _layers(graph)
    became = {a.id: _became(a, to_be) for a in graph.artifacts}
    keys = {
        a.id: (layers[a.id], _KINDS[a.kind], a.made_by, list(Became).index(became[a.id]))
        for a in graph.artifacts
    }
    crowded = Counter(layer for layer, *_ in set(keys.values()))
    for id, (layer, kind, _, state) in keys.items():
        if crowded[layer] > MOST:
            keys[id] = (layer, kind, "", state)
    members: dict[tuple[int, int, str, int], list[Artifact]] = defaultdict(list)
    for artifact in graph.artifacts:
        members[keys[artifact.id]].append(artifact)
    boxes, of_set = _sets(graph)
    if graph.from_alone:
        boxes.append(MadeBox(layer=0, title="single records", detail=_records(graph.alone)))
    alone = len(boxes) - 1
    number = {}
    for key in sorted(members):
        number[key] = len(boxes)
        boxes.append(_box(key[0], members[key], became))
    at = {id: number[key] for id, key in keys.items()}
    edges = {(of_set[name], at[id]) for name, id in graph.from_sets}
    edges |= {(alone, at[id]) for id in graph.from_alone}
    edges |= {(at[source], at[id]) for source, id in graph.from_artifacts}
    return MadeFromRecords(boxes=tuple(boxes), edges=tuple(sorted(edges)))


def _layers(graph: LineageGraph) -> dict[str, int]:
    sources: dict[str, list[str]] = defaultdict(list)
    for source, id in graph.from_artifacts:
        sources[id].append(source)
    layers: dict[str, int] = {}
    for artifact in graph.artifacts:  # each comes after its sources
        layers[artifact.id] = 1 + max((layers[s] for s in sources[artifact.id]), default=0)
    return layers


def _became(artifact: Artifact, to_be: Mapping[str, Became]) -> Became:
    if artifact.gone:
        return _BY.get(artifact.gone, Became.DELETED)
    return to_be.get(artifact.id, Became.STANDS)


def _box(layer: int, artifacts: list[Artifact], became: Mapping[str, Became]) -> MadeBox:
    first = artifacts[0]
    makers = {a.made_by for a in artifacts}
    what = "points" if not any(maker.startswith("cosilo ") for maker in makers) else "makers"
    detail = first.made_by if len(makers) == 1 else f"by {len(makers):,} {what}"
    return MadeBox(
        layer=layer,
        title=_WORDS.get(first.kind, str(first.kind)),
        detail=detail,
        count=len(artifacts),
        became=became[first.id],
    )


_WORDS: Mapping[ArtifactKind, str] = {
    ArtifactKind.DATA: "copy of the data",
    ArtifactKind.STATE: "state of preparing",
    ArtifactKind.MEASUREMENT: "answers and measures",
    ArtifactKind.SEALED: "record of what crossed",
    ArtifactKind.ANSWER: "recorded answers",
}


def _sets(graph: LineageGraph) -> tuple[list[MadeBox], dict[str, int]]:
    """The boxes of the sets, and each set's number among them. Data are numbered as they were first
    used; a set that is not a split of a task says no more than that it is one."""
    used = {artifact.id: at for at, artifact in enumerate(graph.artifacts)}
    splits = {s.name: _split(s.name) for s in graph.sets}
    first: dict[str, int] = {}
    for name, id in graph.from_sets:
        data, _ = splits[name]
        first[data] = min(used[id], first.get(data, used[id]))
    order = sorted(first, key=first.__getitem__)
    numbers = {data: at for at, data in enumerate((d for d in order if d), 1)}
    found: dict[tuple[str, str], list[RecordSet]] = defaultdict(list)
    for one in sorted(graph.sets, key=lambda s: (order.index(splits[s.name][0]), _at(s.name))):
        _, split = splits[one.name]
        title = f"{split} split" if split else "set of records"
        found[title, "" if len(graph.sets) > MOST else one.name].append(one)
    boxes: list[MadeBox] = []
    of_set: dict[str, int] = {}
    for (title, _), inside in found.items():
        detail = f"{len(inside):,} sets"
        if len(inside) == 1:
            (one,) = inside
            some = f"{one.records:,} of " if one.records != one.size else ""
            number = numbers.get(splits[one.name][0])
            data = f", data {number}" if number and len(numbers) > 1 else ""
            detail = f"{some}{_records(one.size)}{data}"
        of_set |= {one.name: len(boxes) for one in inside}
        boxes.append(MadeBox(layer=0, title=title, detail=detail))
    return boxes, of_set


def _split(name: str) -> tuple[str, str]:
    """The task and the split that a set is of; both empty where it is of none."""
    kind, _, rest = name.partition("/")
    task, _, split = rest.rpartition("/")
    return (task, split) if kind == "task" and task and split in SPLITS else ("", "")


def _at(name: str) -> tuple[int, str]:
    _, split = _split(name)
    return (SPLITS.index(split) if split else len(SPLITS)), name


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"
