"""A run made again as if it had never seen the records, by the benchmark's own code.

    data files without the rows ──▶ RUN/.forget-ID/   plan, keys, recorded replies as they are asked for
                                         │ `Runner`, offline; goes on where it was killed
                                         ▼
                                    ready, on the disk ──▶ file by file in the place of the old ones

The new files hold nothing that the benchmark did not put there now, so no page, log or free space of a
database holds what was. Whatever the old folder had besides (aside ledgers, checkpoints) is deleted.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cosilo import interrupts
from cosilo.benchmark import places
from cosilo.benchmark.lock import take_lock
from cosilo.benchmark.parts import SHARDS, replay_path
from cosilo.benchmark.plan import Replay
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import AMOUNTS, Store
from cosilo.boundary.messages import Request, decode
from cosilo.boundary.meter import Totals
from cosilo.boundary.record.ledger import connect, read_entries
from cosilo.databases import made_private
from cosilo.errors import CosiloError, RunBusyError, StoreError, UnexpectedReplyError
from cosilo.forget.files import replace_file, sync_folder
from cosilo.forget.home import DataRun
from cosilo.lineage.store import FILE, KEY
from cosilo.models.kept.inherited import Inherited
from cosilo.models.kept.replay import ReplayStore, question_key, shred
from cosilo.parties.remote import NETWORK

READY = "ready"
REPLAY = "replay.sqlite"

_ASIDE = ("ledger.damaged-*", "checkpoints", "trials", ".*.new", "report.html", "*.sqlite-claims")
"""What a run's folder may hold beside its databases."""


@dataclass(frozen=True)
class Remade:
    """A run that was made again.

    Attributes:
        points: that are there again.
        lost: that are not, by why.
        old: the trials that were there before.
    """

    points: tuple[str, ...]
    lost: tuple[tuple[str, str], ...]
    old: tuple[str, ...]


def remade_folder(run: Path, request: str) -> Path:
    """Where the run is made again, until it takes the old one's place."""
    return run / f".forget-{request[:12]}"


def remake(run: DataRun, request: str, *, retrain: bool = True) -> Remade:
    """Make the run again without what its data files no longer hold. Called twice, it goes on or does
    nothing; the caller holds the run's lock.

    Args:
        retrain: otherwise an empty run takes the old one's place, for `cosilo bench` to fill.

    Raises:
        StoreError: files cannot be read or written.
    """
    folder = remade_folder(run.folder, request)
    if not (folder / READY).is_file():
        told = _made(run, folder, retrain=retrain)
        told["files"] = [f.name for f in _own(run, folder)]
        replace_file(folder / READY, json.dumps(told).encode())
    told = json.loads((folder / READY).read_text("utf-8"))
    _swap(run, folder, told["files"])
    return Remade(tuple(told["points"]), tuple((n, w) for n, w in told["lost"]), tuple(told["old"]))


def clear(run: DataRun, request: str) -> None:
    """Delete the folder in which the run was made again."""
    shutil.rmtree(remade_folder(run.folder, request), ignore_errors=True)


def held(run: DataRun) -> int:
    """The run's lock, until the descriptor is closed.

    Raises:
        RunBusyError: a process works on it.
    """
    return take_lock(run.folder / "lock")


def refuse_under_way(run: DataRun) -> None:
    """Refuse a run with trials under way in other processes.

    Raises:
        RunBusyError: there are some.
    """
    store = Store(run.folder, write=False)
    try:
        if store.rows("SELECT 1 FROM leases LIMIT 1"):
            raise RunBusyError(
                f"trials of {str(run.folder)!r} are under way or were interrupted; let `cosilo bench` "
                "take them in first"
            )
    finally:
        store.close()


def shared_store(run: DataRun) -> Path | None:
    """Where several runs keep their recorded replies together; None where this one has its own."""
    return run.plan.replay.path


def drop_unasked(shared: Path, runs: Sequence[DataRun], request: str) -> int:
    """Delete from the store `shared` the replies that runs as they were had asked for, and as they are
    now have not: how many. What other runs ask for again has to be asked again.

    Raises:
        StoreError: a file cannot be read or written.
    """
    folders = [remade_folder(r.folder, request) for r in runs if shared_store(r) == shared]
    there = [folder for folder in folders if (folder / "asked.json").is_file()]
    if not shared.is_file() or not there:
        return 0
    now = frozenset[bytes]().union(*(_keys(folder / REPLAY) for folder in there))
    asked = {key for f in there for key in json.loads((f / "asked.json").read_text("utf-8"))}
    gone = [key for key in map(bytes.fromhex, sorted(asked)) if key not in now]
    return shred(shared, gone).records


# ── making it ────────────────────────────────────────────────────────────────


def _made(run: DataRun, folder: Path, *, retrain: bool) -> dict[str, object]:
    """Make the run in `folder`; what `Remade` holds, as JSON does."""
    old = Store(run.folder, write=False)
    try:
        trials, paid = tuple(old.trials()), old.paid()
        recorded = replay_path(run.plan, old)
    finally:
        old.close()
    folder.mkdir(mode=0o700, exist_ok=True)
    for key in recorded.parent.glob("*.key"):
        if key.name != KEY and not (folder / key.name).exists():
            made_private(folder / key.name).write_bytes(key.read_bytes())
    if shared_store(run) is not None:
        asked = [key.hex() for key in _asked(run.folder / "ledger.sqlite", recorded)]
        replace_file(folder / "asked.json", json.dumps(asked).encode())
    plan = replace(run.plan, replay=Replay())
    points: list[str] = []
    lost: list[tuple[str, str]] = []
    replies = Inherited(folder / REPLAY, recorded)
    store = Store(folder, write=True)
    try:
        if retrain:
            runner = Runner(
                plan,
                store,
                offline=True,
                lineage=run.folder,
                recorded=replies,
                taught=run.folder,
            )
            try:
                for outcome in interrupts.run(runner.run):
                    if outcome.error is None:
                        points.append(outcome.point.name)
                    else:
                        lost.append((outcome.point.name, _why(outcome.error)))
            except StoreError:
                raise
            except CosiloError as error:
                lost = [(point.name, _why(error)) for point in run.plan.points]
        _describe(run, store)
        _book(store, paid)
    finally:
        store.close()
        replies.close()
    for database in folder.glob("*.sqlite"):
        _settle(database)
    return {"points": points, "lost": lost, "old": trials}


def _why(error: CosiloError) -> str:
    """An error as a certificate may have it: the messages of our own hold no private text."""
    return error.logged


def _describe(run: DataRun, store: Store) -> None:
    """`run.json` and the plan as the run's own folder has them."""
    about = json.loads((run.folder / "run.json").read_text("utf-8"))
    if (store.path / "run.json").is_file():
        about = store.read_json("run.json")
    else:  # nothing was made again: a run that has not begun
        about["points"] = {}
        store.write_text("plan.toml", run.plan.text)
    about |= places.described(run.plan, run.folder)
    store.write_text("run.json", json.dumps(about, indent=2) + "\n")


def _book(store: Store, paid: Totals) -> None:
    """What the run has cost so far is still paid, and counts towards its budget."""
    if store.rows("SELECT 1 FROM paid LIMIT 1") or not paid.messages:
        return
    with store.change() as db:
        row = [getattr(paid, name) for name in AMOUNTS]
        db.execute("INSERT INTO paid VALUES (NULL,1,?,?,?,?,?,?,?,0)", row)


def _settle(database: Path) -> None:
    """All that is committed is in the file itself, and nothing beside it."""
    with closing(connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode = DELETE").fetchone()
    handle = os.open(database, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ── the swap ─────────────────────────────────────────────────────────────────


def _own(run: DataRun, folder: Path) -> list[Path]:
    """The files in `folder` that become the run's, and the stages of training that it still needs."""
    beside = {"lock", "asked.json", *([REPLAY] if shared_store(run) is not None else [])}
    return [
        f
        for f in sorted(folder.iterdir())
        if (f.is_file() or f.name == SHARDS)
        and f.suffix != ".key"
        and f.name not in beside
        and not f.name.startswith(NETWORK)
    ]


def _swap(run: DataRun, folder: Path, names: Sequence[str]) -> None:
    """Put the files of these names in `folder` in the place of those in the run's. Whatever was swapped
    already is not there any more, so a second call goes on."""
    try:
        for pattern in _ASIDE:
            for path in run.folder.glob(pattern):
                _remove(path)
        if SHARDS not in names:
            _remove(run.folder / SHARDS)
        for name in names:
            if not (folder / name).exists():
                continue
            if (folder / name).is_dir():
                _remove(run.folder / name)
            for ending in ("-wal", "-shm", "-journal"):
                (run.folder / f"{name}{ending}").unlink(missing_ok=True)
            (folder / name).replace(run.folder / name)
        for old in run.folder.glob("*.sqlite*"):  # of the run as it was alone
            # By the ids on the network, and nothing else, another party can be asked to forget.
            if f"{old.name.partition('.sqlite')[0]}.sqlite" not in (*names, FILE, NETWORK):
                _remove(old)
        sync_folder(run.folder)
    except OSError as error:
        raise StoreError(
            f"the run {str(run.folder)!r} cannot be changed: {error.strerror}"
        ) from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ── recorded replies ─────────────────────────────────────────────────────────


def _keys(path: Path) -> frozenset[bytes]:
    """The questions that the store at `path` has a reply to."""
    if not path.is_file():
        return frozenset()
    with closing(ReplayStore(path)) as store:
        return frozenset(store.questions())


def _asked(ledger: Path, recorded: Path) -> Sequence[bytes]:
    """The keys of all that the record says was asked, as far as contents are kept."""
    if not (ledger.is_file() and recorded.is_file()):
        return ()
    with closing(ReplayStore(recorded)) as store:
        models = store.models()
    found: list[bytes] = []
    with closing(connect(ledger)) as db:
        for (chain,) in db.execute("SELECT chain FROM heads").fetchall():
            for entry in read_entries(db, chain):
                if entry.direction != "up" or entry.payload is None:
                    continue
                with suppress(UnexpectedReplyError):
                    message = decode(entry.payload)
                    if (
                        isinstance(message, Request)
                        and (question := message.question()) is not None
                    ):
                        found += [question_key(model, question) for model in models]
    return found
