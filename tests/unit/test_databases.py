"""Files of SQLite's that several have open."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cosilo import databases
from cosilo.databases import in_wal, made_private


def test_a_file_is_made_for_its_owner_and_one_that_is_there_is_left(tmp_path: Path) -> None:
    path = made_private(tmp_path / "a.sqlite")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"kept")
    assert made_private(path).read_bytes() == b"kept"


def test_who_opens_a_file_that_another_holds_waits_until_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as first:
        first.execute("BEGIN EXCLUSIVE")
        waits = iter(range(2))

        def waited(_: float) -> None:
            if next(waits, None) is None:
                first.execute("COMMIT")

        monkeypatch.setattr(databases.time, "sleep", waited)
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as second:
            in_wal(second, timeout=60)
            assert second.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert next(waits, None) is None


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as first,
        closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as second,
    ):
        first.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            in_wal(second, timeout=0.01)


def test_what_is_no_database_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"no database at all, and long enough for a header" * 20)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as db,
        pytest.raises(sqlite3.DatabaseError, match="not a database"),
    ):
        in_wal(db, timeout=60)


def test_many_that_open_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    failed: list[sqlite3.Error] = []

    def opened(path: Path, start: threading.Barrier) -> None:
        start.wait()
        try:
            with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as db:
                in_wal(db, timeout=60)
                db.execute("BEGIN IMMEDIATE")
                db.execute("CREATE TABLE IF NOT EXISTS a (x)")
                db.execute("COMMIT")
        except sqlite3.Error as error:
            failed.append(error)

    for number in range(20):
        path, start = tmp_path / f"{number}.sqlite", threading.Barrier(4)
        threads = [threading.Thread(target=opened, args=(path, start)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
