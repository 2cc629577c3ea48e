"""A run is a folder, and everything that was paid for or worked out is in it.

    RUN/plan.toml       the plan, as it was given
        run.json        versions, seeds, machine
        run.sqlite      trials, what preparing found, what a published model says, items with their
                        answers, measurements, what was paid, how far the ledger had come
        ledger.sqlite   what crossed: one chain per trial, another while replies were tampered with;
                        ledger.sqlite.keys hides what, until it is forgotten
        replay.sqlite   every LM answer and score (unless the plan shares one between runs)
        lock            held by the one process that works on the run
        trials/…        trials under way in other processes, each a folder like this one (`absorb`)

Items are committed one by one, so that a `kill -9` loses at most the items under way. A crossing is
in the ledger before its item is in the run, and each item and each finished trial notes where the
ledger's chain stood then (`Mark`): what the ledger lost or was changed in since shows (`record`). The
folder and its files are readable by their owner only: they hold private text.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Literal, cast

import msgspec
import numpy as np

from cosilo.benchmark.lock import take_lock
from cosilo.benchmark.missing import no_run
from cosilo.benchmark.published import SaidByModel
from cosilo.benchmark.rows import (
    PUBLIC,
    SCHEMA,
    About,
    Answered,
    Mark,
    Pass,
    Result,
    Road,
    Trial,
)
from cosilo.boundary.meter import Totals
from cosilo.boundary.record.ledger import Entry, connect, read_entries
from cosilo.clock import Effort
from cosilo.databases import made_private
from cosilo.errors import StoreError
from cosilo.objectives.base import Item, Measurement
from cosilo.objectives.scoring import Made
from cosilo.record_keys import ENDINGS
from cosilo.strategies.cards import Card
from cosilo.tasks.base import Example, Split, Task
from cosilo.types import Answer


class Store:
    """A run's folder.

    Args:
        path: the folder; made when absent and `write` is set.
        write: hold the run's lock, so that no other process works on it.

    Raises:
        RunBusyError: another process holds the lock.
        StoreError: the folder cannot be read or written.
        ConfigError: there is no run at `path` (reading only).
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        self.path = path
        self._lock: int | None = None
        if not write and not (path / "run.sqlite").is_file():
            raise no_run(path)
        with _guarded(path):
            if write:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = take_lock(path / "lock")
            made_private(path / "run.sqlite")
            self._db = connect(path / "run.sqlite")
            self._db.executescript(SCHEMA)

    @property
    def ledger_path(self) -> Path:
        return made_private(self.path / "ledger.sqlite")

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ── files ────────────────────────────────────────────────────────────────

    def write_text(self, name: str, text: str) -> None:
        """Replace the file `name` whole: it never stands there half-written."""
        with _guarded(self.path):
            new = self.path / f".{name}.new"
            with made_private(new).open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())  # else a power cut may leave the name without the text
            new.replace(self.path / name)

    def read_text(self, name: str) -> str:
        with _guarded(self.path):
            return (self.path / name).read_text(encoding="utf-8")

    def read_json(self, name: str) -> dict[str, object]:
        try:
            found = json.loads(self.read_text(name))
        except json.JSONDecodeError as error:
            raise StoreError(f"{str(self.path / name)!r} is damaged: {error}") from None
        return cast("dict[str, object]", found)

    # ── the task ─────────────────────────────────────────────────────────────

    def keep_task(self, id: str, task: Task) -> None:
        """Keep the task, so that neither scoring nor serving needs a data file."""
        sizes = {str(split): len(examples) for split, examples in task.splits.items()}
        about = About(
            id,
            task.name,
            task.kind,
            sizes,
            task.labels,
            task.gold_secrets,
            task.notes,
            task.sampling,
            task.instructions,
        )
        kept: list[tuple[str, tuple[Example, ...]]] = [*task.splits.items(), (PUBLIC, task.public)]
        with self.change() as db:
            db.execute("INSERT OR REPLACE INTO tasks VALUES (?,?)", (id, _pack(about)))
            db.executemany(
                "INSERT OR IGNORE INTO examples VALUES (?,?,?,?)",
                (
                    (id, split, position, _pack(example))
                    for split, examples in kept
                    for position, example in enumerate(examples)
                ),
            )

    def about(self, task: str) -> About:
        """Raises:
        StoreError: no trial of this task was ever started here.
        """
        rows = self.rows("SELECT about FROM tasks WHERE id = ?", (task,))
        if not rows:
            raise StoreError(f"the run {str(self.path)!r} holds no trial of its plan's task yet")
        return msgspec.msgpack.decode(rows[0][0], type=About)

    def examples(self, task: str, split: Split | Literal["public"]) -> tuple[Example, ...]:
        rows = self.rows(
            "SELECT example FROM examples WHERE task = ? AND split = ? ORDER BY position",
            (task, split),
        )
        return tuple(msgspec.msgpack.decode(row[0], type=Example) for row in rows)

    # ── trials ───────────────────────────────────────────────────────────────

    def trial(self, id: str) -> Trial | None:
        rows = self.rows("SELECT * FROM trials WHERE id = ?", (id,))
        return Trial(*rows[0]) if rows else None

    def trials(self) -> dict[str, Trial]:
        return {row[0]: Trial(*row) for row in self.rows("SELECT * FROM trials")}

    def put_trial(self, trial: Trial) -> None:
        with self.change() as db:
            db.execute(
                "INSERT OR REPLACE INTO trials VALUES (?,?,?,?,?,?,?)",
                (
                    trial.id,
                    trial.point,
                    trial.settings,
                    trial.state,
                    trial.attempt,
                    trial.memory,
                    trial.error,
                ),
            )

    def put_cards(self, trial: str, which: Pass, cards: Sequence[Card]) -> None:
        """Keep what the trial's `prepare` found, instead of what an earlier attempt did."""
        with self.change() as db:
            db.execute("INSERT OR REPLACE INTO cards VALUES (?,?,?)", (trial, which, _pack(cards)))

    def cards(self, trial: str, which: Pass = "plain") -> tuple[Card, ...]:
        """What the trial's `prepare` found."""
        rows = self.rows("SELECT cards FROM cards WHERE trial = ? AND pass = ?", (trial, which))
        return msgspec.msgpack.decode(rows[0][0], type=tuple[Card, ...]) if rows else ()

    def add_preparing(self, trial: str, effort: Effort) -> None:
        """Add what an attempt to prepare the trial took, which ended well or not; what one took that
        was killed is never known."""
        with self.change() as db:
            db.execute(
                "INSERT INTO preparing VALUES (?,?,?,?) ON CONFLICT (trial) DO UPDATE SET"
                " seconds = seconds + excluded.seconds,"
                " cpu_seconds = cpu_seconds + excluded.cpu_seconds,"
                " memory = max(memory, excluded.memory)",
                (trial, effort.seconds, effort.cpu_seconds, effort.memory),
            )

    def preparing(self, trial: str) -> Effort | None:
        """What the trial's attempts to prepare took together; None where an older version made them."""
        rows = self.rows(
            "SELECT seconds, cpu_seconds, memory FROM preparing WHERE trial = ?", (trial,)
        )
        return Effort(*rows[0]) if rows else None

    def put_said(self, trial: str, said: SaidByModel) -> None:
        """Keep what the trial's small model says of texts, instead of what an earlier attempt's did."""
        with self.change() as db:
            db.execute("INSERT OR REPLACE INTO said VALUES (?,?)", (trial, _pack(said)))

    def said(self, trial: str) -> SaidByModel | None:
        """What the trial's small model says of texts; None where that was not asked."""
        rows = self.rows("SELECT said FROM said WHERE trial = ?", (trial,))
        return msgspec.msgpack.decode(rows[0][0], type=SaidByModel) if rows else None

    # ── items ────────────────────────────────────────────────────────────────

    def add_items(
        self,
        trial: str,
        which: Pass,
        split: Split,
        attempt: int,
        items: Iterable[tuple[Item, str]],
        marks: Mapping[tuple[Road, str], Mark] | None = None,
    ) -> None:
        """Commit answered items, each with why it was refused (empty: it was not).

        Args:
            marks: road and item id → where the chain of what crossed on it stands.
        """
        items = tuple(items)
        with self.change() as db:
            db.executemany(
                "INSERT OR REPLACE INTO marks VALUES (?,?,?,?,?,?,?)",
                (
                    (trial, road, split, id, mark.sent, mark.count, mark.hash)
                    for (road, id), mark in (marks or {}).items()
                ),
            )
            db.executemany(
                "INSERT OR REPLACE INTO faults VALUES (?,?,?,?,?)",
                (
                    (trial, which, split, item.example.id, fault)
                    for item, _ in items
                    for fault in item.faults
                ),
            )
            db.executemany(
                "INSERT OR REPLACE INTO items VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (
                    (
                        trial, which, split, item.example.id, attempt,
                        _pack(item.answer), item.grade, item.seconds,
                        item.cpu_seconds, item.small_text, refused,
                    )
                    for item, refused in items
                ),
            )  # fmt: skip

    def answered(self, trial: str, which: Pass, split: Split) -> dict[str, int]:
        """Item id → the ledger attempt it was answered in."""
        rows = self.rows(
            "SELECT id, attempt FROM items WHERE trial = ? AND pass = ? AND split = ?",
            (trial, which, split),
        )
        return {row[0]: row[1] for row in rows}

    def answers(
        self, trial: str, which: Pass, road: Road | None = None
    ) -> dict[tuple[Split, str], Answered]:
        """Split and item id → how it was answered, marked on the chain of `road` (that of the first
        other side by default).
        """
        rows = self.rows(
            "SELECT i.split, i.id, i.attempt, i.answer, i.refused, m.count, m.hash, m.sent"
            " FROM items i LEFT JOIN marks m"
            " ON m.trial = i.trial AND m.pass = ? AND m.split = i.split AND m.id = i.id"
            " WHERE i.trial = ? AND i.pass = ?",
            (road or which, trial, which),
        )
        found = {}
        for split, id, attempt, answer, refused, *mark in rows:
            by = msgspec.msgpack.decode(answer, type=Answer).by
            known = None if mark[0] is None else Mark(*mark)
            found[split, id] = Answered(attempt, known, by != "small" and not refused)
        return found

    def put_heads(self, trial: str, heads: Mapping[Road, Mark]) -> None:
        """Note how far the chains of a trial have come."""
        with self.change() as db:
            db.executemany(
                "INSERT OR REPLACE INTO heads VALUES (?,?,?,?)",
                ((trial, which, mark.count, mark.hash) for which, mark in heads.items()),
            )

    def heads(self, trial: str) -> dict[Road, Mark]:
        """How far the chains of a trial had come when it was finished; empty for an older version's."""
        rows = self.rows("SELECT pass, count, hash FROM heads WHERE trial = ?", (trial,))
        return {row[0]: Mark(row[1], row[2]) for row in rows}

    def noted(self, trial: str) -> bool:
        """Whether what crossed in the trial was noted in the run; an older version did not."""
        query = "SELECT EXISTS (SELECT 1 FROM {} WHERE trial = ?)"
        return any(self.rows(query.format(table), (trial,))[0][0] for table in ("marks", "heads"))

    def forget(self, trial: Trial, items: Mapping[Pass, Collection[tuple[Split, str]]]) -> None:
        """Delete these items of `trial` and its numbers, and mark it as not done, so that it is run
        again.
        """
        where = "WHERE trial = ? AND pass = ? AND split = ? AND id = ?"
        with self.change() as db:
            for which, keys in items.items():
                for table in ("items", "faults"):
                    rows = ((trial.id, which, split, id) for split, id in keys)
                    db.executemany(f"DELETE FROM {table} {where}", rows)
                for road in trial.roads(which):
                    marked = ((trial.id, road, split, id) for split, id in keys)
                    db.executemany(f"DELETE FROM marks {where}", marked)
            db.execute("DELETE FROM results WHERE trial = ?", (trial.id,))
            db.execute("DELETE FROM heads WHERE trial = ?", (trial.id,))
            db.execute("UPDATE trials SET state = 'new' WHERE id = ?", (trial.id,))

    def refused(self, trial: str, split: Split) -> int:
        """How many items of `split` got no answer because a guard or a model refused them."""
        query = "SELECT count(*) FROM items WHERE trial = ? AND split = ? AND refused != ''"
        return int(self.rows(query + " AND pass = 'plain'", (trial, split))[0][0])

    def faults(self, trial: str, split: Split | None = None) -> dict[str, int]:
        """How many answers of `split`, or of all splits, were "cut", "empty" or "unreadable"."""
        rows = self.rows(
            "SELECT fault, count(*) FROM faults"
            " WHERE trial = ? AND pass = 'plain' AND split = coalesce(?, split) GROUP BY fault",
            (trial, split),
        )
        return {fault: count for fault, count in rows}

    def replies(self, trial: str) -> tuple[int, dict[str, int]]:
        """How many items the LM answered, alone or with the small model, and what was amiss."""
        query = "SELECT answer FROM items WHERE trial = ? AND pass = 'plain' AND refused = ''"
        by = (msgspec.msgpack.decode(row[0], type=Answer).by for row in self.rows(query, (trial,)))
        return sum(who != "small" for who in by), self.faults(trial)

    def proved(self, chain: str) -> bool:
        """Whether the LM has ever answered in this trial; of several, any of them."""
        with self._ledger() as db:
            if db is None:
                return False
            query = (
                "SELECT 1 FROM entries WHERE (chain = ?1 OR chain GLOB ?1 || '/peers/*')"
                " AND direction = 'down' LIMIT 1"
            )
            return bool(db.execute(query, (chain,)).fetchall())

    def items(
        self, trial: str, which: Pass, split: Split, examples: Sequence[Example]
    ) -> tuple[Item, ...]:
        """The answered items, in the order of `examples`."""
        rows = self.rows(
            "SELECT id, answer, grade, seconds, cpu_seconds, small_text FROM items"
            " WHERE trial = ? AND pass = ? AND split = ?",
            (trial, which, split),
        )
        found = {row[0]: row[1:] for row in rows}
        return tuple(
            Item(e, msgspec.msgpack.decode(found[e.id][0], type=Answer), *found[e.id][1:])
            for e in examples
            if e.id in found
        )

    def record(self, chain: str, split: Split, attempts: Mapping[str, int]) -> Iterator[Entry]:
        """What crossed for the items of `split`, each entry bound to the example's id.

        What an interrupted attempt sent is left out: the item was asked again, from the replay.
        """
        prefix = f"{split}/"
        for entry in self._chain(chain):
            id = entry.request.removeprefix(prefix)
            if entry.request.startswith(prefix) and attempts.get(id) == entry.attempt:
                yield replace(entry, request=id)

    def prepare_record(
        self, chain: str, attempt: int | None, splits: Sequence[Split]
    ) -> Iterator[Entry]:
        """What crossed while the strategy was prepared, in the attempt that counts."""
        answering = tuple(f"{split}/" for split in splits)
        for entry in self._chain(chain):
            shredded = entry.key == "forgotten"  # nobody knows any more what it was for
            if (
                entry.attempt == attempt
                and not entry.request.startswith(answering)
                and not shredded
            ):
                yield entry

    def sync(self, name: str = "ledger.sqlite") -> None:
        """Returns when all that the database `name` holds is on the disk, whatever happens to the
        machine."""
        # What left the log for the database itself was synchronised then; see cosilo.databases.
        with _guarded(self.path), suppress(FileNotFoundError):
            handle = os.open(self.path / f"{name}-wal", os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def set_ledger_aside(self) -> Path:
        """Rename the ledger, so that a new one is begun; returns the renamed file."""
        with _guarded(self.path):
            number = 1 + len(list(self.path.glob("ledger.damaged-*.sqlite")))
            aside = self.path / f"ledger.damaged-{number}.sqlite"
            for end in ("", "-wal", "-shm", *ENDINGS):
                with suppress(FileNotFoundError):
                    (self.path / f"ledger.sqlite{end}").rename(f"{aside}{end}")
        return aside

    def _chain(self, chain: str) -> Iterator[Entry]:
        with self._ledger() as db:
            if db is not None:
                yield from read_entries(db, chain)

    @contextmanager
    def _ledger(self) -> Iterator[sqlite3.Connection | None]:
        """The ledger; None where there is none, since whoever only reads makes no file."""
        path = self.path / "ledger.sqlite"
        if not path.exists():
            yield None
            return
        with _guarded(self.path):
            db = connect(path)
            try:
                yield db
            finally:
                db.close()

    # ── results ──────────────────────────────────────────────────────────────

    def put_result(self, trial: str, split: Split, version: str, result: Result) -> None:
        """Keep a trial's numbers; `version` says what they were worked out with."""
        measured = (
            result.measurements,
            {name: np.asarray(v, np.float64).tobytes() for name, v in result.values.items()},
        )
        with self.change() as db:
            db.execute(
                "INSERT OR REPLACE INTO results VALUES (?,?,?,?)",
                (trial, split, version, _pack(measured)),
            )

    def result(self, trial: str, split: Split, version: str | None = None) -> Result | None:
        """A trial's numbers; None when there are none (or none made with `version`)."""
        rows = self.rows(
            "SELECT version, measured FROM results WHERE trial = ? AND split = ?", (trial, split)
        )
        if not rows or version not in (None, rows[0][0]):
            return None
        measurements, values = msgspec.msgpack.decode(
            rows[0][1], type=tuple[tuple[Measurement, ...], dict[str, bytes]]
        )
        return Result(measurements, {k: np.frombuffer(v, np.float64) for k, v in values.items()})

    # ── guesses ──────────────────────────────────────────────────────────────

    def put_guesses(self, trial: str, split: Split, version: str, made: Mapping[str, Made]) -> None:
        """Keep what attacks guessed, by their names, instead of what each guessed before."""
        with self.change() as db:
            db.executemany(
                "INSERT OR REPLACE INTO guesses VALUES (?,?,?,?,?)",
                ((trial, split, name, version, _pack(each)) for name, each in made.items()),
            )

    def guesses(self, trial: str, split: Split) -> dict[str, tuple[str, Made]]:
        """Attack → the version it guessed with, and what."""
        query = "SELECT attack, version, made FROM guesses WHERE trial = ? AND split = ?"
        return {
            name: (version, msgspec.msgpack.decode(made, type=Made))
            for name, version, made in self.rows(query, (trial, split))
        }

    # ── what was paid ────────────────────────────────────────────────────────

    def pay(self, most: Totals) -> int:
        """Book a call that is about to be made at the most it can cost."""
        with self.change() as db:
            cursor = db.execute("INSERT INTO paid VALUES (NULL,0,?,?,?,?,?,?,?,0)", _amounts(most))
        return cast(int, cursor.lastrowid)

    def settle(self, number: int, cost: Totals, seconds: float) -> None:
        """Replace the booking by what the call did cost."""
        with self.change() as db:
            db.execute(
                "UPDATE paid SET settled = 1, messages = ?, bytes_up = ?, bytes_down = ?,"
                " tokens_in = ?, tokens_out = ?, usd = ?, epsilon = ?, seconds = ?"
                " WHERE number = ?",
                (*_amounts(cost), seconds, number),
            )

    def paid(self) -> Totals:
        """Everything paid for in this run so far, by all its processes.

        A call cut off by a `kill -9` stays booked at the most it can have cost.
        """
        return self._sum("SELECT {} FROM paid WHERE messages > 0")

    def leased(self) -> Totals:
        """What of the budget is set aside for trials in other folders; see `absorb`."""
        return self._sum("SELECT {} FROM leases")

    def _sum(self, query: str) -> Totals:
        sums = ", ".join(f"sum({name})" for name in AMOUNTS)
        row = self.rows(query.format(sums))[0]
        return Totals(**{name: value or 0 for name, value in zip(AMOUNTS, row, strict=True)})

    def seconds_per_call(self) -> float | None:
        """Median service time of the last calls; None before any. The first of a process loads the
        model, and an hour ago the machine may have been busy.
        """
        last = "SELECT seconds FROM paid WHERE settled AND seconds > 0 ORDER BY rowid DESC LIMIT 50"
        found = [float(row[0]) for row in self.rows(last)]
        return median(found) if found else None

    # ── the database ─────────────────────────────────────────────────────────

    def rows(self, query: str, arguments: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with _guarded(self.path):
            return self._db.execute(query, arguments).fetchall()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        with _guarded(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


_pack = msgspec.msgpack.encode


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """A context that turns any error of the disk or of SQLite into a `StoreError` that names
    `path`.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StoreError(f"the run {str(path)!r} cannot be read or written: {error}") from error
    except OSError as error:
        which = f" ({error.filename})" if isinstance(error.filename, str) else ""
        raise StoreError(
            f"the run {str(path)!r} cannot be read or written: {error.strerror}{which}"
        ) from error


AMOUNTS = ("messages", "bytes_up", "bytes_down", "tokens_in", "tokens_out", "usd", "epsilon")
"""The columns that say what something cost, as `Totals` and `Budget` name them."""


def _amounts(totals: Totals) -> tuple[float, ...]:
    return tuple(getattr(totals, name) for name in AMOUNTS)
