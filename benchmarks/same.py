"""Says whether two runs are the same: every answer, every number, every byte that crossed.

    python benchmarks/same.py RUN_A RUN_B
    python benchmarks/same.py before/demo/run after/demo/run --as "demo, from the old recording"

Compared are, by the points' names:

* the trials' identities, so that neither version would do again what the other has done;
* each item's answer, grade and refusal, what the small model said, and what preparing found;
* each objective's value, n, interval, baseline and note on every split, and its value of every item;
* what crossed, byte by byte: of each chain and request, every message with its reply, in order. Where
  the same messages crossed in another order, as those that are sent side by side may, that is said.

How long anything took on this machine and how much memory is not compared: objectives in ms and MB, an
answer's seconds. Seconds that the LM took stand in its replies, which are. What only RUN_B measures is
said and is no difference. With `--as` what was found is added to benchmarks/results/same.json, with the
messages that each has paid for. Exit code 1 where anything differs. No text of a run is shown.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec.structs import replace

from cosilo.boundary.record.ledger import read_entries
from cosilo.objectives.base import Measurement
from cosilo.strategies.cards import Card
from cosilo.types import Answer
from kept import Kept

TIMED = ("ms", "MB")
"""How the units begin of what the machine decides."""

SHOWN = 10  # differences of one kind


@dataclass
class Found:
    """What was compared of one kind, and what differs.

    Attributes:
        values: how many were compared.
        different: where they differ.
        notes: what is no difference, and good to know.
    """

    what: str
    values: int = 0
    different: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.what}: {self.values:,} compared, {len(self.different):,} different"]
        lines += [f"    {where}" for where in self.different[:SHOWN]]
        if len(self.different) > SHOWN:
            lines.append(f"    and {len(self.different) - SHOWN:,} more")
        return "\n".join([*lines, *(f"    ({note})" for note in self.notes)])


class Run:
    """A run's files, read only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        about = json.loads((path / "run.json").read_text("utf-8"))
        self.points: dict[str, str] = about["points"]

    def identities(self) -> dict[str, object]:
        """Point → the trial's identity and how it ended."""
        with _read(self.path / "run.sqlite") as db:
            states = dict(db.execute("SELECT id, state FROM trials"))
        return {point: (id, states.get(id)) for point, id in self.points.items()}

    def answers(self) -> dict[str, object]:
        """Point, pass, split and item → all that became of the item, its times left out."""
        query = (
            "SELECT pass, split, id, answer, grade, small_text, refused FROM items WHERE trial = ?"
        )
        faults = "SELECT pass, split, id, fault FROM faults WHERE trial = ? ORDER BY fault"
        found: dict[str, object] = {}
        with _read(self.path / "run.sqlite") as db:
            for point, trial in self.points.items():
                amiss: dict[str, list[str]] = {}
                for which, split, id, fault in db.execute(faults, (trial,)):
                    amiss.setdefault(f"{point} {which} {split}/{id}", []).append(fault)
                for which, split, id, answer, *others in db.execute(query, (trial,)):
                    where = f"{point} {which} {split}/{id}"
                    found[where] = (_untimed(answer), *others, amiss.get(where))
        return found

    def cards(self) -> dict[str, object]:
        """Point and pass → what preparing found."""
        query = "SELECT pass, cards FROM cards WHERE trial = ?"
        with _read(self.path / "run.sqlite") as db:
            return {
                f"{point} {which}": msgspec.msgpack.decode(cards, type=tuple[Card, ...])
                for point, trial in self.points.items()
                for which, cards in db.execute(query, (trial,))
            }

    def numbers(self) -> dict[str, object]:
        """Point, split and objective → its measurement, and its value of each item."""
        query = "SELECT split, measured FROM results WHERE trial = ?"
        found: dict[str, object] = {}
        with _read(self.path / "run.sqlite") as db:
            for point, trial in self.points.items():
                for split, measured in db.execute(query, (trial,)):
                    found |= {f"{point} {split}: {k}": v for k, v in _numbers(measured).items()}
        return found

    def crossed(self) -> dict[str, list[tuple[bytes, ...]]]:
        """Point, chain and request → its messages in order, each with its reply."""
        found: dict[str, list[tuple[bytes, ...]]] = {}
        if not (self.path / "ledger.sqlite").exists():
            return found
        with _read(self.path / "ledger.sqlite") as db:
            chains = [row[0] for row in db.execute("SELECT DISTINCT chain FROM entries")]
            for point, trial in self.points.items():
                for chain in chains:
                    if not chain.startswith(trial):
                        continue
                    sent: dict[tuple[str, int], list[bytes]] = {}
                    for entry in read_entries(db, chain):
                        number = entry.number if entry.answers is None else entry.answers
                        said = entry.payload or entry.content_digest or b"forgotten"
                        sent.setdefault((entry.request, number), []).append(said)
                    for (request, _), each in sent.items():
                        where = f"{point}{chain.removeprefix(trial)} {request}"
                        found.setdefault(where, []).append(tuple(each))
        return found

    def paid(self) -> int:
        """Messages to the LM's owner that were paid for, those that were cut off among them."""
        with _read(self.path / "run.sqlite") as db:
            return int(db.execute("SELECT count(*) FROM paid WHERE messages > 0").fetchone()[0])


def compared(a: Run, b: Run) -> list[Found]:
    """What is the same in both runs, and what is not."""
    return [
        _alike("trials", a.identities(), b.identities()),
        _alike("answers", a.answers(), b.answers()),
        _alike("what preparing found", a.cards(), b.cards()),
        _alike("numbers", a.numbers(), b.numbers(), more=True),
        _bytes(a.crossed(), b.crossed()),
    ]


def _alike(
    what: str, a: Mapping[str, object], b: Mapping[str, object], *, more: bool = False
) -> Found:
    """`more`: values that only `b` has are no difference."""
    found = Found(what, values=len(a))
    found.different += [f"{key}: only in the first" for key in a if key not in b]
    found.different += [f"{key}: not the same" for key in a if key in b and a[key] != b[key]]
    extra = [key for key in b if key not in a]
    if extra and more:
        named = sorted({key.rpartition(": ")[2] for key in extra})
        found.notes.append(f"only in the second: {', '.join(named)}")
    else:
        found.different += [f"{key}: only in the second" for key in extra]
    return found


def _bytes(
    a: Mapping[str, Sequence[tuple[bytes, ...]]], b: Mapping[str, Sequence[tuple[bytes, ...]]]
) -> Found:
    found = Found("bytes that crossed")
    found.values = sum(len(said) for sent in a.values() for each in sent for said in each)
    moved = 0
    for key in {**a, **b}:
        ours, theirs = a.get(key, ()), b.get(key, ())
        if list(ours) == list(theirs):
            continue
        if sorted(ours) == sorted(theirs):
            moved += 1
        else:
            found.different.append(f"{key}: {len(ours)} and {len(theirs)} messages, not the same")
    if moved:
        found.notes.append(f"{moved} requests: the same messages in another order")
    return found


def _untimed(answer: bytes) -> Answer:
    found = msgspec.msgpack.decode(answer, type=Answer)
    return replace(found, generation=replace(found.generation, seconds=0.0, cpu_seconds=0.0))


def _numbers(measured: bytes) -> dict[str, object]:
    """Objective → its measurement, and its value of each item; those that the machine decides left
    out."""
    measurements, values = msgspec.msgpack.decode(
        measured, type=tuple[tuple[Measurement, ...], dict[str, bytes]]
    )
    return {
        m.objective.name: (repr(m), values.get(m.objective.name))
        for m in measurements
        if not m.objective.unit.startswith(TIMED)
    }


@contextmanager
def _read(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{file.resolve()}?mode=ro", uri=True)) as db:
        yield db


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path, metavar="RUN_A")
    parser.add_argument("second", type=Path, metavar="RUN_B")
    parser.add_argument("--as", dest="row", help="keep what was found under this name")
    arguments = parser.parse_args(argv)
    a, b = Run(arguments.first), Run(arguments.second)
    found = compared(a, b)
    for each in found:
        print(each)
    print(f"messages that were paid for: {a.paid():,} in the first, {b.paid():,} in the second")
    different = sum(len(each.different) for each in found)
    if arguments.row:
        kept = Kept("same", fresh=False)
        for each in found:
            kept.put(arguments.row, each.what, each.values)
        kept.put(arguments.row, "different", different)
        kept.put(arguments.row, "paid for in the first", a.paid())
        kept.put(arguments.row, "paid for in the second", b.paid())
        kept.write()
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
