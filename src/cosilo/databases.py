"""Files of SQLite's, made without harm to those who have them open.

A process loses all of its locks on a file when it closes any handle of that file. SQLite's locks are
such ones: after `open` and `close` on a database that a connection of this process has open, another
process takes itself for the last one there, and deletes the log with what is committed to it.
"""

from __future__ import annotations

import os
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
