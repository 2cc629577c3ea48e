"""One process works on a run at a time: it holds the lock file in the run's folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cosilo.errors import RunBusyError


def take_lock(path: Path) -> int:
    """The descriptor of the lock file at `path`, held by this process until it is closed.

    Raises:
        RunBusyError: another process holds it.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        _lock(handle, path.parent, fcntl.LOCK_EX)
    except RunBusyError:
        os.close(handle)
        raise
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def _lock(handle: int, run: Path, how: int) -> None:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(handle, 32).decode(errors="replace").strip() or "another process"
        raise RunBusyError(
            f"process {holder} works on {str(run)!r}; wait for it, or give another --run"
        ) from None


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody writes to the run in the folder `path` meanwhile; nothing is written here either.

    Raises:
        RunBusyError: another process works on it.
    """
    try:
        handle = os.open(path / "lock", os.O_RDONLY)
    except OSError:  # no run, or one that nobody has worked on here
        yield
        return
    try:
        _lock(handle, path, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)
