"""Programs that were compiled on this machine, a file each: another shape is another file.

Other parties say what shapes there are, so what is kept is bounded: files that were used longest ago
go first, and what a process that was ended has left half written.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from cosilo.engines.spu.environment import directory

KEPT = 1 << 28
"""Bytes of compiled programs."""

_PARTIAL_S = 3600.0


def folder() -> Path:
    """Where they lie; made, where it is not there."""
    place = directory() / "spu-programs"
    place.mkdir(parents=True, exist_ok=True)
    return place


def note_used(name: str, *, kept: int = KEPT) -> None:
    """Note that the program of that name was used, and take away what is too much beside it."""
    with suppress(OSError):
        os.utime(folder() / name)
    found = []
    for path in folder().iterdir():
        with suppress(OSError):  # another process may be faster
            stat = path.stat()
            if path.suffix != ".partial":
                found.append((stat.st_mtime_ns, path, stat.st_size))
            elif time.time() - stat.st_mtime > _PARTIAL_S:
                path.unlink()
    total = 0
    for _, path, size in sorted(found, reverse=True):
        total += size
        if total > kept and path.name != name:
            with suppress(OSError):
                path.unlink()
