"""A trial's roads: a chain for each other side, whose attempts count alike, and which go with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.benchmark.absorb import absorb, lease, lend
from cosilo.benchmark.plan import Plan, parse_plan
from cosilo.benchmark.record import chain_of, fault, note_heads, roads_of
from cosilo.benchmark.roads import Roads
from cosilo.benchmark.rows import Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.meter import Budget
from cosilo.boundary.record.ledger import SqliteLedger, connect
from cosilo.objectives.base import Item
from cosilo.tasks.base import Example
from cosilo.types import Answer, Generation, user

TRIAL = Trial("t", "ensemble", json.dumps({"sides": ["a", "b"]}), attempt=0)
ASK = Ask(chat=user("q"))
PLAN = """
name = "desk"
[task]
kind = "classification"
file = "data.jsonl"
[models.small]
kind = "scripted"
[models.large.a]
kind = "scripted"
[models.large.b]
kind = "scripted"
[[points]]
strategy = "ensemble"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return parse_plan(PLAN, tmp_path / "p.toml")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "run", write=True)
    found.put_trial(TRIAL)
    yield found
    found.close()


def opened(plan: Plan, store: Store) -> Roads:
    return Roads(plan, plan.points[0], TRIAL, "plain", store)


async def leave(store: Store, *roads: str) -> None:
    for road in roads:
        with closing(SqliteLedger(store.ledger_path, chain_of("t", road))) as ledger:
            await ledger.append("test/x", "up", ASK, encode(ASK))


def test_chains_are_named_by_the_trial_the_pass_and_the_side() -> None:
    assert roads_of(TRIAL) == ("plain", "plain/peers/b", "tampered", "tampered/peers/b")
    assert [chain_of("t", road) for road in roads_of(TRIAL)] == [
        "t",
        "t/peers/b",
        "t/tampered",
        "t/tampered/peers/b",
    ]
    one = Trial("t", "large", "{}")
    assert [chain_of("t", road) for road in roads_of(one)] == ["t", "t/tampered"]


@pytest.mark.parametrize("begun", ["plain", "plain/peers/b"])
async def test_attempts_count_alike_on_all_chains(plan: Plan, store: Store, begun: str) -> None:
    first = opened(plan, store)
    assert first.attempt == 0
    first.close()
    await leave(store, begun)  # the process ended before the other chain held anything
    again = opened(plan, store)
    assert again.attempt == 1
    assert {ledger.attempt for ledger in again._ledgers.values()} == {1}
    again.close()


async def test_marks_say_where_each_chain_stands(plan: Plan, store: Store) -> None:
    roads = opened(plan, store)
    ledger = roads._ledgers["plain/peers/b"]
    await ledger.append("test/x", "up", ASK, encode(ASK))
    marks = roads.marks("test", ["x"])
    assert {road: (mark.count, mark.sent) for (road, _), mark in marks.items()} == {
        "plain": (0, 0),
        "plain/peers/b": (1, 1),
    }
    roads.close()


async def test_all_chains_go_with_a_trial_and_come_back(plan: Plan, store: Store) -> None:
    await leave(store, "plain", "plain/peers/b", "tampered/peers/b")
    folder = lend(store, TRIAL, "task")
    lease(store, folder, Budget(messages=5))
    with closing(connect(folder / "ledger.sqlite")) as db:
        chains = {chain for (chain,) in db.execute("SELECT chain FROM entries")}
    assert chains == {"t", "t/peers/b", "t/tampered/peers/b"}
    there = Store(folder, write=True)
    await leave(there, "plain/peers/b")
    there.close()
    absorb(store, folder, store.path / "replay.sqlite")
    with closing(connect(store.ledger_path)) as db:
        counts = dict(db.execute("SELECT chain, count(*) FROM entries GROUP BY chain"))
    assert counts == {"t": 1, "t/peers/b": 2, "t/tampered/peers/b": 1}


@pytest.mark.parametrize("lost", ["t", "t/peers/b"])
@pytest.mark.parametrize("asked", ["plain", "plain/peers/b"])
async def test_an_answer_is_borne_out_by_whichever_side_it_asked(
    plan: Plan, store: Store, asked: str, lost: str
) -> None:
    roads = opened(plan, store)
    await roads._ledgers[asked].append("test/x", "up", ASK, encode(ASK))
    item = Item(Example("x", user("x"), ("yes",)), Answer(Generation("yes"), by="large"), 1.0)
    store.add_items("t", "plain", "test", 0, [(item, "")], roads.marks("test", ["x"]))
    roads.close()
    done = Trial("t", "ensemble", TRIAL.settings, "done", 0)
    store.put_trial(done)
    note_heads(store, done)
    assert fault(store, done) == ""
    with closing(connect(store.ledger_path)) as db:
        db.execute("DROP TRIGGER entries_no_delete")
        db.execute("DELETE FROM entries WHERE chain = ?", (lost,))
        db.execute("DELETE FROM heads WHERE chain = ?", (lost,))
    holds = {"plain": "t", "plain/peers/b": "t/peers/b"}[asked]
    assert bool(fault(store, done)) == (lost == holds)
