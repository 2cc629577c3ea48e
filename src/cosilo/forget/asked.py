"""Whom a request is about: ids or conditions from a file or standard input, never from a command line.

What stands in a command line stands in the shell's history and in the list of processes.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosilo.errors import ConfigError
from cosilo.tasks.files import absent, lookup

_SHOWN = 20


@dataclass(frozen=True)
class AskedRecords:
    """Ids with the lines they stood in, or conditions on columns; one of the two is empty.

    Attributes:
        ids: id → the number of its line.
        where: column → the values of which a row must have one; all columns must fit.
    """

    ids: Mapping[str, int]
    where: Mapping[str, tuple[str, ...]]

    def fits(self, values: Mapping[str, object]) -> bool:
        """Whether a row with these values is one of them."""
        return bool(self.where) and all(
            _text(lookup(values, column)) in wanted for column, wanted in self.where.items()
        )


def read_ids(source: str) -> AskedRecords:
    """The ids in `source`, one a line; blank lines count and are left out.

    Args:
        source: `@FILE`, or `-` for standard input.

    Raises:
        ConfigError: it is neither, cannot be read, or holds none.
    """
    lines = _read(source, flag="--ids").split("\n")
    ids: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            ids.setdefault(line.strip(), number)
    if not ids:
        raise ConfigError("--ids: there is no id in it; one stands in each line")
    return AskedRecords(ids, {})


def read_where(source: str) -> AskedRecords:
    """The conditions in `source`: a TOML table of columns, each with a value or a list of values.

    Args:
        source: `@FILE`, or `-` for standard input.

    Raises:
        ConfigError: it is neither, cannot be read, or is no such table.
    """
    try:
        table = tomllib.loads(_read(source, flag="--where"))
    except tomllib.TOMLDecodeError as error:
        # Its text may quote a character of the file.
        line = getattr(error, "lineno", None) or "?"
        raise ConfigError(f"--where: line {line} is no TOML; write  column = 'value'") from None
    if not table:
        raise ConfigError("--where: there is no condition in it, which would be every record")
    where = {}
    for number, (column, value) in enumerate(table.items(), 1):
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(v, str | int | float) for v in values):
            raise ConfigError(
                f"--where: condition {number} is neither a value nor a list of values"
            )
        where[column] = tuple(_text(v) for v in values)
    return AskedRecords({}, where)


def refuse_unknown(
    lines: Sequence[int],
    what: str = "record",
    hint: str = "those of the plan's id column; without one, the runs make them of the content",
) -> None:
    """Refuse ids that no record has, by the numbers of their lines alone.

    Args:
        hint: what ids are.

    Raises:
        ConfigError: there are any.
    """
    if lines:
        raise ConfigError(
            f"{_holding(lines)} that no {what} has {_numbers(lines)}; nothing was touched. Ids are "
            f"{hint}"
        )


def refuse_ambiguous(lines: Sequence[int]) -> None:
    """Refuse ids that different records have, by the numbers of their lines alone.

    Raises:
        ConfigError: there are any.
    """
    if lines:
        raise ConfigError(
            f"{_holding(lines)} that different records have in files of several runs "
            f"{_numbers(lines)}; nothing was touched. Say which are meant by their columns, with "
            "--where"
        )


def _holding(lines: Sequence[int]) -> str:
    return f"{len(lines)} {'line holds an id' if len(lines) == 1 else 'lines hold ids'}"


def _numbers(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(lines)[:_SHOWN])) + (", …" if len(lines) > _SHOWN else "")
    return f"(line {shown})"


def _read(source: str, *, flag: str) -> str:
    if source == "-":
        data = sys.stdin.buffer.read()
    elif source.startswith("@"):
        try:
            data = Path(source[1:]).read_bytes()
        except OSError as error:
            raise ConfigError(f"{flag}: the file cannot be read ({error.strerror})") from None
    else:
        raise ConfigError(
            f"{flag} takes @FILE, or - for standard input: a name in a command line would stay in the "
            "shell's history"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{flag}: not UTF-8 at byte {error.start}") from None


def _text(value: object) -> str:
    if absent(value):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()
