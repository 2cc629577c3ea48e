"""CSV and Parquet hold every number of the report, and the same ones."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

import made_up
from cosilo.errors import StoreError
from cosilo.report.tables import COLUMNS, rows, write_csv, write_parquet


def test_one_row_per_point_objective_and_split() -> None:
    report = made_up.report()
    found = list(rows(report))
    assert len(found) == sum(len(p.validation) + len(p.test) for p in report.points)
    row = next(r for r in found if (r.point, r.split, r.objective) == ("large", "test", "privacy"))
    measured = report.points[1].test["privacy"]
    before = next(
        r for r in found if (r.point, r.split, r.objective) == ("large", "validation", "privacy")
    )
    assert before.value == report.points[1].validation["privacy"].value != measured.value
    assert (row.value, row.low, row.high, row.n) == (
        measured.value, measured.low, measured.high, measured.n,
    )  # fmt: skip
    assert (row.baseline, row.unit, row.goal, row.front) == (0.02, "share", "min", True)
    assert row.note == "strongest attack: fuzzy"


def test_csv_and_parquet_agree(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    report = made_up.report()
    odd = replace(report.points[3], name='a "name", with\nall that\u2028CSV fears')
    report = replace(report, points=(*report.points[:3], odd, *report.points[4:]))
    write_csv(report, tmp_path / "points.csv")
    write_parquet(report, tmp_path / "points.parquet")
    with (tmp_path / "points.csv").open(encoding="utf-8", newline="") as file:
        from_csv = list(csv.DictReader(file))
    table = parquet.read_table(tmp_path / "points.parquet")
    from_parquet = table.to_pylist()
    assert tuple(table.column_names) == COLUMNS
    assert len(from_csv) == len(from_parquet) > 100
    for a, b in zip(from_csv, from_parquet, strict=True):
        assert a["point"] == b["point"]
        assert float(a["value"]) == b["value"]
        assert (a["baseline"] == "") == (b["baseline"] is None)
        assert int(a["n"]) == b["n"]
        assert json.loads(a["settings"]) == json.loads(b["settings"])
    assert any(row["point"] == odd.name for row in from_csv)


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path, write) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        write(made_up.report(), tmp_path / "missing" / "points")
