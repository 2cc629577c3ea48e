"""The ledger in PostgreSQL records what the one in a file does, and survives its server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.record.ledger import SqliteLedger
from cosilo.boundary.record.ledger_postgres import (
    SCHEMA,
    ChainBusyError,
    PostgresLedger,
    shred,
    verify,
)
from cosilo.errors import StoreError
from cosilo.gateway.accounts.accounts import Limits, RequestFacts, Spend
from cosilo.record_keys import SPAN
from cosilo.types import user

Open = Callable[[], Any]
KEY = b"k" * 32


@pytest.fixture
def connect(postgres: Callable[[], str]) -> Iterator[Open]:
    import psycopg

    url = postgres()
    opened: list[Any] = []

    def connect() -> Any:
        opened.append(psycopg.connect(url, autocommit=True, application_name="cosilo"))
        return opened[-1]

    connect().execute(SCHEMA)
    yield connect
    for db in opened:
        db.close()


def put(ledger: Any, i: int) -> None:
    ask = Ask(chat=user(f"message {i}"))
    asyncio.run(ledger.append(f"request-{i}", "up" if i % 2 == 0 else "down", ask, encode(ask)))


def test_a_ledger_begun_before_replies_said_what_they_answer_goes_on(connect: Open) -> None:
    older = PostgresLedger(connect, "chain", key=KEY)
    older._how = None  # type: ignore[assignment]  # what it recorded was hidden by no key
    put(older, 0)
    older.close()
    alter = "ALTER TABLE cosilo.entries DROP COLUMN answers, DROP COLUMN key_id"
    connect().execute(alter)  # as it was made then
    assert verify(connect(), key=KEY) == []
    connect().execute(SCHEMA)
    newer, reply = PostgresLedger(connect, "chain", key=KEY), Ask(chat=user("a reply"))
    number = asyncio.run(newer.append("r", "down", reply, encode(reply), 0))
    assert [(e.number, e.answers) for e in newer.entries()] == [(0, None), (number, 0)]
    assert verify(connect(), key=KEY) == []
    newer.close()


def test_it_records_what_the_one_in_a_file_does(
    connect: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosilo.boundary.record.ledger.time.time", lambda: 1795470193.140969)
    here = PostgresLedger(connect, "chain", key=KEY)
    file = SqliteLedger(tmp_path / "l.sqlite", "chain", key=KEY)
    for i in range(5):
        put(here, i)
        put(file, i)
    for a, b in zip(here.entries(), file.entries(), strict=True):
        hidden = {"key_id": None, "digest": b"", "hash": b""}  # by keys of their own
        assert replace(a, **hidden) == replace(b, **hidden)
        assert a.content_digest == b.content_digest
    assert next(here.entries()).message == Ask(chat=user("message 0"))
    assert verify(connect(), key=KEY) == []
    assert verify(connect(), key=b"x" * 32) != []
    here.close()
    file.close()


def test_a_chain_has_one_writer_at_a_time(connect: Open) -> None:
    one = PostgresLedger(connect, "chain")
    put(one, 0)
    with pytest.raises(ChainBusyError, match="'chain'"):
        PostgresLedger(connect, "chain")
    PostgresLedger(connect, "other").close()
    one.close()
    two = PostgresLedger(connect, "chain")
    put(two, 1)
    assert [(e.number, e.attempt) for e in two.entries()] == [(0, 0), (1, 1)]
    two.close()


def end_connections(connect: Open) -> None:
    connect().execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'cosilo' AND pid != pg_backend_pid()"
    )


def test_a_lost_connection_is_made_again_and_the_chain_goes_on(connect: Open) -> None:
    ledger = PostgresLedger(connect, "chain", key=KEY)
    put(ledger, 0)
    end_connections(connect)
    put(ledger, 1)
    end_connections(connect)
    ledger.check()
    put(ledger, 2)
    assert [e.request for e in ledger.entries()] == ["request-0", "request-1", "request-2"]
    assert verify(connect(), key=KEY) == []
    ledger.close()


def test_an_entry_written_whose_answer_was_lost_stays_and_the_next_follows_it(
    connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = PostgresLedger(connect, "chain", key=KEY)
    put(ledger, 0)
    real = ledger._ask

    def lost(question: Callable[[Any], Any]) -> Any:
        real(question)
        raise StoreError("the connection broke after the commit")

    monkeypatch.setattr(ledger, "_ask", lost)
    put(ledger, 1)
    monkeypatch.undo()
    put(ledger, 2)
    assert [(e.number, e.request) for e in ledger.entries()] == [
        (0, "request-0"), (1, "request-1"), (2, "request-2"),
    ]  # fmt: skip
    assert verify(connect(), key=KEY) == []
    ledger.close()


def test_a_writer_waits_until_the_server_lets_its_own_last_connection_go(
    connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = PostgresLedger(connect, "chain", key=KEY)
    put(ledger, 0)
    # Its last connection ends only once the new one has found the chain held by it.
    last, real, found = ledger._db, ledger._holder, []
    backend = last.info.backend_pid
    broken = connect()
    broken.close()
    ledger._db = broken

    def holder(db: Any) -> int | None:
        found.append(real(db))
        last.close()
        return found[-1]

    monkeypatch.setattr(ledger, "_holder", holder)
    put(ledger, 1)
    assert found[0] == backend
    assert [e.request for e in ledger.entries()] == ["request-0", "request-1"]
    ledger.close()


def test_a_chain_taken_over_while_the_connection_was_lost_is_not_written(connect: Open) -> None:
    ledger = PostgresLedger(connect, "chain")
    put(ledger, 0)
    end_connections(connect)
    thief = PostgresLedger(connect, "chain")
    for _ in range(2):
        with pytest.raises(StoreError):
            put(ledger, 1)
        with pytest.raises(StoreError):
            ledger.check()
    put(thief, 2)
    assert [e.request for e in thief.entries()] == ["request-0", "request-2"]
    thief.close()
    put(ledger, 3)  # it is free again
    assert [e.number for e in ledger.entries()] == [0, 1, 2]
    ledger.close()


async def test_the_loop_serves_others_while_entries_wait_for_the_server(connect: Open) -> None:
    ledger = PostgresLedger(connect, "chain", key=KEY)
    other = connect()
    other.execute("BEGIN")
    other.execute("LOCK TABLE cosilo.entries IN EXCLUSIVE MODE")
    ask = Ask(chat=user("hello"))
    waiting = [
        asyncio.ensure_future(ledger.append(f"request-{i}", "up", ask, encode(ask)))
        for i in range(3)
    ]
    for _ in range(50):
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting), "none is on record yet"
    other.execute("COMMIT")
    await asyncio.gather(*waiting)
    assert [e.request for e in ledger.entries()] == ["request-0", "request-1", "request-2"]
    assert verify(connect(), key=KEY) == []
    ledger.close()


def test_an_unreachable_server_is_said_without_the_password(tmp_path: Path) -> None:
    psycopg = pytest.importorskip("psycopg")

    def connect() -> Any:
        return psycopg.connect(f"postgresql://u:hunter2@/db?host={tmp_path}", connect_timeout=2)

    with pytest.raises(StoreError, match="PostgreSQL") as caught:
        PostgresLedger(connect, "chain")
    assert "hunter2" not in str(caught.value)


async def test_accounts_go_on_after_the_server_restarted(
    postgres: Callable[[], str], connect: Open
) -> None:
    from cosilo.gateway.record.store_postgres import open_postgres

    store = await open_postgres(postgres(), secret=b"s" * 32)
    made = await store.create_key("a", limits=Limits(usd=1))
    held = await store.reserve(made.key, Spend(usd=0.5, requests=1), request="r")
    end_connections(connect)
    assert await store.authenticate(made.bearer) == made.key
    end_connections(connect)
    await store.reserve(made.key, Spend(usd=0.25, requests=1), request="s")
    end_connections(connect)
    facts = RequestFacts(
        request="r", point="p", strategy="s", endpoint="chat", outcome="ok", status=200
    )
    await store.settle(held, Spend(usd=0.1, requests=1), request=facts)
    end_connections(connect)
    await store.check()
    now = (await store.list_keys())[0]
    assert (now.used.usd, now.held.usd) == (0.1, 0.25)
    await store.close()


async def test_a_reservation_whose_answer_was_lost_is_made_once(
    postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    from cosilo.gateway.record.store_postgres import open_postgres

    store = await open_postgres(postgres(), secret=b"s" * 32)
    made = await store.create_key("a", limits=Limits(usd=1, requests_per_minute=10))
    real = psycopg.AsyncConnection.execute
    broken = []

    async def lossy(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        cursor = await real(self, query, *args, **kwargs)
        if "reserve(" in str(query) and not broken:
            broken.append(True)
            raise psycopg.OperationalError("the connection broke after the commit")
        return cursor

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", lossy)
    held = await store.reserve(made.key, Spend(usd=0.75, requests=1), request="r")
    assert broken
    monkeypatch.undo()
    now = (await store.list_keys())[0]
    assert (now.held.usd, now.held.requests) == (0.75, 1)
    assert held.most == Spend(usd=0.75, requests=1)
    await store.close()


def test_what_is_forgotten_is_in_no_table_of_the_server(
    connect: Open, postgres: Callable[[], str]
) -> None:
    """Its own log (`pg_wal`) keeps a deleted key until it is used again; of a message it has none."""
    import psycopg.conninfo

    ledger = PostgresLedger(connect, "chain", key=KEY)
    for i in range(6):
        put(ledger, i)
    db = connect()
    (old,) = db.execute("SELECT key FROM cosilo.key_blocks").fetchone()
    said = encode(Ask(chat=user("message 2")))
    data = Path(str(psycopg.conninfo.conninfo_to_dict(ledger._db.info.dsn)["host"])) / "data"

    def holds(trace: bytes, *, log: bool) -> bool:
        db.execute("CHECKPOINT")
        files = [f for f in data.rglob("*") if f.is_file() and ("pg_wal" in f.parts) is log]
        return any(trace in file.read_bytes() for file in files)

    assert holds(old, log=False)
    done = shred(db, ["request-2"])
    assert (done.records, done.keys, done.guessable) == (1, 1, 0)
    assert shred(db, ["request-2"]).keys == 0
    assert not holds(old, log=False)
    for trace in (said, b"message 2", hashlib.sha256(said).digest()):
        assert not holds(trace, log=False)
        assert not holds(trace, log=True)
    entries = list(ledger.entries())
    assert [e.payload is None for e in entries] == [i == 2 for i in range(6)]
    assert [e.content_digest is None for e in entries] == [i == 2 for i in range(6)]
    for i in range(6, SPAN):  # in the block that was shredded in part
        put(ledger, i)
    last = list(ledger.entries())[-1]
    assert last.message == Ask(chat=user(f"message {SPAN - 1}"))
    assert isinstance(last.key, bytes)
    assert holds(last.key, log=False)
    assert shred(db, [last.request]).keys == 1
    assert not holds(last.key, log=False)
    assert verify(connect(), key=KEY) == []
    ledger.close()
