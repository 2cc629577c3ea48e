"""Hashes of whole files, worked out once: a model is what all of its bytes are.

A big file's hash is kept in $XDG_CACHE_HOME/cosilo/digests.json (~/.cache without it), beside what the
file system says of the file; it holds until any of that changes. Hashing reads about 1 GB in a second.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from cosilo.caches import cache_folder

_SMALL = 1 << 20  # bytes that are hashed again sooner than looked up
_SETTLED = 2.0  # seconds without a change after which the file system's times tell changes apart


def file_digest(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    facts = _facts(file)
    if facts[0] < _SMALL:
        return _hashed(file)
    name, known = str(file.resolve()), _read()
    if (found := known.get(name)) and found[:-1] == facts:
        return str(found[-1])
    digest = _hashed(file)
    if _facts(file) == facts and time.time() - max(facts[1:3]) / 1e9 > _SETTLED:
        _write({**_read(), name: [*facts, digest]})
    return digest


def folder_digest(folder: Path) -> str:
    """The SHA-256 of all files of a folder and their names, however deep, in hexadecimal."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    named = [[file.relative_to(folder).as_posix(), file_digest(file)] for file in files]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _hashed(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _facts(file: Path) -> list[int]:
    """Size, times of change (of the content, and of anything about it), and which file it is."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _cache() -> Path:
    return cache_folder() / "digests.json"


def _read() -> dict[str, list[object]]:
    try:
        found = json.loads(_cache().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: facts for name, facts in found.items() if isinstance(facts, list) and facts}


def _write(known: dict[str, list[object]]) -> None:
    """Keep `known`, where that can be; what another process adds at the same moment is hashed again."""
    path = _cache()
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            new.write_text(json.dumps(known), "utf-8")
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
