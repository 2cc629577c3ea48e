"""Every change to the record is found, contents are kept as chosen, and questions are answered."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.audited import WORDS, faults, fill, fill_more
from tests.integration.audited import change as change
from tests.integration.audited import secret as secret
from tests.integration.audited import url as url

from cosilo.benchmark.record import note_heads
from cosilo.benchmark.rows import Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.record.ledger import SqliteLedger, head_mac
from cosilo.boundary.record.shredding import shred
from cosilo.cli import main
from cosilo.errors import ConfigError, StoreError
from cosilo.gateway.accounts.keys import derive, read_secret
from cosilo.gateway.record.archive import archive
from cosilo.gateway.record.audit import open_record
from cosilo.gateway.record.retention import SealVault, add_content_key, read_vault
from cosilo.gateway.record.store import open_store
from cosilo.gateway.record.store_sqlite import MOVING
from cosilo.record_keys import SPAN, keys_path
from cosilo.types import user

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
    trial = Trial("t", "large", "{}", "done", 0)
    store.put_trial(trial)
    assert main(["audit", "verify", str(run)]) == 0
    assert "1 trials of an older version could not be held" in capsys.readouterr().out
    note_heads(store, trial)
    store.close()
    assert main(["audit", "verify", str(run)]) == 0
    assert "no faults in 1 entries" in capsys.readouterr().out
    db = sqlite3.connect(run / "ledger.sqlite")
    db.executescript("DROP TRIGGER entries_no_delete; DELETE FROM entries; DELETE FROM heads;")
    db.close()
    for ledger_ in (run, run / "ledger.sqlite"):
        assert main(["audit", "verify", str(ledger_)]) == 1
        assert "large: its record is gone" in capsys.readouterr().out


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
    only_new = SealVault({bytes.fromhex(second): b"x" * 32})
    with open_record(url, secret=read_secret(secret, make=False), vault=only_new) as record:
        found = record.verify().faults
    assert len(found) == 3
    assert any("which is not given" in fault for fault in found)


def test_old_contents_are_forgotten_and_the_chain_stays_whole(url: str, secret: Path) -> None:
    fill(url, secret, 3, keep="content")
    assert WORDS.encode() not in everything(url)  # sealed by the entries' own keys

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
    vault = SealVault({b"12345678": os.urandom(32)})
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


# Forgetting.


def test_what_crossed_for_a_request_is_forgotten_and_its_cost_is_not(
    url: str, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(url, secret, keep="content")

    async def forget(*names: str) -> tuple[int, int, str]:
        store = await open_store(url, secret=secret, work=False)
        try:
            done = await store.shred(names)
            return done.records, done.keys, done.after
        finally:
            await store.close()

    records, keys, after = asyncio.run(forget("request-1", "request-3", "unknown"))
    assert (records, keys) == (4, 4)
    assert asyncio.run(forget("request-1")) == (2, 0, after)
    with open_record(url, secret=read_secret(secret, make=False)) as record:
        verdict = record.verify(record.anchors())
        assert (verdict.faults, verdict.forgotten, verdict.guessable) == ([], 4, 0)
        told = {left.request: left for left in record.left()}
        for i in range(4):
            left = told[f"request-{i}"]
            assert left.row is not None
            assert left.row.spent.usd == 0.5
            up = left.entries[0]
            gone = i in (1, 3)
            assert (up.payload is None, up.content_digest is None) == (gone, gone)
            if not gone:
                assert up.message == Ask(chat=user(f"{WORDS} {i}"))
    where = [url, "--secret", str(secret)]
    assert main(["audit", "verify", *where]) == 0
    assert "4 entries are forgotten" in capsys.readouterr().out
    assert main(["audit", "show", url, "--request", "request-1", "--content"]) == 0
    shown = capsys.readouterr().out
    assert "forgotten" in shown
    assert "sha256" not in shown
    fill_more(url, secret)  # a worker goes on
    assert faults(url, secret) == []


def test_an_archive_takes_the_keys_along(tmp_path: Path, secret: Path) -> None:
    store, moved = tmp_path / "store", tmp_path / "moved"
    fill(str(store), secret, keep="content")
    before = keys_path(store / "ledger.sqlite").read_bytes()
    archive(store, moved, read_secret(secret, make=False))
    assert not keys_path(store / "ledger.sqlite").exists()
    assert keys_path(moved / "ledger.sqlite").stat().st_mode & 0o077 == 0
    assert before
    with open_record(str(moved), secret=read_secret(secret, make=False)) as record:
        assert record.verify().faults == []
        assert next(record.left(request="request-2")).entries[0].message is not None
    (done,) = shred(moved / "ledger.sqlite", ["request-2"], chains=None)
    assert (done.records, done.keys) == (2, 2)
    with open_record(str(moved), secret=read_secret(secret, make=False)) as record:
        assert (record.verify().faults, record.verify().forgotten) == ([], 2)
    fill_more(str(store), secret)
    assert faults(str(store), secret) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_archive_that_was_stopped_leaves_no_copy_of_the_keys(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    store, moved = tmp_path / "store", tmp_path / "moved"
    fill(str(store), secret, keep="content")
    replace = os.replace

    def stopped(old: Path, new: Path) -> None:
        if Path(new) == store / "ledger.sqlite":
            if when == "after":
                replace(old, new)
            raise KeyboardInterrupt
        replace(old, new)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        archive(store, moved, read_secret(secret, make=False))
    monkeypatch.undo()
    kept = keys_path(store / "ledger.sqlite").read_bytes()
    fill_more(str(store), secret)  # a worker goes on
    assert faults(str(store), secret) == []
    with open_record(str(moved), secret=read_secret(secret, make=False)) as record:
        key = next(record.entries()).key_id
        assert next(record.left(request="request-2")).entries[0].message is not None
    assert key is not None
    with sqlite3.connect(keys_path(store / "ledger.sqlite")) as db:
        blocks = {row[0] for row in db.execute("SELECT id FROM blocks")}
    assert kept
    assert (key - key % SPAN in blocks) == (when == "before")
    assert (store / MOVING).exists() == (when == "before")
    archive(store, tmp_path / "again", read_secret(secret, make=False))
    assert not keys_path(store / "ledger.sqlite").exists()
    assert not (store / MOVING).exists()


def test_what_an_earlier_version_wrote_is_counted_as_guessable(
    url: str, secret: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("ledger", "ledger_postgres"):
        monkeypatch.setattr(f"cosilo.boundary.record.{module}.EntryHiding", lambda *_: None)
    fill(url, secret, 2, keep="content")
    monkeypatch.undo()
    fill_more(url, secret)
    where = [url, "--secret", str(secret)]
    assert main(["audit", "verify", *where]) == 0
    assert "4 entries are guessable, and cannot be reached" in capsys.readouterr().out
    with open_record(url, secret=read_secret(secret, make=False)) as record:
        assert next(record.left(request="request-1")).entries[0].message is not None
