"""A trial in a folder of its own, and how its run takes it in.

    lend    RUN/run.sqlite, ledger.sqlite ──what is there of the trial──▶ RUN/trials/NAME/…
                     │ lease: of the run's budget
                     ▼
            a process, anywhere, works on the trial in its folder: `trial.run_trial`
                     │ it ends, or is killed
                     ▼
    absorb  recorded answers ─▶ the ledger's chain ─▶ all else, and what was paid instead of the lease

Each step of `absorb` is one transaction of one database, and does nothing where it was done already.
So a process that is killed in the middle is followed by one that absorbs again, and nothing is there
twice. The chain is taken over as it stands, hash by hash, behind what the run holds of it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

from cosilo.benchmark.lock import take_lock
from cosilo.benchmark.noting import note_prepared
from cosilo.benchmark.parts import SHARDS
from cosilo.benchmark.record import chain_of, roads_of
from cosilo.benchmark.rows import Trial
from cosilo.benchmark.store import AMOUNTS, Store
from cosilo.boundary.meter import Budget, Totals
from cosilo.boundary.record.ledger import GENESIS, SqliteLedger, connect
from cosilo.databases import made_private
from cosilo.errors import RunBusyError, StoreError
from cosilo.models.kept.replay import ReplayStore
from cosilo.parties.remote import NETWORK
from cosilo.record_keys import copied, keys_path, take_over

TRIALS = "trials"
"""Where in a run's folder the trials' own lie."""

_OF_TRIAL = (
    "items",
    "faults",
    "marks",
    "heads",
    "cards",
    "preparing",
    "said",
    "results",
    "guesses",
)
_BEFORE = 0
"""The number of the booking, in a trial's folder, of what was spent outside of it."""

_PATIENCE = 15.0
"""Seconds in which a process that works on a folder and was told to stop lets go of it."""


def lend(store: Store, trial: Trial, task: str, *, recorded: Path | None = None) -> Path:
    """A folder to work on `trial` in, with all that the run holds of it.

    Args:
        task: the identity of the trial's task.
        recorded: the recorded answers, to be copied where whoever works there cannot use the file.

    Raises:
        StoreError: it cannot be written.
    """
    folder = store.path / TRIALS / uuid4().hex
    private_folder(folder.parent)
    Store(folder, write=True).close()
    with _failing(folder):
        with _beside(store.path / "run.sqlite", folder / "run.sqlite") as db:
            marks = ",".join("?" * 7)
            row = (
                trial.id, trial.point, trial.settings, trial.state, trial.attempt, trial.memory,
                trial.error,
            )  # fmt: skip
            db.execute(f"INSERT INTO trial.trials VALUES ({marks})", row)
            for table in _OF_TRIAL:
                copied = f"INSERT INTO trial.{table} SELECT * FROM main.{table} WHERE trial = ?"
                db.execute(copied, (trial.id,))
            db.execute("INSERT INTO trial.small SELECT * FROM main.small")
            db.execute("INSERT INTO trial.tasks SELECT * FROM main.tasks WHERE id = ?", (task,))
            copied = "INSERT INTO trial.examples SELECT * FROM main.examples WHERE task = ?"
            db.execute(copied, (task,))
        for path in (store.ledger_path, folder / "ledger.sqlite"):
            SqliteLedger(path, trial.id).close()  # makes it, and gives an old one today's columns
        chains = [chain_of(trial.id, road) for road in roads_of(trial)]
        for chain in chains:
            keys = keys_path(store.ledger_path)
            take_over(keys_path(folder / "ledger.sqlite"), keys, chain=chain)
        with _beside(store.ledger_path, folder / "ledger.sqlite") as db:
            for chain in chains:
                for table in ("entries", "heads"):
                    copied = f"INSERT INTO trial.{table} SELECT * FROM main.{table} WHERE chain = ?"
                    db.execute(copied, (chain,))
        if recorded is not None:
            _copy(recorded, folder / "replay.sqlite")
        # What has no answer yet over the network is not asked for anew.
        _copy(store.path / NETWORK, folder / NETWORK)
    return folder


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        with closing(connect(source)) as db:
            db.execute("VACUUM INTO ?", (str(target),))
        target.chmod(0o600)
        copied(keys_path(source), keys_path(target))


def lease(store: Store, folder: Path, allowance: Budget, *, before: Totals | None = None) -> None:
    """Set `allowance` aside for the trial in `folder`, until it is absorbed.

    Args:
        before: what the trial counts as spent when it begins, where it is held to the run's own budget.
    """
    if before is not None:
        row = [getattr(before, name) for name in AMOUNTS]
        with closing(connect(folder / "run.sqlite")) as db:
            db.execute(f"INSERT INTO paid VALUES ({_BEFORE},1,?,?,?,?,?,?,?,0)", row)
    amounts = [getattr(allowance, name) or 0 for name in AMOUNTS]
    with store.change() as db:
        db.execute("INSERT INTO leases VALUES (?,?,?,?,?,?,?,?)", (folder.name, *amounts))


def free(store: Store, budget: Budget, *, share: int = 1) -> Budget:
    """What is left of `budget`, the run's, or one of `share` equal parts of it."""
    spent: Totals = store.paid() + store.leased()
    left: dict[str, float] = {}
    for name in AMOUNTS:
        limit = getattr(budget, name)
        if limit is not None:
            part = max(0, limit - getattr(spent, name)) / share
            left[name] = part if name in ("usd", "epsilon") else int(part)
    return Budget(**left)  # type: ignore[arg-type]


def absorb_all(store: Store, replay: Path) -> Iterator[str]:
    """Take in every trial that a process before this one left in its folder; returns what there is to
    say about it, in sentences.

    Raises:
        what `absorb` does.
    """
    for (name,) in store.rows("SELECT folder FROM leases"):
        folder = store.path / TRIALS / name
        if folder.is_dir():
            absorb(store, folder, replay)
            continue
        with store.change() as db:  # nobody can tell any more what was spent of it
            db.execute(
                f"INSERT INTO paid SELECT NULL, 0, {', '.join(AMOUNTS)}, 0 FROM leases"
                " WHERE folder = ?",
                (name,),
            )
            db.execute("DELETE FROM leases WHERE folder = ?", (name,))
        yield (
            f"the folder {TRIALS}/{name} of a trial that was under way is gone; all that it could "
            "spend counts as spent"
        )
    if (store.path / TRIALS).is_dir():
        shutil.rmtree(store.path / TRIALS, ignore_errors=True)  # nothing was ever done in the rest


def absorb(store: Store, folder: Path, replay: Path) -> None:
    """Take the trial in `folder` into the run, and delete the folder.

    Args:
        replay: the run's recorded answers.

    Raises:
        RunBusyError: the process that works in the folder does not let go of it.
        StoreError: it cannot be read, or its record does not continue the run's.
    """
    known = store.rows("SELECT 1 FROM leases WHERE folder = ?", (folder.name,))
    if known and (folder / "run.sqlite").is_file():
        with _failing(folder), _held(folder):
            if (folder / "replay.sqlite").is_file():
                _absorb_answers(folder, replay)
            for name in ("ledger.sqlite", NETWORK):
                if (folder / name).is_file():
                    _absorb_chains(made_private(store.path / name), folder / name)
            store.sync("ledger.sqlite")  # a crossing is on the disk before its answer is
            _absorb_stages(store.path / SHARDS, folder / SHARDS)
            note_prepared(store.path, folder)
            _absorb_rows(store, folder)
            store.sync("run.sqlite")
    elif known:
        with store.change() as db:
            db.execute("DELETE FROM leases WHERE folder = ?", (folder.name,))
    shutil.rmtree(folder, ignore_errors=True)


def _absorb_stages(here: Path, there: Path) -> None:
    """Take over what stages of training ended with; those of one name are the same."""
    for stage in there.glob("[!.]*"):
        private_folder(here)
        if not (here / stage.name).exists():
            stage.rename(here / stage.name)


def _absorb_answers(folder: Path, replay: Path) -> None:
    with (
        closing(ReplayStore(made_private(replay))) as here,
        closing(ReplayStore(folder / "replay.sqlite")) as there,
    ):
        here.take_over(there)


def _absorb_chains(path: Path, other: Path) -> None:
    for ledger in (path, other):
        SqliteLedger(ledger, "").close()  # makes its tables, and gives an old one today's columns
    take_over(keys_path(path), keys_path(other))
    with _beside(path, other) as db:
        for chain, count, last, mac in db.execute("SELECT * FROM trial.heads").fetchall():
            head = db.execute("SELECT count, hash FROM main.heads WHERE chain = ?", (chain,))
            there, before = head.fetchone() or (0, GENESIS)
            if there >= count:
                continue
            query = "SELECT hash FROM trial.entries WHERE chain = ? AND number = ?"
            if there and db.execute(query, (chain, there - 1)).fetchone() != (before,):
                raise StoreError(
                    f"the record in {str(other.parent)!r} does not continue the run's: one of them was "
                    "replaced. Move the folder away to go on without it"
                )
            db.execute(
                "INSERT INTO main.entries SELECT * FROM trial.entries"
                " WHERE chain = ? AND number >= ?",
                (chain, there),
            )
            db.execute(
                "INSERT OR REPLACE INTO main.heads VALUES (?,?,?,?)", (chain, count, last, mac)
            )


def _absorb_rows(store: Store, folder: Path) -> None:
    with _beside(store.path / "run.sqlite", folder / "run.sqlite") as db:
        # Whoever deletes the lease books what was paid: doing it again finds none.
        if not db.execute("DELETE FROM main.leases WHERE folder = ?", (folder.name,)).rowcount:
            return
        columns = f"settled, {', '.join(AMOUNTS)}, seconds"
        paid = f"SELECT NULL, {columns} FROM trial.paid WHERE number != {_BEFORE} ORDER BY number"
        db.execute(f"INSERT INTO main.paid {paid}")
        for table in ("trials", *_OF_TRIAL):
            db.execute(f"INSERT OR REPLACE INTO main.{table} SELECT * FROM trial.{table}")
        db.execute("INSERT OR IGNORE INTO main.small SELECT * FROM trial.small")


@contextmanager
def _beside(path: Path, other: Path) -> Iterator[sqlite3.Connection]:
    """A transaction on the database at `path`, with the one at `other` as `trial`."""
    with closing(connect(path)) as db:
        db.execute("ATTACH DATABASE ? AS trial", (str(other),))
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Nobody works in `folder` meanwhile; one who was told to stop is waited for."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            handle = take_lock(folder / "lock")
            break
        except RunBusyError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _failing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"the trial in {str(folder)!r} cannot be kept: {error}") from error


def private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, exist_ok=True)
    return path
