"""However often a trial goes from folder to folder, and wherever that is broken off: all of it is
there once, in order, under hashes that hold."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.benchmark import absorb as module
from cosilo.benchmark.absorb import absorb, absorb_all, lease, lend
from cosilo.benchmark.rows import Mark, Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.meter import Budget, Totals
from cosilo.boundary.record.faults import verify
from cosilo.boundary.record.ledger import SqliteLedger, connect
from cosilo.models.kept.replay import ReplayStore
from cosilo.objectives.base import Item
from cosilo.tasks.base import Example
from cosilo.types import Answer, Generation, Sampling, Turn

TRIAL = Trial("t", "point", "{}")
STEPS = ("_absorb_answers", "_absorb_chains", "_absorb_rows")

Round = tuple[int, int, tuple[str, bool] | None]
"""Answers made in the run itself, then in a folder; and at which step, before or after it was done,
taking the folder in is broken off."""


async def answer(store: Store, replay: ReplayStore, names: list[str]) -> None:
    ledger = SqliteLedger(store.ledger_path, "t")
    for name in names:
        ask = Ask(chat=(Turn("user", name),), sampling=Sampling())
        number = store.pay(Totals(messages=1, usd=1.0))
        await ledger.append(f"test/{name}", "up", ask, encode(ask))
        replay.put(name.encode().ljust(32), "m", Generation(name))
        store.settle(number, Totals(messages=1, usd=0.25), 1.0)
        item = Item(Example(name, ask.chat, "x"), Answer(Generation("x"), by="large"), grade=1.0)
        mark = Mark(*ledger.head, ledger.sent(f"test/{name}"))
        store.add_items("t", "plain", "test", ledger.attempt, [(item, "")], {("plain", name): mark})
    ledger.close()


def turn(path: Path, made: list[str], rounds: Round) -> None:
    here, there, broken = rounds
    store = Store(path, write=True)
    recorded = path / "replay.sqlite"
    try:
        assert list(absorb_all(store, recorded)) == []
        with closing(ReplayStore(recorded)) as replay:
            new = [f"{len(made) + i}" for i in range(here)]
            asyncio.run(answer(store, replay, new))
        made += new
        folder = lend(store, TRIAL, "task", recorded=recorded)
        lease(store, folder, Budget(usd=10.0))
        other = Store(folder, write=True)
        with closing(ReplayStore(folder / "replay.sqlite")) as replay:
            new = [f"{len(made) + i}" for i in range(there)]
            asyncio.run(answer(other, replay, new))
        other.close()
        made += new
        if broken is None:
            absorb(store, folder, recorded)
            return
        step, after = broken
        real = getattr(module, step)

        def cut(*arguments: object) -> None:
            if after:
                real(*arguments)
            raise KeyboardInterrupt

        with mock.patch.object(module, step, cut), pytest.raises(KeyboardInterrupt):
            absorb(store, folder, recorded)
    finally:
        store.close()


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 3),
            st.none() | st.tuples(st.sampled_from(STEPS), st.booleans()),
        ),
        max_size=4,
    )
)
def test_nothing_is_lost_and_nothing_is_there_twice(rounds: list[Round]) -> None:
    with TemporaryDirectory() as folder:
        path, made = Path(folder) / "run", list[str]()
        for each in rounds:
            turn(path, made, each)
        store = Store(path, write=True)
        try:
            assert list(absorb_all(store, path / "replay.sqlite")) == []
            assert store.paid() == Totals(messages=len(made), usd=0.25 * len(made))
            assert store.leased() == Totals()
            assert sorted(store.answered("t", "plain", "test")) == sorted(made)
            with closing(SqliteLedger(store.ledger_path, "t")) as ledger:
                assert [e.request for e in ledger.entries()] == [f"test/{name}" for name in made]
            with closing(connect(store.ledger_path)) as db:
                assert verify(db) == []
            with closing(ReplayStore(path / "replay.sqlite")) as replay:
                assert len(replay) == len(made)
            assert not (path / "trials").exists()
        finally:
            store.close()
