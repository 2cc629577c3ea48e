"""Files replaced whole, and what they held overwritten."""

from __future__ import annotations

import os
from pathlib import Path

from cosilo.databases import made_private
from cosilo.errors import StoreError


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """`path` with this content, whole at any moment, and on the disk once this returns. Whoever was
    stopped in it leaves a file beside that the next call takes.

    Args:
        mode: by default, its owner alone may read it.

    Raises:
        StoreError: it cannot be written.
    """
    new = path.with_name(f".{path.name.lstrip('.')}.new")
    try:
        new.unlink(missing_ok=True)
        with made_private(new).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(mode)
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{str(path)!r} cannot be written: {error.strerror}") from None


def sync_folder(folder: Path) -> None:
    """Have the disk know the names in the folder as they are now."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def overwrite(handle: int) -> None:
    """Write zeros over what an open file holds. On a file system that copies what it writes, or on a
    disk that moves it, the old bytes may still lie somewhere."""
    left = os.fstat(handle).st_size
    os.lseek(handle, 0, os.SEEK_SET)
    while left > 0:
        left -= os.write(handle, bytes(min(left, 1 << 20)))
    os.fsync(handle)
