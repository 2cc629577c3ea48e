"""The chain shows every change, and a crash loses nothing that was appended."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.record.faults import verify
from cosilo.boundary.record.ledger import (
    MemoryLedger,
    SqliteLedger,
    connect,
    head_mac,
    read_entries,
)
from cosilo.errors import StoreError
from cosilo.types import user

KEY = b"k" * 32

COUNTS = """
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM entries").fetchone()[0])
"""


def filled(path: Path, n: int = 6, **kwargs: object) -> SqliteLedger:
    ledger = SqliteLedger(path, "trial", key=KEY, **kwargs)  # type: ignore[arg-type]
    number = 0
    for i in range(n):
        message = Ask(chat=user(f"message {i}"))
        up = i % 2 == 0
        number = asyncio.run(
            ledger.append(
                f"item-{i}", "up" if up else "down", message, encode(message),
                None if up else number,
            )
        )  # fmt: skip
    return ledger


def test_entries_come_back_as_they_went_in(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "l.sqlite")
    entries = list(ledger.entries())
    assert [e.number for e in entries] == list(range(6))
    assert entries[3].request == "item-3"
    assert entries[3].message == Ask(chat=user("message 3"))
    assert verify(connect(tmp_path / "l.sqlite"), key=KEY) == []


def test_a_reply_says_which_message_it_answers(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "l.sqlite")
    assert [e.answers for e in ledger.entries()] == [None, 0, None, 2, None, 4]


OLDER = """
CREATE TABLE entries (
    chain TEXT NOT NULL, number INTEGER NOT NULL, attempt INTEGER NOT NULL, request TEXT NOT NULL,
    direction TEXT NOT NULL, kind TEXT NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL,
    at REAL NOT NULL, epsilon REAL NOT NULL, payload BLOB, hash BLOB NOT NULL,
    PRIMARY KEY (chain, number)
) WITHOUT ROWID;
CREATE TABLE heads (
    chain TEXT PRIMARY KEY, count INTEGER NOT NULL, hash BLOB NOT NULL, mac BLOB NOT NULL
) WITHOUT ROWID;
CREATE TRIGGER entries_no_update BEFORE UPDATE OF
    chain, number, attempt, request, direction, kind, size, digest, at, epsilon, hash ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TABLE bases (
    chain TEXT PRIMARY KEY, count INTEGER NOT NULL, hash BLOB NOT NULL, attempt INTEGER NOT NULL,
    at REAL NOT NULL, mac BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO entries VALUES ('trial', 0, 0, 'item-0', 'up', 'Ask', 1, x'00', 1.5, 0.0, NULL, x'HASH');
INSERT INTO heads VALUES ('trial', 1, x'HASH', x'SEAL');
"""


def test_a_ledger_begun_before_replies_said_what_they_answer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    text = "trial\x1f0\x1f0\x1fitem-0\x1fup\x1fAsk\x1f1\x1f1.5\x1f0.0"  # as it was hashed then
    last = hashlib.sha256(bytes(32) + b"\0" + text.encode()).digest()
    seal = head_mac(KEY, "trial", 1, last)
    with closing(connect(path)) as db:
        db.executescript(OLDER.replace("HASH", last.hex()).replace("SEAL", seal.hex()))
        assert [e.answers for e in read_entries(db, "trial")] == [None]  # read as it is
        assert verify(db, key=KEY) == []
    filled(path, 2).close()
    filled(path, 2).close()
    with closing(connect(path)) as db:
        assert [e.answers for e in read_entries(db, "trial")] == [None, None, 1, None, 3]
        assert verify(db, key=KEY) == []
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute("UPDATE entries SET answers = 0 WHERE number = 2")


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
    "what it answers": "UPDATE entries SET answers = 0 WHERE number = 3",
    "that it answers": "UPDATE entries SET answers = NULL WHERE number = 3",
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
        assert (a.number, a.request, a.direction, a.kind, a.size, a.content_digest) == (
            b.number, b.request, b.direction, b.kind, b.size, b.content_digest,
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


def counted(path: Path) -> int:
    command = [sys.executable, "-c", COUNTS, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True).stdout)


def test_a_reader_in_another_process_takes_nothing_away(tmp_path: Path) -> None:
    """Two chains of one process, as a host or a gateway has them, and somebody who looks meanwhile."""
    path = tmp_path / "l.sqlite"
    one, other = SqliteLedger(path, "one"), SqliteLedger(path, "other")
    message = Ask(chat=user("a"))
    asyncio.run(one.append("a", "up", message, encode(message)))
    assert counted(path) == 1
    for ledger in (one, other):
        asyncio.run(ledger.append("b", "up", message, encode(message)))
    assert counted(path) == 3
    one.close()
    other.close()
