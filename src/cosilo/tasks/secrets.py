"""An item's secrets: the private facts an attack is scored on.

A `secrets` cell may hold (also as JSON text)

    ["Ann Lee", "DE89…"]                                    values
    [{"value": "Ann Lee", "type": "person"}, …]             values with kinds
    [{"start": 0, "end": 7, "type": "person"}, …]           spans of the item's text
    [[0, 7, "person"], [0, 7, "person", "Ann Lee"], …]      the same, short
    Ann Lee; DE89…                                          values between semicolons

Only values that occur in what the models are given count: what is not there cannot leak.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from cosilo.errors import DataError
from cosilo.tasks.base import Secret
from cosilo.tasks.files import FileRow, absent, lookup, number_text

Fact = tuple[str, str]
"""(kind, value)."""

SHORTEST = 2
"""A single character occurs in any text, so finding it says nothing."""


def facts_in_cell(row: FileRow, column: str, text: str, *, spans: bool) -> list[Fact]:
    """The (kind, value) pairs of one `secrets` cell.

    Args:
        text: the item's text, which spans point into.
        spans: whether they can: False when the text was joined from several columns.

    Raises:
        DataError: none of the accepted forms, or a span outside the text.
    """
    cell = lookup(row.values, column)
    where = f"{row.where}: column {column!r}"
    if absent(cell):
        return []
    if isinstance(cell, str):
        if cell.lstrip()[:1] in ("[", "{"):
            try:
                cell = json.loads(cell)
            except (ValueError, RecursionError):
                raise DataError(f"{where} starts like JSON but is not") from None
        else:
            cell = [value for value in cell.split(";") if value.strip()]
    if isinstance(cell, Mapping):
        cell = [cell]
    if not isinstance(cell, Sequence):
        raise DataError(f"{where} holds a {type(cell).__name__}, not a list of secrets")
    return [_fact(entry, text, f"{where}, entry {n}", spans) for n, entry in enumerate(cell, 1)]


def facts_in_columns(row: FileRow, columns: Iterable[str]) -> Iterator[Fact]:
    """Every value of other columns declared secret; the column's name is the kind."""
    for column in columns:
        yield from ((column, value) for value in _values(lookup(row.values, column)))


def present(item_id: str, facts: Iterable[Fact], given: str) -> tuple[tuple[Secret, ...], int]:
    """The facts that occur in `given` as secrets of the item, each value once; and how many do not.

    Case and runs of white space do not matter.
    """
    haystack = _flat(given)
    kept: dict[str, Secret] = {}
    absent = 0
    for kind, value in facts:
        flat = _flat(value)
        if len(flat) < SHORTEST or flat in kept:
            continue
        if flat in haystack:
            kept[flat] = Secret(f"{item_id}/{len(kept) + 1}", kind, value.strip())
        else:
            absent += 1
    return tuple(kept.values()), absent


def _fact(entry: object, text: str, where: str, spans: bool) -> Fact:
    if isinstance(entry, str):
        return "secret", entry
    if isinstance(entry, bool):
        raise DataError(f"{where} is a boolean, not a secret")
    if isinstance(entry, int | float):
        return "secret", "" if absent(entry) else number_text(entry)
    if isinstance(entry, Mapping):
        kind = str(entry.get("type", entry.get("kind", "secret")))
        value, start, end = (entry.get(name) for name in ("value", "start", "end"))
    elif isinstance(entry, Sequence) and len(entry) in (3, 4) and isinstance(entry[2], str):
        start, end, kind = entry[:3]
        value = entry[3] if len(entry) == 4 else None
    else:
        raise DataError(
            f"{where} is none of: text, {{value, type}}, {{start, end, type}}, [start, end, type]"
        )
    if value is not None:
        return kind, str(value)
    if not spans:
        raise DataError(
            f"{where} is a span, but the text is joined from several columns; give values instead"
        )
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= len(text):
        raise DataError(f"{where}: the span does not lie within the text of {len(text)} characters")
    return kind, text[start:end]


def _values(cell: object) -> Iterator[str]:
    if absent(cell) or isinstance(cell, bool):
        return
    if isinstance(cell, str | int | float | Decimal):
        # Whole numbers come with a fraction where one of their column is missing.
        yield from dict.fromkeys((str(cell), cell if isinstance(cell, str) else number_text(cell)))
    elif isinstance(cell, Mapping):
        for inner in cell.values():
            yield from _values(inner)
    elif isinstance(cell, Sequence) and not isinstance(cell, bytes):
        for inner in cell:
            yield from _values(inner)


def _flat(text: str) -> str:
    return " ".join(text.casefold().split())
