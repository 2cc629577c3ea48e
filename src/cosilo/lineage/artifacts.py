"""What can be made from records, and what each was made from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ArtifactKind(StrEnum):
    """The closed list. Whoever keeps something of another kind adds it here, and says in
    `cosilo forget` what becomes of it."""

    DATA = "data"
    """A copy of records themselves: a data file, a run's table of examples, an index of documents."""
    HEAD = "head"
    """A classifier's last layer, or any small model that is fitted anew in seconds."""
    ADAPTER = "adapter"
    WEIGHTS = "weights"
    """A model's weights, trained as a whole or merged with an adapter."""
    THRESHOLD = "threshold"
    ROUTER = "router"
    PROMPT = "prompt"
    """Instructions or demonstrations that were chosen or written from records."""
    SYNTHETIC = "synthetic text"
    STATE = "state"
    """Work under way: a checkpoint, votes of private evolution, an interrupted trial."""
    ANSWER = "recorded answer"
    """What a model answered to a request that held a record."""
    SEALED = "sealed content"
    """Messages and requests on record: a ledger's, a gateway's."""
    VAULT = "vault"
    """Values that placeholders stand for."""
    AGGREGATE = "aggregate"
    """What came of a round of a federation, or of a sum over owners."""
    MEASUREMENT = "measurement"
    """Answers, grades and measures of a run that records went into."""
    CERTIFICATE = "certificate"
    REPORT = "report"
    BUNDLE = "exported bundle"
    """Any file or folder that was written to be taken elsewhere."""
    SERVED = "served point"
    ABROAD = "sent to another party"
    """What another party was given, and may have made something from."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Something that was made from records.

    Attributes:
        id: its name in the lineage, e.g. `trial/1f…/head`; never text of a record.
        place: where it is: a path, relative to the lineage's folder or absolute, with `#` before the
            part of a file; or the name of the party that has it.
        made_by: the command, trial or strategy that made it.
        at: when it was noted, in seconds of the machine's clock.
        gone: how it was undone; empty while it stands.
    """

    id: str
    kind: ArtifactKind
    place: str = ""
    made_by: str = ""
    at: float = 0.0
    gone: str = ""


@dataclass(frozen=True, kw_only=True)
class MadeFrom:
    """What an artifact was made from. All that is named counts, in each of the three.

    Attributes:
        records: ids of single records, as their data set calls them.
        sets: names of sets that `Lineage.gather` was told.
        artifacts: ids of artifacts that `Lineage.note` was told.
    """

    records: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    artifacts: frozenset[str] = frozenset()
