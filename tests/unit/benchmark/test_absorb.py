"""A trial's folder is taken in whole, however often that is begun, and whatever ends it in between."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.benchmark import absorb as module
from cosilo.benchmark.absorb import absorb, absorb_all, free, lease, lend
from cosilo.benchmark.lock import take_lock
from cosilo.benchmark.record import fault, note_heads
from cosilo.benchmark.rows import Mark, Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.meter import Budget, Totals
from cosilo.boundary.record.faults import verify
from cosilo.boundary.record.ledger import SqliteLedger, connect
from cosilo.errors import RunBusyError, StoreError
from cosilo.models.kept.replay import ReplayStore
from cosilo.objectives.base import Item
from cosilo.tasks.base import Example
from cosilo.types import Answer, Generation, Sampling, Turn

TRIAL = Trial("t", "point", "{}")
COST = Totals(messages=1, tokens_in=10, usd=0.5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "run", write=True)
    yield store
    store.close()


@pytest.fixture
def replay(store: Store) -> Path:
    return store.path / "replay.sqlite"


async def answer(store: Store, name: str, *, done: bool = False) -> None:
    """One item of the trial, asked, paid for and answered."""
    ledger = SqliteLedger(store.ledger_path, "t")
    ask = Ask(chat=(Turn("user", name),), sampling=Sampling())
    number = store.pay(COST)
    await ledger.append(f"test/{name}", "up", ask, encode(ask))
    store.settle(number, COST, 1.0)
    item = Item(Example(name, ask.chat, "cat"), Answer(Generation("cat"), by="large"), grade=1.0)
    mark = Mark(*ledger.head, ledger.sent(f"test/{name}"))
    store.add_items("t", "plain", "test", ledger.attempt, [(item, "")], {("plain", name): mark})
    store.put_trial(Trial("t", "point", "{}", "done" if done else "new", ledger.attempt))
    ledger.close()
    if done:
        note_heads(store, store.trials()["t"])


async def elsewhere(folder: Path, *names: str, done: bool = False) -> None:
    other = Store(folder, write=True)
    for name in names:
        await answer(other, name, done=done and name == names[-1])
    other.close()


def state(store: Store) -> object:
    """All that a run says of itself, and that its record is whole."""
    with closing(connect(store.ledger_path)) as db:
        assert verify(db) == []
        entries = db.execute("SELECT number, request, hash FROM entries ORDER BY number").fetchall()
    return (
        entries,
        store.answered("t", "plain", "test"),
        store.paid(),
        store.leased(),
        store.trials(),
    )


async def test_a_trial_that_was_begun_here_goes_on_there_and_comes_back(
    store: Store, replay: Path
) -> None:
    await answer(store, "a")
    folder = lend(store, TRIAL, "task")
    lease(store, folder, Budget(messages=5, usd=2.0))
    assert store.leased() == Totals(messages=5, usd=2.0)
    await elsewhere(folder, "b", "c", done=True)
    absorb(store, folder, replay)
    assert not folder.exists()
    entries, answered, paid, leased, _ = state(store)  # type: ignore[misc]
    assert [e[1] for e in entries] == ["test/a", "test/b", "test/c"]
    assert set(answered) == {"a", "b", "c"}
    assert paid == COST + COST + COST
    assert leased == Totals()
    assert fault(store, store.trials()["t"]) == ""


async def test_what_was_spent_before_counts_in_the_folder_and_comes_back_once(
    store: Store, replay: Path
) -> None:
    await answer(store, "a")
    folder = lend(store, TRIAL, "task")
    lease(store, folder, Budget(usd=2.0), before=store.paid())
    other = Store(folder, write=True)
    assert other.paid() == COST
    await answer(other, "b")
    assert other.paid() == COST + COST
    other.close()
    absorb(store, folder, replay)
    assert store.paid() == COST + COST


STEPS = ("_absorb_answers", "_absorb_chains", "_absorb_rows")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
async def test_what_ends_in_the_middle_is_followed_by_the_whole(
    store: Store, replay: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    await answer(store, "a")
    ReplayStore(replay).close()
    folder = lend(store, TRIAL, "task", recorded=replay)
    lease(store, folder, Budget(messages=5))
    await elsewhere(folder, "b", "c", done=True)
    kept = store.path.parent / "kept"
    shutil.copytree(folder, kept)
    real = getattr(module, step)

    def cut(*arguments: object) -> None:
        if after:
            real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, step, cut)
        with pytest.raises(KeyboardInterrupt):
            absorb(store, folder, replay)
    assert list(absorb_all(store, replay)) == []
    assert not (store.path / "trials").exists()
    once = state(store)
    shutil.copytree(kept, folder)  # as if it had been absorbed and not deleted
    assert list(absorb_all(store, replay)) == []
    assert state(store) == once
    assert store.paid() == COST + COST + COST


async def test_a_folder_that_was_never_begun_is_dropped(store: Store, replay: Path) -> None:
    lend(store, TRIAL, "task")
    assert list(absorb_all(store, replay)) == []
    assert not (store.path / "trials").exists()
    assert store.trials() == {}


async def test_a_folder_that_is_gone_has_spent_its_lease(store: Store, replay: Path) -> None:
    folder = lend(store, TRIAL, "task")
    lease(store, folder, Budget(usd=2.0, messages=3))
    shutil.rmtree(folder)
    (said,) = absorb_all(store, replay)
    assert "counts as spent" in said
    assert store.paid() == Totals(messages=3, usd=2.0)
    assert store.leased() == Totals()


async def test_a_record_that_does_not_continue_the_runs_is_not_taken_in(
    store: Store, replay: Path
) -> None:
    folder = lend(store, TRIAL, "task")
    lease(store, folder, Budget())
    await elsewhere(folder, "b", "c")
    await answer(store, "a")
    before = state(store)
    with pytest.raises(StoreError, match="does not continue the run's"):
        absorb(store, folder, replay)
    assert state(store) == before
    assert folder.is_dir()


async def test_a_folder_in_which_somebody_works_is_waited_for(
    store: Store, replay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    folder = lend(store, TRIAL, "task")
    lease(store, folder, Budget())
    other = Store(folder, write=True)
    with pytest.raises(RunBusyError):
        absorb(store, folder, replay)
    other.close()
    absorb(store, folder, replay)
    assert not folder.exists()


async def test_answers_recorded_elsewhere_come_back(store: Store, replay: Path) -> None:
    here = ReplayStore(replay)
    here.put(b"a" * 32, "m", Generation("first"))
    folder = lend(store, TRIAL, "task", recorded=replay)
    lease(store, folder, Budget())
    there = ReplayStore(folder / "replay.sqlite")
    assert there.get(b"a" * 32) == Generation("first")
    there.put(b"b" * 32, "m", Generation("second"))
    there.close()
    absorb(store, folder, replay)
    assert here.get(b"b" * 32) == Generation("second")
    assert len(here) == 2
    here.close()


def test_what_is_set_aside_is_not_free(store: Store) -> None:
    budget = Budget(usd=4.0, messages=10)
    assert free(store, budget, share=2) == Budget(usd=2.0, messages=5)
    folder = store.path / "trials" / "x"
    lease(store, folder, Budget(usd=3.0, messages=10))
    assert free(store, budget) == Budget(usd=1.0, messages=0)
    assert free(store, Budget(usd=2.0)) == Budget(usd=0.0)


def test_nobody_else_may_read_a_trials_folder(store: Store) -> None:
    folder = lend(store, TRIAL, "task")
    assert folder.parent.stat().st_mode & 0o077 == 0
    for path in (folder, *folder.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path
    os.close(take_lock(folder / "lock"))


def test_a_lease_of_a_run_of_an_older_version_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    store = Store(tmp_path / "run", write=True)
    with store.change() as db:
        db.execute("DROP TABLE leases")
    store.close()
    store = Store(tmp_path / "run", write=True)
    assert store.leased() == Totals()
    store.close()
    with closing(sqlite3.connect(tmp_path / "run/run.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM leases").fetchone() == (0,)
