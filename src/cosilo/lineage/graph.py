"""What was made from what, as a graph that names no record: sets and single records are counted."""

from __future__ import annotations

from dataclasses import dataclass

from cosilo.lineage.artifacts import Artifact


@dataclass(frozen=True, kw_only=True)
class RecordSet:
    """A named set of records.

    Attributes:
        records: how many of the records that were asked for are in it.
        size: how many records are in it.
    """

    name: str
    records: int
    size: int


@dataclass(frozen=True, kw_only=True)
class LineageGraph:
    """All that was made from some records, also what is gone, and by what way.

    Attributes:
        artifacts: each after what it was made from.
        sets: those that hold any of the records, by name.
        alone: how many records something was made from directly, without a set.
        from_alone: ids of artifacts that were made from those.
        from_sets: (name of a set, id of an artifact made from it).
        from_artifacts: (id of an artifact, id of one made from it).
    """

    artifacts: tuple[Artifact, ...]
    sets: tuple[RecordSet, ...] = ()
    alone: int = 0
    from_alone: frozenset[str] = frozenset()
    from_sets: frozenset[tuple[str, str]] = frozenset()
    from_artifacts: frozenset[tuple[str, str]] = frozenset()
