"""Files of SQLite's, made and opened without harm to, or from, those who have them open.

A process loses all of its locks on a file when it closes any handle of that file. SQLite's locks are
such ones: after `open` and `close` on a database that a connection of this process has open, another
process takes itself for the last one there, and deletes the log with what is committed to it.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from contextlib import suppress
from pathlib import Path


def made_private(path: Path) -> Path:
    """`path`, made where it is absent, its owner's alone to read from the first byte on; SQLite gives
    its side files the same mode. A file that is there is not touched.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return path


def in_wal(db: sqlite3.Connection, *, timeout: float) -> None:
    """Put `db` into write-ahead mode, waiting for other processes that do so or close.

    SQLite's own wait (`sqlite3.connect`'s timeout) does not hold for this: a file that is not in this
    mode yet, or is left by its last other user at this moment, is "locked" at once
    (https://www.sqlite.org/wal.html, section 10).

    Args:
        timeout: how many seconds to wait.

    Raises:
        sqlite3.OperationalError: the file was locked for all that time, or cannot be used.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > end:
                raise
        time.sleep(random.uniform(0.001, 0.01))
