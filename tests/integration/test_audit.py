"""Every change to the record is found, contents are kept as chosen, and questions are answered."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cosilo.benchmark.record import note_heads
from cosilo.benchmark.rows import Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, Completion, encode
from cosilo.boundary.record.ledger import SqliteLedger, connect, head_mac
from cosilo.cli import main
from cosilo.errors import ConfigError, StoreError
from cosilo.gateway.accounts.accounts import RequestFacts, Spend
from cosilo.gateway.accounts.keys import derive, read_secret
from cosilo.gateway.record.audit import Anchor, open_record
from cosilo.gateway.record.retention import Vault, add_content_key, read_vault
from cosilo.gateway.record.store import open_store
from cosilo.types import Generation, user

WORDS = "the content of message"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "store")
    make: Callable[[], str] = request.getfixturevalue("postgres")
    return make()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    read_secret(tmp_path / "secret", make=True)
    return tmp_path / "secret"


def fill(url: str, secret: Path, count: int = 4, **options: Any) -> list[str]:
    """Requests of two keys, each with a message out and a reply in; the keys' ids."""

    async def run() -> list[str]:
        store = await open_store(url, secret=secret, **options)
        keys = [(await store.create_key(name)).key for name in ("one", "two")]
        for i in range(count):
            request, key = f"request-{i}", keys[i % 2]
            most = Spend(usd=1.0, requests=1, entities=2)
            held = await store.accounts.reserve(key, most, request=request)
            ask, reply = Ask(chat=user(f"{WORDS} {i}")), Completion(generation=Generation("ok"))
            await store.ledger("p").append(request, "up", ask, encode(ask))
            await store.ledger("p").append(request, "down", reply, encode(reply))
            facts = RequestFacts(
                request=request, point="private", strategy="large", endpoint="chat", outcome="ok",
                by="large",
                status=200, lm_calls=1, bytes_up=len(encode(ask)), bytes_down=len(encode(reply)),
                kinds={"NAME": 1}, disputes=int(i == 3),
            )  # fmt: skip
            spent = Spend(usd=0.5, requests=1, entities=1)
            await store.accounts.settle(held, spent, request=facts)
        await store.close()
        return [key.id for key in keys]

    return asyncio.run(run())


@pytest.fixture
def change(url: str) -> Iterator[Callable[[str], None]]:
    """Changes the database as somebody who may write it but does not hold the secret."""
    opened: list[Any] = []

    def run(statements: str) -> None:
        if url.startswith("postgresql:"):
            import psycopg

            db = psycopg.connect(url, autocommit=True)
            db.execute("SET search_path = cosilo")
            db.execute("ALTER TABLE entries DISABLE TRIGGER ALL")
        else:
            db = sqlite3.connect(f"{url}/ledger.sqlite", isolation_level=None)
            db.execute("DROP TRIGGER IF EXISTS entries_no_update")
            db.execute("DROP TRIGGER IF EXISTS entries_no_delete")
            db.execute("ATTACH DATABASE ? AS accounts", (f"{url}/accounts.sqlite",))
        opened.append(db)
        for statement in statements.split(";"):
            if url.startswith("postgresql:"):
                statement = statement.replace("zeroblob(32)", r"'\x00'::bytea")
                statement = statement.replace("x'00'", r"'\x00'::bytea")
            assert db.execute(statement).rowcount, statement

    yield run
    for db in opened:
        db.close()


def faults(url: str, secret: Path, anchors: list[Anchor] | None = None) -> list[str]:
    with open_record(url, secret=read_secret(secret, make=False)) as record:
        return list(record.verify(anchors or []).faults)


TAMPERINGS = {
    "chain": "UPDATE entries SET chain = 'other' WHERE number = 2",
    "number": "UPDATE entries SET number = 99 WHERE number = 2",
    "attempt": "UPDATE entries SET attempt = attempt + 1 WHERE number = 2",
    "request": "UPDATE entries SET request = 'request-0' WHERE number = 2",
    "direction": "UPDATE entries SET direction = 'down' WHERE number = 2",
    "kind": "UPDATE entries SET kind = 'Nothing' WHERE number = 2",
    "size": "UPDATE entries SET size = size - 1 WHERE number = 2",
    "digest": "UPDATE entries SET digest = zeroblob(32) WHERE number = 2",
    "at": "UPDATE entries SET at = at - 1 WHERE number = 2",
    "epsilon": "UPDATE entries SET epsilon = epsilon + 1 WHERE number = 2",
    "payload": "UPDATE entries SET payload = x'00' WHERE number = 2",
    "hash": "UPDATE entries SET hash = zeroblob(32) WHERE number = 2",
    "first": "DELETE FROM entries WHERE number = 0",
    "middle": "DELETE FROM entries WHERE number = 3",
    "last": "DELETE FROM entries WHERE number = 7",
    "all": "DELETE FROM entries",
    "the whole chain": "DELETE FROM entries; DELETE FROM heads",
    "swapped": "UPDATE entries SET number = number + 90 WHERE number IN (1, 2);"
    "UPDATE entries SET number = 2 WHERE number = 91;"
    "UPDATE entries SET number = 1 WHERE number = 92",
    "head's count": "UPDATE heads SET count = count - 1",
    "head's hash": "UPDATE heads SET hash = zeroblob(32)",
    "head's seal": "UPDATE heads SET mac = zeroblob(32)",
    "no head": "DELETE FROM heads",
    "cut, head moved along": "DELETE FROM entries WHERE number = 7;"
    "UPDATE heads SET count = 7, hash = (SELECT hash FROM entries WHERE number = 6)",
    "a request's own count": "UPDATE requests SET bytes_up = bytes_up - 1 WHERE request = 'request-1'",
}


def test_a_whole_record_is_whole(url: str, secret: Path) -> None:
    fill(url, secret)
    with open_record(url, secret=read_secret(secret, make=False)) as record:
        verdict = record.verify(record.anchors())
    assert verdict.faults == []
    assert (dict(verdict.chains), verdict.requests) == ({"worker-0": 8}, 4)


@pytest.mark.parametrize("what", TAMPERINGS)
def test_every_tampering_is_found(
    url: str, secret: Path, change: Callable[[str], None], what: str
) -> None:
    fill(url, secret, keep="content")
    assert faults(url, secret) == []
    change(TAMPERINGS[what])
    assert faults(url, secret)


def test_a_record_put_back_to_an_earlier_day_is_found_by_heads_noted_elsewhere(
    url: str, secret: Path, change: Callable[[str], None]
) -> None:
    fill(url, secret, 1)
    with open_record(url) as record:
        early = record.heads()["worker-0"]
    fill_more(url, secret)
    with open_record(url) as record:
        noted = record.anchors()
    change(f"DELETE FROM entries WHERE number >= {early.count}")
    change("DELETE FROM requests WHERE request = 'more'")
    hexes = [early.hash.hex(), early.mac.hex()]
    if url.startswith("postgresql:"):
        values = [rf"'\x{h}'::bytea" for h in hexes]
    else:
        values = [f"x'{h}'" for h in hexes]
    change(f"UPDATE heads SET count = {early.count}, hash = {values[0]}, mac = {values[1]}")
    assert faults(url, secret) == []  # all of it is consistent, and was true once
    assert faults(url, secret, noted) == ["worker-0: entry 2 is not the one that was noted"]


OLDER = {
    "the whole chain": (
        "DELETE FROM entries; DELETE FROM heads",
        ["worker-0: {sent} bytes left for 4 finished requests, and nothing is on record: the ledger was"
         " deleted, or is an older copy"],
    ),
    "its end, head and all": (
        "DELETE FROM entries WHERE number >= 4; {head}",
        ["worker-0: {half} bytes left for its last 2 finished requests, and nothing of them is on"
         " record: it was cut off, or the ledger is an older copy"],
    ),
    "its last reply, head and all": (
        "DELETE FROM entries WHERE number >= 7; {head}",
        ["request request-3: the reply to it is not on record"],
    ),
    "one request": (
        "DELETE FROM entries WHERE request = 'request-1'",
        ["worker-0: entry 2 is missing (next is 4)",
         "request request-1: {one} bytes left by its own count, the ledger holds 0"],
    ),
    "order": (
        "UPDATE entries SET number = number + 90 WHERE number IN (1, 6);"
        "UPDATE entries SET number = 6 WHERE number = 91;"
        "UPDATE entries SET number = 1 WHERE number = 96",
        ["worker-0: entry 1 was moved: it was entry 6", "worker-0: entry 6 was moved: it was entry 1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", OLDER)
def test_what_was_done_to_the_record_is_said(
    url: str, secret: Path, change: Callable[[str], None], what: str
) -> None:
    """Also by who holds the secret: the finished requests are counted in another place."""
    fill(url, secret)
    statements, expected = OLDER[what]
    with open_record(url, secret=read_secret(secret, make=False)) as record:
        entries = list(record._entries("worker-0"))
    kept = 7 if "reply" in what else 4
    key = derive(read_secret(secret, make=False), "ledger")
    last = entries[kept - 1].hash
    values = [last.hex(), head_mac(key, "worker-0", kept, last).hex()]
    marks = [rf"'\x{v}'::bytea" if url.startswith("postgresql:") else f"x'{v}'" for v in values]
    head = f"UPDATE heads SET count = {kept}, hash = {marks[0]}, mac = {marks[1]}"
    change(statements.format(head=head))
    one = entries[0].size
    told = [text.format(one=one, half=2 * one, sent=4 * one) for text in expected]
    assert faults(url, secret) == told


def test_a_runs_record_is_held_against_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    store = Store(run, write=True)
    ledger = SqliteLedger(store.ledger_path, "t")
    ask = Ask(chat=user("q"))
    asyncio.run(ledger.append("test/a", "up", ask, encode(ask)))
    ledger.close()
    store.put_trial(Trial("t", "large", "{}", "done", 0))
    assert main(["audit", "verify", str(run)]) == 0
    assert "1 trials of an older version could not be held" in capsys.readouterr().out
    note_heads(store, "t")
    store.close()
    assert main(["audit", "verify", str(run)]) == 0
    assert "no faults in 1 entries" in capsys.readouterr().out
    db = sqlite3.connect(run / "ledger.sqlite")
    db.executescript("DROP TRIGGER entries_no_delete; DELETE FROM entries; DELETE FROM heads;")
    db.close()
    for ledger_ in (run, run / "ledger.sqlite"):
        assert main(["audit", "verify", str(ledger_)]) == 1
        assert "large: its record is gone" in capsys.readouterr().out


def fill_more(url: str, secret: Path) -> None:
    async def run() -> None:
        store = await open_store(url, secret=secret)
        ask = Ask(chat=user("more"))
        await store.ledger("p").append("more", "up", ask, encode(ask))
        key = (await store.list_keys())[0].key
        held = await store.accounts.reserve(key, Spend(requests=1), request="more")
        facts = RequestFacts(
            request="more", point="p", strategy="s", endpoint="chat", outcome="ok", status=200,
            bytes_up=len(encode(ask)),
        )  # fmt: skip
        await store.accounts.settle(held, Spend(requests=1), request=facts)
        await store.close()

    asyncio.run(run())


def test_the_database_itself_refuses_changes(url: str, secret: Path) -> None:
    fill(url, secret, keep="content")
    for statement in (
        "UPDATE entries SET size = 1 WHERE number = 2",
        "UPDATE entries SET payload = NULL, size = 1 WHERE number = 2",
        "DELETE FROM entries WHERE number = 2",
    ):
        if url.startswith("postgresql:"):
            import psycopg

            with psycopg.connect(url, autocommit=True) as db:
                db.execute("SET search_path = cosilo")
                with pytest.raises(psycopg.Error, match="append-only"):
                    db.execute(statement)
        else:
            lite = sqlite3.connect(f"{url}/ledger.sqlite")
            with pytest.raises(sqlite3.Error, match="append-only"):
                lite.execute(statement)
            lite.close()
    assert faults(url, secret) == []


# Contents.


def everything(url: str) -> bytes:
    """All that is stored, as bytes."""
    if url.startswith("postgresql:"):
        import psycopg

        with psycopg.connect(url) as db:
            rows = db.execute("SELECT payload FROM cosilo.entries").fetchall()
        return b"".join(row[0] or b"" for row in rows)
    return b"".join(file.read_bytes() for file in Path(url).rglob("*") if file.is_file())


def test_digests_by_default(url: str, secret: Path) -> None:
    fill(url, secret)
    assert WORDS.encode() not in everything(url)
    with open_record(url) as record:
        assert all(e.payload is None for left in record.left() for e in left.entries)


def test_sealed_contents_are_unreadable_without_the_key_and_whole_with_it(
    url: str, secret: Path, tmp_path: Path
) -> None:
    add_content_key(tmp_path / "content.keys")
    vault = read_vault(tmp_path / "content.keys")
    fill(url, secret, keep="content", vault=vault)
    assert WORDS.encode() not in everything(url)
    key = read_secret(secret, make=False)
    with open_record(url, secret=key, vault=vault) as record:
        verdict = record.verify()
        assert (verdict.faults, verdict.unread) == ([], 0)
        (left,) = record.left(request="request-3")
        assert left.entries[0].message == Ask(chat=user(f"{WORDS} 3"))
    with open_record(url, secret=key) as record:
        assert record.verify().unread == 8
        assert next(record.left(request="request-3")).entries[0].payload is None


def test_a_sealed_content_moved_to_another_entry_is_found(
    url: str, secret: Path, tmp_path: Path, change: Callable[[str], None]
) -> None:
    add_content_key(tmp_path / "content.keys")
    vault = read_vault(tmp_path / "content.keys")
    fill(url, secret, keep="content", vault=vault)
    change(
        "UPDATE entries SET payload ="
        " (SELECT payload FROM entries WHERE number = 0) WHERE number = 2"
    )
    with open_record(url, secret=read_secret(secret, make=False), vault=vault) as record:
        assert record.verify().faults == ["worker-0: the content of entry 2 was altered"]


def test_a_rotated_key_seals_what_is_new_and_the_old_one_still_unseals(
    url: str, secret: Path, tmp_path: Path
) -> None:
    path = tmp_path / "content.keys"
    first = add_content_key(path)
    fill(url, secret, 1, keep="content", vault=read_vault(path))
    second = add_content_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    vault = read_vault(path)

    async def more() -> None:
        store = await open_store(url, secret=secret, keep="content", vault=vault)
        ask = Ask(chat=user("more"))
        await store.ledger("p").append("more", "up", ask, encode(ask))
        await store.close()

    asyncio.run(more())
    with open_record(url) as record:
        stored = [bytes(e.payload or b"") for e in record._entries("worker-0")]
    assert [s[1:9].hex() for s in stored] == [first, first, second]
    with open_record(url, secret=read_secret(secret, make=False), vault=vault) as record:
        assert record.verify().faults == []
    only_new = Vault({bytes.fromhex(second): b"x" * 32})
    with open_record(url, secret=read_secret(secret, make=False), vault=only_new) as record:
        found = record.verify().faults
    assert len(found) == 3
    assert any("which is not given" in fault for fault in found)


def test_old_contents_are_forgotten_and_the_chain_stays_whole(url: str, secret: Path) -> None:
    fill(url, secret, 3, keep="content")
    assert WORDS.encode() in everything(url)

    async def forget(before: float) -> int:
        store = await open_store(url, secret=secret, work=False)
        try:
            return await store.purge(before=before)
        finally:
            await store.close()

    with open_record(url) as record:
        third = next(record.left(request="request-2")).entries[0].at
    assert asyncio.run(forget(third)) == 4
    assert asyncio.run(forget(third)) == 0
    with open_record(url, secret=read_secret(secret, make=False)) as record:
        assert record.verify().faults == []
        kept = [e.payload is not None for left in record.left() for e in left.entries]
    assert kept == [False, False, False, False, True, True]
    assert asyncio.run(forget(time.time() + 1)) == 2
    assert WORDS.encode() not in everything(url)
    assert faults(url, secret) == []


def test_sealing_is_authenticated() -> None:
    vault = Vault({b"12345678": os.urandom(32)})
    sealed = vault.seal(b"hello")
    assert sealed != vault.seal(b"hello")
    assert vault.unseal(sealed) == b"hello"
    for i in range(len(sealed)):
        broken = sealed[:i] + bytes((sealed[i] ^ 1,)) + sealed[i + 1 :]
        with pytest.raises(StoreError):
            vault.unseal(broken)
    for i in range(len(sealed)):
        with pytest.raises(StoreError):
            vault.unseal(sealed[:i])


@pytest.mark.parametrize("text", ["", "zz\n", "00 AAAA\n", f"{'00' * 8} not-base64!\n"])
def test_broken_content_keys_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "content.keys"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(ConfigError, match="content keys"):
        read_vault(path)


# Questions.


def test_what_left_for_this_request_this_key_this_day(url: str, secret: Path) -> None:
    keys = fill(url, secret)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    with open_record(url) as record:

        def names(**what: Any) -> list[str]:
            return [left.request for left in record.left(**what)]

        assert names(request="request-2") == ["request-2"]
        assert names(request="none") == []
        assert names(key=keys[1]) == ["request-1", "request-3"]
        assert names(request="request-0", key=keys[1]) == []
        assert names(since=today - 86400, until=today + 2 * 86400) == [
            f"request-{i}" for i in range(4)
        ]
        assert names(until=today - 86400) == []
        assert names(key=keys[0], until=today - 86400) == []
        assert [record.key_id(given) for given in ("two", keys[1])] == [keys[1]] * 2
        (left,) = record.left(request="request-2")
    assert left.row is not None
    assert (left.row.key, left.row.spent.usd, left.row.kinds) == (keys[0], 0.5, {"NAME": 1})
    assert [(e.direction, e.kind) for e in left.entries] == [("up", "Ask"), ("down", "Completion")]


def test_the_command_line_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "store")
    assert main(["audit", "content-key", str(tmp_path / "content.keys")]) == 0
    vault = read_vault(tmp_path / "content.keys")
    secret = tmp_path / "store" / "secret"
    keys = fill(url, secret, keep="content", vault=vault)
    capsys.readouterr()
    assert main(["audit", "verify", url]) == 0
    shown = capsys.readouterr().out
    assert "no faults in 8 entries of 1 chains and 4 finished requests" in shown
    assert "8 sealed contents were not checked" in shown
    assert main(["audit", "show", url, "--key", keys[0]]) == 0
    shown = capsys.readouterr().out
    assert shown.count(" left: Ask") == 2
    assert "2 NAME; $1.000000" in shown
    assert WORDS not in shown
    assert main(["audit", "show", url, "--key", "one"]) == 0
    assert capsys.readouterr().out == shown
    assert main(["audit", "show", url, "--key", "ome"]) == 2
    assert "did you mean 'one'?" in capsys.readouterr().err
    assert main(["audit", "show", url, "--key", f"cosilo_{keys[0]}_secret"]) == 0
    assert capsys.readouterr().out == shown
    assert main(["audit", "show", url, "--key", "cosilo_another_secret"]) == 2
    assert "secret" not in capsys.readouterr().err
    assert "disputed" not in shown
    assert main(["audit", "show", url, "--request", "request-3"]) == 0
    assert "disputed: 1 replies claimed more tokens" in capsys.readouterr().out
    assert main(["audit", "show", url, "--request", "request-9"]) == 1
    assert "no request 'request-9' is on record" in capsys.readouterr().err
    assert main(["audit", "show", url, "--request", "request-1", "--key", "one"]) == 1
    assert main(["audit", "show", url, "--day", "2020-01-01"]) == 0  # a day may be quiet
    assert "nothing is on record for that" in capsys.readouterr().out
    sealed = ["--content", "--content-keys", str(tmp_path / "content.keys")]
    assert main(["audit", "show", url, "--request", "request-1", *sealed]) == 0
    assert f"{WORDS} 1" in capsys.readouterr().out
    assert main(["audit", "heads", url]) == 0
    (tmp_path / "heads").write_text(capsys.readouterr().out)
    for days in ("-1", "nan", "inf"):
        assert main(["audit", "purge", url, "--days", days]) == 2
    capsys.readouterr()
    assert main(["audit", "purge", url, "--days", "0"]) == 0
    assert "8 contents forgotten" in capsys.readouterr().out
    assert main(["audit", "verify", url, "--heads", str(tmp_path / "heads")]) == 0
    db = sqlite3.connect(f"{url}/ledger.sqlite")
    db.execute("DROP TRIGGER entries_no_delete")
    db.execute("DELETE FROM entries WHERE number = 7")
    db.commit()
    db.close()
    assert main(["audit", "verify", url]) == 1
    assert "the head counts 8 entries, the ledger holds 7" in capsys.readouterr().out
    assert main(["audit", "show", url]) == 2
    assert main(["audit", "show", url, "--day", "today"]) == 2
    assert main(["audit", "verify", str(tmp_path / "none")]) == 2
    assert main(["audit", "verify", url, "--heads", str(tmp_path / "none")]) == 2
    secret.rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main(["audit", "verify", url]) == 2
    assert "secret" in capsys.readouterr().err
    assert main(["audit", "verify", url, "--secret", str(tmp_path / "elsewhere")]) == 1
    monkeypatch.setenv("COSILO_SECRET", (tmp_path / "elsewhere").read_text().strip())
    assert main(["audit", "verify", url]) == 1
    assert "seal" not in capsys.readouterr().out


def test_a_store_of_an_older_version_is_read_and_then_used(
    url: str, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(url, secret)
    if url.startswith("postgresql:"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as db:
            db.execute("ALTER TABLE cosilo.requests DROP COLUMN disputes")
    else:
        local = sqlite3.connect(f"{url}/accounts.sqlite")
        local.execute("ALTER TABLE requests DROP COLUMN disputes")
        local.close()
    assert main(["audit", "verify", url, "--secret", str(secret)]) == 0
    assert main(["audit", "show", url, "--request", "request-3"]) == 0
    assert "disputed" not in capsys.readouterr().out
    fill_more(url, secret)
    assert main(["audit", "show", url, "--request", "request-3"]) == 0
    assert "disputed" not in capsys.readouterr().out


def test_the_ledger_of_a_run_is_verified_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite", "trial")
    ask = Ask(chat=user("hello"))
    asyncio.run(ledger.append("test/1", "up", ask, encode(ask)))
    ledger.close()
    for where in (tmp_path, tmp_path / "ledger.sqlite"):
        assert main(["audit", "verify", str(where)]) == 0
        assert "whoever can write the file can make them anew" in capsys.readouterr().out
    assert main(["audit", "show", str(tmp_path), "--request", "test/1", "--content"]) == 0
    assert '"hello"' in capsys.readouterr().out


# An archive: the same record in two places, and no entry lost between them.


@pytest.fixture
def archived(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A store whose first four requests were archived and that went on with four more."""
    store, folder, secret = tmp_path / "store", tmp_path / "old", tmp_path / "store" / "secret"
    fill(str(store), secret)
    assert main(["audit", "archive", str(store), str(folder)]) == 0
    fill_more(str(store), secret)
    return store, folder, secret


def test_an_archive_and_what_goes_on_from_it_are_whole(
    archived: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder, secret = archived
    assert main(["audit", "verify", str(store)]) == 0
    assert main(["audit", "verify", str(folder), "--secret", str(secret)]) == 0
    assert "8 entries of 1 chains and 4 finished requests" in capsys.readouterr().out
    assert main(["audit", "show", str(folder), "--request", "request-2"]) == 0
    assert main(["audit", "show", str(folder), "--key", "one"]) == 2  # it has no names
    assert "worker-0 #4" in capsys.readouterr().out
    assert main(["audit", "show", str(store), "--request", "more"]) == 0
    assert "worker-0 #8" in capsys.readouterr().out
    with connect(store / "ledger.sqlite") as db:
        assert db.execute("SELECT number, attempt FROM entries").fetchall() == [(8, 1)]


def test_the_archives_heads_show_that_the_store_goes_on_there(
    archived: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder, _ = archived
    capsys.readouterr()
    main(["audit", "heads", str(folder)])
    noted = tmp_path / "heads.jsonl"
    noted.write_text(capsys.readouterr().out)
    assert main(["audit", "verify", str(store), "--heads", str(noted)]) == 0
    noted.write_text(noted.read_text().replace('"hash":"', '"hash":"00'))
    assert main(["audit", "verify", str(store), "--heads", str(noted)]) == 1
    noted.write_text('{"chain":"worker-0","count":3,"hash":"00"}')
    assert main(["audit", "verify", str(store), "--heads", str(noted)]) == 0
    assert "1 noted heads lie in an archive" in capsys.readouterr().out


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE bases SET count = 4",
        "UPDATE bases SET at = at + 1e9",
        "UPDATE bases SET hash = zeroblob(32)",
        "UPDATE bases SET mac = (SELECT mac FROM heads)",
        "DELETE FROM bases",
    ],
)
def test_a_base_that_was_changed_is_found(
    archived: tuple[Path, Path, Path], statement: str
) -> None:
    store, _, _ = archived
    with connect(store / "ledger.sqlite") as db:
        db.execute(statement)
    assert main(["audit", "verify", str(store)]) == 1


def test_a_head_of_long_ago_is_no_base(tmp_path: Path) -> None:
    """Whoever noted a sealed head cannot drop what came before it."""
    store = tmp_path / "store"
    fill(str(store), store / "secret", 2)
    with connect(store / "ledger.sqlite") as db:
        old = db.execute("SELECT chain, count, hash, mac FROM heads").fetchone()
    fill_more(str(store), store / "secret")
    with connect(store / "ledger.sqlite") as db:
        db.execute("DROP TRIGGER entries_no_delete")
        db.execute("DELETE FROM entries WHERE number < ?", (old[1],))
        db.execute("INSERT INTO bases VALUES (?,?,?,0,1e12,?)", old)
    assert main(["audit", "verify", str(store)]) == 1


def test_a_store_that_is_served_from_is_not_archived(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    fill(str(store), store / "secret")

    async def run() -> None:
        serving = await open_store(str(store))
        code = await asyncio.to_thread(main, ["audit", "archive", str(store), str(tmp_path / "a")])
        assert code != 0
        await serving.close()

    asyncio.run(run())
    assert "stop the gateway first" in capsys.readouterr().err
    (tmp_path / "there").mkdir()
    assert main(["audit", "archive", str(store), str(tmp_path / "there")]) != 0
    assert "new folder" in capsys.readouterr().err
    assert main(["audit", "verify", str(store)]) == 0


def test_what_a_killed_worker_left_is_settled_before_its_record_is_archived(tmp_path: Path) -> None:
    store = tmp_path / "store"

    async def run() -> None:
        opened = await open_store(str(store))
        key = (await opened.create_key("k")).key
        await opened.accounts.reserve(key, Spend(usd=1.0, requests=1), request="left")
        ask = Ask(chat=user("hello"))
        await opened.ledger("p").append("left", "up", ask, encode(ask))
        await opened.close()  # as when it is killed: nothing was settled

    asyncio.run(run())
    assert main(["audit", "archive", str(store), str(tmp_path / "old")]) == 0

    async def look() -> float:
        opened = await open_store(str(store), work=False)
        try:
            return (await opened.list_keys())[0].used.usd
        finally:
            await opened.close()

    assert asyncio.run(look()) == 1.0
