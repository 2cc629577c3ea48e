"""Rows out of JSONL, JSON, CSV, TSV and Parquet files.

Every way a file can be broken is a `DataError` that says where (line, row, byte) and never what
stood there.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from itertools import islice
from math import isfinite
from pathlib import Path

from cosilo.errors import DataError

TEXT_LIMIT_BYTES = 2 * 1024 * 1024
"""The longest text one cell may hold, UTF-8 encoded."""

_DELIMITERS = ",;\t|"
_SNIFFED_ROWS = 50
_NAMES_SHOWN = 30
_LINES_SHOWN = 20
_MISSING = object()


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row. `where` says which file and line it is, for messages."""

    where: str
    values: Mapping[str, object]


_DATA = (
    ".jsonl",
    ".ndjson",
    ".json",
    ".csv",
    ".tsv",
    ".parquet",
)  # what the endings of data files are


def read_rows(path: Path) -> list[FileRow]:
    """The rows of `path`; the format goes by the file's ending.

    Nested JSON and Parquet values stay nested; CSV values are all text.

    Raises:
        DataError: missing, empty, truncated or malformed file; not UTF-8; NUL bytes; a ragged row.
    """
    suffix = path.suffix.lower()
    readers = {
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".json": _json_array,
        ".csv": _csv,
        ".tsv": _csv,
    }
    if suffix == ".parquet":
        rows = _parquet(path)
    elif suffix in readers:
        rows = list(readers[suffix](path, _read_text(path)))
    else:
        known = ", ".join(_DATA)
        raise DataError(f"{path}: cannot tell the format of a {suffix!r} file (known: {known})")
    if not rows:
        raise DataError(f"{path}: the file has no rows")
    return rows


def lookup(values: object, path: str, missing: object = None) -> object:
    """The value at a dotted `path`, list positions counting from 0; `missing` when there is none.

    A key may hold dots itself: `preds.gpt-4.5` finds {"preds": {"gpt-4.5": …}}.
    """
    if isinstance(values, Mapping):
        if path in values:
            return values[path]
        head = path.rpartition(".")[0]
        while head:
            if head in values:
                found = lookup(values[head], path[len(head) + 1 :], _MISSING)
                if found is not _MISSING:
                    return found
            head = head.rpartition(".")[0]
    elif isinstance(values, Sequence) and not isinstance(values, str | bytes):
        head, _, rest = path.partition(".")
        if head.isdecimal() and int(head) < len(values):
            inner = values[int(head)]
            return lookup(inner, rest, missing) if rest else inner
    return missing


def check_columns(rows: Sequence[FileRow], paths: Sequence[str], *, file: Path) -> None:
    """Refuse a column that no row has.

    Raises:
        DataError: with the nearest name there is.
    """
    for path in paths:
        if any(lookup(row.values, path, _MISSING) is not _MISSING for row in rows):
            continue
        names = _names(rows)
        near = get_close_matches(path, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
        raise DataError(f"{file}: no column named {path!r}{hint} (known: {shown})")


def absent(value: object) -> bool:
    """Whether a cell holds nothing: no value, a text of white space, or a number that is none.

    NaN is what pandas writes for a missing value, also into JSON.
    """
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float | Decimal) and not isfinite(value))


def number_text(value: float | Decimal) -> str:
    """A number in one form: a column of whole numbers is one of fractions where a value is missing."""
    if value == int(value):
        return str(int(value))
    return format(value.normalize(), "f") if isinstance(value, Decimal) else str(value)


def cell_text(row: FileRow, column: str) -> str:
    """The text of one cell; numbers and booleans as JSON writes them, nothing (see `absent`) as "".

    Raises:
        DataError: a list or object, a NUL character, half a surrogate pair, or an oversized text.
    """
    value = lookup(row.values, column)
    if absent(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float | Decimal):
        raise DataError(
            f"{row.where}: column {column!r} holds a {type(value).__name__}, not a text"
        )
    text = str(value)
    check_text(text, where=f"{row.where}: column {column!r}")
    return text


def check_text(text: str, *, where: str) -> None:
    """Refuse what no model can be given.

    Raises:
        DataError: a NUL character, half a surrogate pair, or more than `TEXT_LIMIT_BYTES`.
    """
    if "\0" in text:
        raise DataError(f"{where} holds a NUL character at position {text.index(chr(0))}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds half a surrogate pair at position {error.start}") from None
    if size > TEXT_LIMIT_BYTES:
        raise DataError(
            f"{where} holds {size:,} bytes of text; at most {TEXT_LIMIT_BYTES:,} are accepted"
        )


def _names(rows: Sequence[FileRow]) -> list[str]:
    """The columns, and of the keys nested in them those that half of the rows have: a key that few
    have may be a value itself, as in {"calls": {"Ann Lee": 3}}."""
    counts = Counter(name for row in rows for name in _paths(row.values))
    columns = {name for row in rows for name in row.values}
    return sorted(columns | {name for name, count in counts.items() if 2 * count >= len(rows)})


def _paths(values: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        folder = path.parent
        beside = folder.iterdir() if folder.is_dir() else ()
        names = [p.name for p in beside if p.suffix.lower() in _DATA]
        near = get_close_matches(path.name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{path}: no such file{hint}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not data:
        raise DataError(f"{path}: the file is empty")
    return data


def _read_text(path: Path) -> str:
    data = _read_bytes(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: the file is UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 at byte {error.start} (line {_line(data, error.start)}); "
            "save it as UTF-8"
        ) from None
    if (at := data.find(b"\0")) >= 0:
        raise DataError(f"{path}: NUL byte at byte {at} (line {_line(data, at)})")
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    return text


def _line(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1


def _json_lines(path: Path, text: str) -> Iterator[FileRow]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path} line {number}"
            yield FileRow(where, _object(_parse(line, where), where))


def _json_array(path: Path, text: str) -> Iterator[FileRow]:
    found = _parse(text, str(path))
    if not isinstance(found, list):
        raise DataError(f"{path}: not a list of objects; one object a line belongs in a .jsonl")
    for number, value in enumerate(found, 1):
        where = f"{path} item {number}"
        yield FileRow(where, _object(value, where))


def _parse(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}"
        raise DataError(f"{where}: malformed JSON at {at}: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{where}: malformed JSON: nested too deeply") from None
    except ValueError:
        raise DataError(f"{where}: malformed JSON: a number with too many digits") from None


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds a {type(value).__name__}, not an object")
    return value


def _csv(path: Path, text: str) -> Iterator[FileRow]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    # The module's own limit (131,072 characters a field) is global: raised while this file is read.
    before = csv.field_size_limit(max(csv.field_size_limit(), 2 * TEXT_LIMIT_BYTES))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = _header(path, next(reader))
        first = reader.line_num + 1
        broken: list[tuple[int, int]] = []
        for cells in reader:
            where = f"{path} line {first}"
            line, first = first, reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                broken.append((line, len(cells)))
                continue
            named = zip(header, cells, strict=True)
            yield FileRow(where, {name: cell for name, cell in named if name})
        if broken:
            line, width = broken[0]
            others = ", ".join(str(n) for n, _ in broken[1:_LINES_SHOWN])
            more = ", …" if len(broken) > _LINES_SHOWN else ""
            alike = "line is" if len(broken) == 2 else "lines are"
            also = f"; {len(broken) - 1:,} more {alike} like it: {others}{more}" if others else ""
            cells_of = "1 cell" if width == 1 else f"{width} cells"
            raise DataError(
                f"{path} line {line}: {cells_of}, but the header has {len(header)} "
                f"(delimiter {delimiter!r}){also}; mend or delete them: which cell is "
                "missing cannot be known"
            )
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: malformed CSV: {_reason(error)}") from None
    finally:
        csv.field_size_limit(before)


def _reason(error: csv.Error) -> str:
    # One of the module's messages quotes the delimiter and quote character; none quotes a cell.
    reason = str(error)
    if "field larger" in reason:
        return f"a cell holds more than {2 * TEXT_LIMIT_BYTES:,} characters"
    return "a quoted cell is never closed" if "end of data" in reason else reason


def _header(path: Path, names: Sequence[str]) -> list[str]:
    header = [name.strip() for name in names]
    if not any(header):
        raise DataError(f"{path} line 1: no column has a name")
    for position, name in enumerate(header, 1):
        if name and header.index(name) != position - 1:
            raise DataError(f"{path} line 1: two columns are named {name!r}")
    return header


def _delimiter(text: str) -> str:
    """The delimiter that cuts the first rows into the most columns, all rows alike."""
    best, best_width = ",", 1
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            widths = [len(cells) for cells in islice(reader, _SNIFFED_ROWS) if cells]
        except csv.Error:
            continue
        # A ragged row must not hide the delimiter: the header and most rows decide.
        alike = widths.count(widths[0]) if widths else 0
        if alike * 2 > len(widths) and widths[0] > best_width:
            best, best_width = delimiter, widths[0]
    return best


def _parquet(path: Path) -> list[FileRow]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow: pip install 'cosilo[data]'"
        ) from None
    data = _read_bytes(path)
    try:
        records = parquet.read_table(io.BytesIO(data)).to_pylist()
    except UnicodeDecodeError:
        raise DataError(f"{path}: a text column is not UTF-8") from None
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a whole Parquet file ({type(error).__name__}); was it cut off?"
        ) from None
    return [FileRow(f"{path} row {n}", record) for n, record in enumerate(records, 1)]
