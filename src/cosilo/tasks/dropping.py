"""Data files without some of their rows; what is left stays as it was, to the byte where it can."""

from __future__ import annotations

import io
import json
from collections.abc import Collection
from pathlib import Path

from cosilo.errors import DataError
from cosilo.tasks.files import read_rows

_BOM = "\ufeff"


def without_rows(path: Path, places: Collection[str]) -> bytes:
    """What the data file at `path` is without the rows at `places`, as `FileRow.where` says them.

    Lines of JSONL, CSV and TSV are left out whole and the others kept to the byte; JSON and Parquet
    files are written anew.

    Raises:
        DataError: the file cannot be read, or has no row at one of the places.
    """
    rows = read_rows(path)  # what is no data file is refused here
    known = {row.where for row in rows}
    if unknown := sorted(set(places) - known):
        raise DataError(f"{unknown[0]}: there is no such row (any more)")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path, [row.where not in places for row in rows])
    if suffix == ".json":
        kept = [row.values for row in rows if row.where not in places]
        return (json.dumps(kept, ensure_ascii=False, indent=1) + "\n").encode()
    whole = path.read_bytes().decode("utf-8")
    mark = _BOM if whole.startswith(_BOM) else ""
    text = whole.removeprefix(_BOM)
    if suffix in (".csv", ".tsv"):
        return (mark + _csv(path, text, places)).encode()
    lines = text.split("\n")
    kept_lines = [x for n, x in enumerate(lines, 1) if f"{path} line {n}" not in places]
    return (mark + "\n".join(kept_lines)).encode()


def _csv(path: Path, text: str, places: Collection[str]) -> str:
    """A row may stand on several lines: it is known by its first, and ends before the next row."""
    starts = sorted(int(row.where.rpartition(" ")[2]) for row in read_rows(path))
    lines = list(io.StringIO(text, newline=""))
    ends = [*(start - 1 for start in starts[1:]), len(lines)]
    gone: set[int] = set()
    for start, end in zip(starts, ends, strict=True):
        if f"{path} line {start}" in places:
            gone.update(range(start, end + 1))
    return "".join(line for number, line in enumerate(lines, 1) if number not in gone)


def _parquet(path: Path, kept: list[bool]) -> bytes:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    table = parquet.read_table(io.BytesIO(path.read_bytes()))
    sink = io.BytesIO()
    parquet.write_table(table.filter(arrow.array(kept)), sink)
    return sink.getvalue()
