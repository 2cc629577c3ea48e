"""Whether what crossed in a trial is on record as the run noted it.

    ledger.sqlite   entry ─▶ entry ─▶ entry ─▶ …      hashed one over the other, a chain per pass
                              ▲          ▲
    run.sqlite             an item's   the trial's    `Mark`: how long the chain was, its last hash,
                            mark        head           and how many messages left for the item

Every number about privacy, cost or exposure is read from the ledger, and what is missing there reads as
"nothing left". So the run, in its own database, notes what the ledger held. A crossing is in the ledger
before its item is in the run, and the ledger is on the disk before the trial is done. Whatever either
file loses afterwards (a power cut, an older copy put back) or is changed in then shows: `fault` says
what for one trial, `survey` for the run, and `mend` makes a trial that is not whole one to be finished.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from cosilo.benchmark.rows import PASSES, Answered, Mark, Pass, Road, Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.record.faults import chain_faults
from cosilo.boundary.record.ledger import GENESIS, Entry, Head, connect, read_entries
from cosilo.tasks.base import Split

OLDER = (
    "an older version made it, which did not note how long the record of what crossed was, so that "
    "cannot be checked"
)

SAME_FILE = "its record stood in the file that was changed"

MADE_ANEW = "its record was made anew: it does not hold the entries that the run noted"


def chain_of(trial: str, road: Road) -> str:
    """The ledger's chain of what crossed in a trial, or while its replies were tampered with; one for
    each other side.
    """
    return "/".join([trial, *(part for part in road.split("/") if part != "plain")])


def fault(store: Store, trial: Trial) -> str:
    """What is wrong with the record of a trial that is done; empty when it is whole."""
    if not store.heads(trial.id):
        return OLDER
    return next(filter(None, (found.fault for found in _passes(store, trial))), "")


def roads_of(trial: Trial) -> tuple[Road, ...]:
    """All roads of a trial: each pass, to each other side."""
    return tuple(road for which in PASSES for road in trial.roads(which))


def note_heads(store: Store, trial: Trial) -> None:
    """Note that the record of `trial` is complete, once all of it is on the disk."""
    store.sync()
    chains = {road: _read(store.path, chain_of(trial.id, road)) for road in roads_of(trial)}
    store.put_heads(trial.id, {road: chain.end for road, chain in chains.items()})


@dataclass(frozen=True)
class Broken:
    """A trial whose record is not whole.

    Attributes:
        why: what is wrong.
        lacking: its answers for which messages are missing from the ledger.
    """

    trial: Trial
    why: str
    lacking: Mapping[Pass, Collection[tuple[Split, str]]]


@dataclass(frozen=True)
class Survey:
    """What is wrong with the record of a run.

    Attributes:
        changes: how entries that the run had noted were changed in the ledger, in sentences (an end
            that is only missing is no change). With any, nothing in the ledger is believed.
        broken: trial → what is wrong with it.
    """

    changes: tuple[str, ...] = ()
    broken: Mapping[str, Broken] = field(default_factory=dict)

    def lacking(self, trial: str, which: Pass, split: Split) -> frozenset[str]:
        """The items of `trial` that count as not answered."""
        found = self.broken[trial].lacking[which] if trial in self.broken else ()
        return frozenset(id for of, id in found if of == split)


def survey(store: Store, known: Collection[str]) -> Survey:
    """Hold the whole ledger against what the run noted.

    Args:
        known: the trials of the plan at hand. Others are left out if an older version made them.
    """
    trials = [t for t in store.trials().values() if t.id in known or store.noted(t.id)]
    passes = {trial.id: list(_passes(store, trial)) for trial in trials}
    changes = tuple(
        f"{trial.point}: {found.change}"
        for trial in trials
        for found in passes[trial.id]
        if found.change
    )
    broken = {}
    for trial in trials:
        found = passes[trial.id]
        why = next((f.fault for f in found if f.fault), "") if trial.state == "done" else ""
        if trial.state == "done" and not store.heads(trial.id):
            why = OLDER
        if changes:  # the file is set aside, with all that is in it
            found = [replace(f, chain=EMPTY) for f in found]
        lacking = {
            w: frozenset(k for f in found if f.which == w for k in f.lacking) for w in PASSES
        }
        if any(lacking.values()):
            why = why or (SAME_FILE if changes else "its record ends too early")
        if why:
            broken[trial.id] = Broken(trial, why, lacking)
    return Survey(changes, broken)


def mend(store: Store, found: Survey) -> Iterator[str]:
    """Mark every trial whose record is not whole to be run again; returns what was done, in
    sentences.

    Where the record only ends too early, the answers it lacks count as not given. Where it was
    changed, the file is set aside, and a new one is begun.
    """
    if found.changes:
        aside = store.set_ledger_aside()
        yield from found.changes
        yield f"the damaged record is kept as {aside.name}, and a new one is begun"
    for broken in found.broken.values():
        store.forget(broken.trial, broken.lacking)
        count = sum(map(len, broken.lacking.values()))
        again = f"{count} answers are made again (recorded replies are free)"
        yield f"{broken.trial.point}: {broken.why}; {again}"


@dataclass(frozen=True)
class _Chain:
    """A chain as it stands in the ledger.

    Attributes:
        faults: what is wrong with it by itself.
        hashes: of its entries, in order.
        sent: attempt and request → messages that left.
    """

    faults: Sequence[str]
    hashes: Sequence[bytes]
    sent: Mapping[tuple[int, str], int]

    def reaches(self, mark: Mark) -> bool:
        """Whether the chain still holds the entries that it held when `mark` was made."""
        if not mark.count:
            return True
        return mark.count <= len(self.hashes) and self.hashes[mark.count - 1] == mark.hash

    def fault(self, mark: Mark) -> str:
        """What is wrong with the chain if it should end at `mark`; empty when nothing is."""
        count = len(self.hashes)
        if self.faults:
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            return f"its record was changed: {self.faults[0]}{more}"
        if mark.count and not count:
            return (
                f"its record is gone: ledger.sqlite holds none of its {mark.count} entries, so it was "
                "deleted or an older copy was put back"
            )
        if count < mark.count:
            return (
                f"its record was cut: ledger.sqlite ends after {count} of its {mark.count} entries, as "
                "an older copy does, or one that lost its end in a power cut"
            )
        if not self.reaches(mark):
            return MADE_ANEW
        if count > mark.count:
            return (
                f"its record has {count - mark.count} entries more than the run noted: they were "
                "added, or run.sqlite is an older copy"
            )
        return ""

    @property
    def end(self) -> Mark:
        return Mark(len(self.hashes), self.hashes[-1]) if self.hashes else Mark(0, GENESIS)

    def bears_out(self, key: tuple[Split, str], answered: Answered) -> bool:
        """Whether the chain holds every message that left for an answer."""
        mark = answered.mark
        if mark is None or not self.reaches(mark):
            return False
        found = self.asked(key, answered)
        return found >= mark.sent and (found > 0 or not answered.asked)

    def asked(self, key: tuple[Split, str], answered: Answered) -> int:
        """How many messages it holds that left for an answer."""
        return self.sent.get((answered.attempt, f"{key[0]}/{key[1]}"), 0)


EMPTY = _Chain((), (), {})


@dataclass(frozen=True)
class _Pass:
    """One pass of a trial, as it crossed to one other side: what the ledger holds of it beside what the
    run noted.

    Attributes:
        side: the name of that side, where there are several.
        head: where the chain ended when the trial was finished; None before that.
        answers: the answers of the pass, each with the mark on this chain.
    """

    which: Pass
    side: str
    chain: _Chain
    head: Mark | None
    answers: Mapping[tuple[Split, str], Answered]

    @property
    def fault(self) -> str:
        """What is wrong with this pass in a trial that is done; empty when nothing is."""
        found = self.change or self.chain.fault(self.head or Mark(0, GENESIS))
        if not found and self.lacking:
            found = f"of {len(self.lacking)} answers, not all that left for them is on record"
        if found and self.which != "plain":
            found = f"with replies tampered with, {found}"
        return f"{self.side}: {found}" if found and self.side else found

    @property
    def lacking(self) -> list[tuple[Split, str]]:
        """The answers for which messages are missing from the ledger."""
        return [k for k, answered in self.answers.items() if not self.chain.bears_out(k, answered)]

    @property
    def change(self) -> str:
        """How entries that the run had noted were changed, in a sentence; empty when none was."""
        if self.chain.faults or (self.head and len(self.chain.hashes) > self.head.count):
            return self.chain.fault(self.head or self.chain.end)
        marks = [self.head, *(answered.mark for answered in self.answers.values())]
        within = (m for m in marks if m and m.count <= len(self.chain.hashes))
        if not all(map(self.chain.reaches, within)):
            return MADE_ANEW
        return ""


def _passes(store: Store, trial: Trial) -> Iterator[_Pass]:
    heads = store.heads(trial.id) if trial.state == "done" else {}
    sides = trial.sides or ("",)
    for which in PASSES:
        roads = trial.roads(which)
        chains = [_read(store.path, chain_of(trial.id, road)) for road in roads]
        for side, road, chain in zip(sides, roads, chains, strict=True):
            answers = {
                # Whom of several other sides an answer asked is the strategy's to choose.
                key: replace(a, asked=a.asked and not any(c.asked(key, a) for c in chains))
                for key, a in store.answers(trial.id, which, road).items()
            }
            yield _Pass(which, side, chain, heads.get(road), answers)


def _read(folder: Path, chain: str) -> _Chain:
    path = folder / "ledger.sqlite"
    if not path.is_file():
        return EMPTY
    hashes: list[bytes] = []
    sent: Counter[tuple[int, str]] = Counter()

    def entries() -> Iterator[Entry]:
        for entry in read_entries(db, chain):
            hashes.append(entry.hash)
            if entry.direction == "up":
                sent[entry.attempt, entry.request] += 1
            yield entry

    try:
        with closing(connect(path)) as db:
            query = "SELECT chain, count, hash, mac FROM heads WHERE chain = ?"
            row = db.execute(query, (chain,)).fetchone()
            faults = chain_faults(entries(), Head(*row) if row else None)
    except (sqlite3.Error, TypeError, ValueError) as error:
        return _Chain((f"ledger.sqlite cannot be read ({type(error).__name__})",), (), {})
    return _Chain(faults, hashes, sent)
