"""The chain shows every change, and a crash loses nothing that was appended."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from cosilo.boundary.ledger import (
    MemoryLedger,
    SqliteLedger,
    connect,
    read_entries,
    verify,
)
from cosilo.boundary.messages import Ask, encode
from cosilo.errors import StoreError
from cosilo.types import user

KEY = b"k" * 32


def filled(path: Path, n: int = 6, **kwargs: object) -> SqliteLedger:
    ledger = SqliteLedger(path, "trial", key=KEY, **kwargs)  # type: ignore[arg-type]
    for i in range(n):
        message = Ask(chat=user(f"message {i}"))
        asyncio.run(
            ledger.append(f"item-{i}", "up" if i % 2 == 0 else "down", message, encode(message))
        )
    return ledger


def test_entries_come_back_as_they_went_in(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "l.sqlite")
    entries = list(ledger.entries())
    assert [e.number for e in entries] == list(range(6))
    assert entries[3].request == "item-3"
    assert entries[3].message == Ask(chat=user("message 3"))
    assert verify(connect(tmp_path / "l.sqlite"), key=KEY) == []


def test_digests_only_keeps_no_content(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "l.sqlite", keep="digest")
    entry = next(ledger.entries())
    assert entry.payload is None
    with pytest.raises(StoreError, match="digest"):
        _ = entry.message
    ledger.close()
    for file in tmp_path.iterdir():
        assert b"message 0" not in file.read_bytes()


def test_sealed_content_is_not_readable_but_verifies(tmp_path: Path) -> None:
    def flip(data: bytes) -> bytes:
        return bytes(b ^ 0x5A for b in data)

    filled(tmp_path / "l.sqlite", seal=flip).close()
    db = connect(tmp_path / "l.sqlite")
    assert next(read_entries(db, "trial", unseal=flip)).message == Ask(chat=user("message 0"))
    assert verify(db, key=KEY, unseal=flip) == []
    assert b"message 0" not in (tmp_path / "l.sqlite").read_bytes()


def test_a_restart_continues_the_chain_as_a_new_attempt(tmp_path: Path) -> None:
    filled(tmp_path / "l.sqlite", 3).close()
    again = filled(tmp_path / "l.sqlite", 2)
    assert again.attempt == 1
    assert [(e.number, e.attempt) for e in again.entries()] == [
        (0, 0), (1, 0), (2, 0), (3, 1), (4, 1),
    ]  # fmt: skip
    assert verify(connect(tmp_path / "l.sqlite"), key=KEY) == []


def test_the_file_refuses_changes(tmp_path: Path) -> None:
    filled(tmp_path / "l.sqlite").close()
    db = connect(tmp_path / "l.sqlite")
    for statement in (
        "UPDATE entries SET request = 'x' WHERE number = 1",
        "DELETE FROM entries WHERE number = 1",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(statement)


TAMPERINGS = {
    "request": "UPDATE entries SET request = 'x' WHERE number = 2",
    "direction": "UPDATE entries SET direction = 'down' WHERE number = 2",
    "kind": "UPDATE entries SET kind = 'x' WHERE number = 2",
    "size": "UPDATE entries SET size = 1 WHERE number = 2",
    "time": "UPDATE entries SET at = at + 1 WHERE number = 2",
    "epsilon": "UPDATE entries SET epsilon = 1 WHERE number = 2",
    "attempt": "UPDATE entries SET attempt = 1 WHERE number = 2",
    "digest": "UPDATE entries SET digest = zeroblob(32) WHERE number = 2",
    "hash": "UPDATE entries SET hash = zeroblob(32) WHERE number = 2",
    "content": "UPDATE entries SET payload = x'00' WHERE number = 2",
    "missing": "DELETE FROM entries WHERE number = 2",
    "first missing": "DELETE FROM entries WHERE number = 0",
    "cut off": "DELETE FROM entries WHERE number = 5",
    "all gone": "DELETE FROM entries",
    "head": "UPDATE heads SET count = 5",
    "no head": "DELETE FROM heads",
    "swapped": "UPDATE entries SET number = CASE number WHEN 1 THEN 91 WHEN 2 THEN 92 END"
    " WHERE number IN (1, 2)",
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_every_tampering_is_found(tmp_path: Path, what: str) -> None:
    filled(tmp_path / "l.sqlite").close()
    db = connect(tmp_path / "l.sqlite")
    db.execute("DROP TRIGGER entries_no_update")
    db.execute("DROP TRIGGER entries_no_delete")
    db.execute(TAMPERINGS[what])
    if what == "swapped":
        db.execute("UPDATE entries SET number = 2 WHERE number = 91")
        db.execute("UPDATE entries SET number = 1 WHERE number = 92")
    assert verify(db, key=KEY)


def test_a_chain_rebuilt_without_the_key_is_found(tmp_path: Path) -> None:
    filled(tmp_path / "l.sqlite").close()
    (tmp_path / "forged").mkdir()
    forged = SqliteLedger(tmp_path / "forged" / "l.sqlite", "trial")
    message = Ask(chat=user("nothing to see"))
    asyncio.run(forged.append("item-0", "up", message, encode(message)))
    assert verify(connect(tmp_path / "forged" / "l.sqlite"), key=KEY)


def test_memory_and_sqlite_record_the_same(tmp_path: Path) -> None:
    memory = MemoryLedger("trial")
    for i in range(6):
        message = Ask(chat=user(f"message {i}"))
        memory.append(f"item-{i}", "up" if i % 2 == 0 else "down", message, encode(message))
    on_disk = list(filled(tmp_path / "l.sqlite").entries())
    for a, b in zip(memory.entries(), on_disk, strict=True):
        assert (a.number, a.request, a.direction, a.kind, a.size, a.digest) == (
            b.number, b.request, b.direction, b.kind, b.size, b.digest,
        )  # fmt: skip


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite").write_text("not a database, and long enough to be read as one " * 40)
    with pytest.raises(StoreError, match="cannot open the ledger"):
        SqliteLedger(tmp_path / "l.sqlite", "trial")


def test_a_ledger_is_its_owners_alone(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "l.sqlite")
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}
    assert len(list(tmp_path.iterdir())) > 1, "the write-ahead log stands beside it"
    ledger.close()


def test_an_interrupted_append_leaves_the_ledger_open_to_others(tmp_path: Path) -> None:
    class Interrupted(sqlite3.Connection):
        def execute(self, sql: str, *args: object) -> sqlite3.Cursor:  # type: ignore[override]
            if sql.startswith("INSERT INTO heads"):
                raise KeyboardInterrupt
            return super().execute(sql, *args)

    ledger = filled(tmp_path / "l.sqlite", 2)
    ledger._db.close()
    ledger._db = sqlite3.connect(tmp_path / "l.sqlite", isolation_level=None, factory=Interrupted)
    message = Ask(chat=user("x"))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(ledger.append("item", "up", message, encode(message)))
    other = SqliteLedger(tmp_path / "l.sqlite", "other", key=KEY, timeout=0.1)
    asyncio.run(other.append("item", "up", message, encode(message)))
    assert verify(connect(tmp_path / "l.sqlite"), key=KEY) == []
