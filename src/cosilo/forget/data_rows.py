"""Rows left out of data files, once, however often it is begun.

A row is known by its number, which means another row once the file was changed. So the step says what
the file was before (keyed: with a plain digest a guess of the row could be checked) and is to be after.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cosilo.errors import StoreError
from cosilo.forget.files import overwrite, replace_file
from cosilo.lineage.requests import Evidence, ForgetStep
from cosilo.lineage.store import Lineage
from cosilo.tasks.dropping import without_rows


def pinned(step: ForgetStep, lineage: Lineage) -> ForgetStep:
    """The step with what its file is now and will be.

    Raises:
        DataError: the file cannot be read.
    """
    path, rows = Path(step.place), json.loads(step.note)
    after = without_rows(path, [f"{path} {row}" for row in rows])
    told = {
        "rows": rows,
        "before": _keyed(path.read_bytes(), lineage),
        "after": hashlib.sha256(after).hexdigest(),
    }
    return replace(step, note=json.dumps(told))


def leave_out(step: ForgetStep, lineage: Lineage) -> Evidence:
    """Leave the rows out of the file; its mode stays.

    Raises:
        StoreError: the file is neither as it was when the request began nor as it is to be.
        DataError: it cannot be read.
    """
    path, told = Path(step.place), json.loads(step.note)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{str(path)!r} cannot be read ({error.strerror}): put the file back as it was when the "
            "request began, or say with --deleted that it was deleted, and forget again"
        ) from None
    if hashlib.sha256(data).hexdigest() != told["after"]:
        if _keyed(data, lineage) != told["before"]:
            raise StoreError(
                f"{str(path)!r} was changed by something else since the request began: put the file "
                "back as it was then, and forget again"
            )
        _replace(path, without_rows(path, [f"{path} {row}" for row in told["rows"]]))
    else:
        _drop_old(path)  # of a call that was killed before it had
    return Evidence(what="rows left out", count=len(told["rows"]), digest=told["after"])


def _keyed(data: bytes, lineage: Lineage) -> str:
    return lineage.name(hashlib.sha256(data).hexdigest()).hex()


def _replace(path: Path, data: bytes) -> None:
    """`path` with this content; what it held is overwritten where it lay. Until then that has a second
    name, where the file system gives it one, by which a later call finds it."""
    _drop_old(path)
    try:
        with path.open("r+b") as old:
            with suppress(OSError):
                os.link(path, _old(path))
            replace_file(path, data, mode=os.fstat(old.fileno()).st_mode & 0o777)
            overwrite(old.fileno())
            _old(path).unlink(missing_ok=True)
    except (OSError, StoreError) as error:
        with suppress(StoreError):
            _drop_old(path)
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{str(path)!r} cannot be changed: {error.strerror}") from None


def _drop_old(path: Path) -> None:
    """What is left of a call that was killed: a second name of `path`, or of what stood there."""
    old = _old(path)
    try:
        if old.exists() and not old.samefile(path):
            with old.open("r+b") as file:
                overwrite(file.fileno())
        old.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{str(old)!r} cannot be overwritten: {error.strerror}") from None


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name.lstrip('.')}.old")
