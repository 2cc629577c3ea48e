"""What stands in a run's database: its tables, and the values that their rows are read into."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cosilo.objectives.base import Floats, Measurement
from cosilo.types import Sampling

Pass = Literal["plain", "tampered"]
PASSES: tuple[Pass, ...] = ("plain", "tampered")
Road = str
"""A pass, as it crossed to one other side: the pass's own name for the first of them, and
`PASS/peers/NAME` for another."""
PUBLIC: Literal["public"] = "public"
"""Under which a task's public questions are kept, beside its splits."""
State = Literal["new", "done", "failed", "unaffordable"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS trials (
    id TEXT PRIMARY KEY, point TEXT NOT NULL, settings TEXT NOT NULL, state TEXT NOT NULL,
    attempt INTEGER, memory INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, about BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS examples (
    task TEXT NOT NULL, split TEXT NOT NULL, position INTEGER NOT NULL, example BLOB NOT NULL,
    PRIMARY KEY (task, split, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
    trial TEXT NOT NULL, pass TEXT NOT NULL, split TEXT NOT NULL, id TEXT NOT NULL,
    attempt INTEGER NOT NULL, answer BLOB NOT NULL, grade REAL NOT NULL, seconds REAL NOT NULL,
    cpu_seconds REAL NOT NULL, small_text TEXT NOT NULL, refused TEXT NOT NULL,
    PRIMARY KEY (trial, pass, split, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS faults (
    trial TEXT NOT NULL, pass TEXT NOT NULL, split TEXT NOT NULL, id TEXT NOT NULL,
    fault TEXT NOT NULL, PRIMARY KEY (trial, pass, split, id, fault)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    trial TEXT NOT NULL, pass TEXT NOT NULL, split TEXT NOT NULL, id TEXT NOT NULL,
    sent INTEGER NOT NULL, count INTEGER NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (trial, pass, split, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heads (
    trial TEXT NOT NULL, pass TEXT NOT NULL, count INTEGER NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (trial, pass)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (
    trial TEXT NOT NULL, split TEXT NOT NULL, version TEXT NOT NULL, measured BLOB NOT NULL,
    PRIMARY KEY (trial, split)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS guesses (
    trial TEXT NOT NULL, split TEXT NOT NULL, attack TEXT NOT NULL, version TEXT NOT NULL,
    made BLOB NOT NULL, PRIMARY KEY (trial, split, attack)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cards (
    trial TEXT NOT NULL, pass TEXT NOT NULL, cards BLOB NOT NULL, PRIMARY KEY (trial, pass)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS preparing (
    trial TEXT PRIMARY KEY, seconds REAL NOT NULL,
    cpu_seconds REAL NOT NULL, memory INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS said (trial TEXT PRIMARY KEY, said BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS small (key BLOB PRIMARY KEY, answer BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS paid (
    number INTEGER PRIMARY KEY, settled INTEGER NOT NULL, messages INTEGER NOT NULL,
    bytes_up INTEGER NOT NULL, bytes_down INTEGER NOT NULL, tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, usd REAL NOT NULL, epsilon REAL NOT NULL, seconds REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS leases (
    folder TEXT PRIMARY KEY, messages INTEGER NOT NULL, bytes_up INTEGER NOT NULL,
    bytes_down INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    usd REAL NOT NULL, epsilon REAL NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Trial:
    """One point on one task with given models and seed, and how far it came.

    Attributes:
        id: the hash of everything that decides the outcome.
        settings: those decisions, as JSON text.
        attempt: the ledger attempt whose `prepare` was the last to end; None before any.
        memory: peak bytes of the process that ran it.
    """

    id: str
    point: str
    settings: str
    state: State = "new"
    attempt: int | None = None
    memory: int = 0
    error: str = ""

    @property
    def sides(self) -> tuple[str, ...]:
        """The names of the other sides, the first of them `Session.lm`, where it speaks to several."""
        return tuple(json.loads(self.settings).get("sides", ()))

    @property
    def named(self) -> tuple[str, ...]:
        """The same, and that of the only one where the point names it; empty where it is the plan's
        first."""
        return self.sides or tuple(json.loads(self.settings).get("peers", ()))

    def roads(self, which: Pass) -> tuple[Road, ...]:
        """Of a pass, one road to each other side, in the order of `sides`."""
        return (which, *(f"{which}/peers/{name}" for name in self.sides[1:]))


@dataclass(frozen=True)
class Mark:
    """Where a trial's chain stood when an item was answered, or when the trial was finished.

    Attributes:
        count, hash: the entries it held, and the last one's hash.
        sent: the messages that left for the item.
    """

    count: int
    hash: bytes
    sent: int = 0


@dataclass(frozen=True)
class Answered:
    """How an item was answered.

    Attributes:
        attempt: of the ledger.
        mark: None where an older version answered it.
        asked: the LM had a part in the answer.
    """

    attempt: int
    mark: Mark | None
    asked: bool


@dataclass(frozen=True)
class About:
    """A task without its data and its grading.

    Attributes:
        id: `task_identity` of the plan.
        items: split → how many examples it holds.
        sampling: how answers are asked for; None in runs that do not keep the whole task.
    """

    id: str
    name: str
    kind: str
    items: dict[str, int]
    labels: tuple[str, ...]
    gold_secrets: bool
    notes: tuple[str, ...]
    sampling: Sampling | None = None
    instructions: str = ""


@dataclass(frozen=True)
class Result:
    """A trial's numbers on one split.

    Attributes:
        values: objective → one value per item, for the objectives that are means.
    """

    measurements: tuple[Measurement, ...]
    values: Mapping[str, Floats]
