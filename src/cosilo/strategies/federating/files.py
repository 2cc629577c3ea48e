"""What an owner keeps of its training, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from cosilo.errors import StoreError


def keep(path: Path, data: bytes) -> None:
    """Write `data`, whole or not at all, for its owner alone to read; a power cut after it takes
    neither the bytes nor the name away.

    Raises:
        StoreError: it cannot be written.
    """
    new = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else an answer may be forgotten, and another one given
        finally:
            os.close(folder)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise StoreError(f"{str(path)!r} cannot be written: {error.strerror}") from None
