"""A file that its owner alone reads, as everything in a run's folder is."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def private_file(path: Path) -> Path:
    """`path`, empty and readable by its owner only before anything is written there.

    A file that stood there open to others is closed to them. What is no file (a terminal, a pipe) is
    left as it is.

    Raises:
        OSError: it cannot be written, or it is somebody else's.
    """
    if path.exists() and not path.is_file():
        return path
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_IMODE(os.fstat(handle).st_mode) != 0o600:
            os.fchmod(handle, 0o600)
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)
    return path
