"""Every number of a report as rows: one per point, objective and split, in CSV or Parquet.

The files are their owner's alone, as the run is.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from cosilo.errors import ConfigError, StoreError
from cosilo.report.data import Report
from cosilo.report.private_file import private_file


@dataclass(frozen=True)
class Row:
    """One measurement. Values are in `unit` as measured: a share is 0 … 1, not a percentage.

    Attributes:
        defences: outermost first, joined by " + ".
        settings: the point's own, as JSON.
        front: on the front of the validation split.
        chosen: by the certificate.
    """

    point: str
    strategy: str
    defences: str
    settings: str
    front: bool
    chosen: bool
    split: str
    objective: str
    family: str
    goal: str
    unit: str
    value: float
    low: float
    high: float
    n: int
    baseline: float | None
    note: str


COLUMNS = tuple(field.name for field in fields(Row))


def rows(report: Report) -> Iterator[Row]:
    """The report's measurements, point by point in its order."""
    for point in report.points:
        for split, measured in (("validation", point.validation), ("test", point.test)):
            for m in measured.values():
                yield Row(
                    point=point.name,
                    strategy=point.strategy,
                    defences=" + ".join(point.defences),
                    settings=json.dumps(dict(point.settings), sort_keys=True, default=str),
                    front=point.name in report.front,
                    chosen=point.name == report.chosen,
                    split=split,
                    objective=m.objective.name,
                    family=m.objective.family,
                    goal=m.objective.goal,
                    unit=m.objective.unit,
                    value=m.value,
                    low=m.low,
                    high=m.high,
                    n=m.n,
                    baseline=m.baseline,
                    note=m.note,
                )


def write_csv(report: Report, path: Path) -> None:
    """UTF-8, a header, empty where there is no base rate.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        with private_file(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(astuple(row) for row in rows(report))
    except OSError as error:
        raise _unwritable(path, error) from None


def write_parquet(report: Report, path: Path) -> None:
    """The same columns, typed.

    Raises:
        ConfigError: pyarrow is not installed.
        StoreError: the file cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install 'cosilo[data]'") from None
    types = {"front": pa.bool_(), "chosen": pa.bool_(), "n": pa.int64()}
    types |= dict.fromkeys(("value", "low", "high", "baseline"), pa.float64())
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    found = [dict(zip(COLUMNS, astuple(row), strict=True)) for row in rows(report)]
    try:
        pq.write_table(pa.Table.from_pylist(found, schema=schema), private_file(path))
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write {str(path)!r}: {error.strerror or type(error).__name__}")
