"""What a benchmark has done is there when it is called again."""

from __future__ import annotations

from pathlib import Path

import pytest

from kept import Cells, Kept, json_lines, note, noted


def test_rows_come_back_in_the_order_in_which_they_were_noted(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "rows.jsonl"
    assert noted(file) == []
    rows = [{"id": "a", "said": "one\u2028two"}, {"id": "b", "said": "\n"}]
    for row in rows:
        note(file, row)
    assert noted(file) == json_lines(file) == rows


def test_a_line_ends_where_json_says(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "one\u2028two\x85"}\n', "utf-8")
    assert json_lines(file) == [{"text": "one\u2028two\x85"}]


def test_cells_go_on_where_they_stopped(tmp_path: Path) -> None:
    cells = Cells(tmp_path / "cells.json")
    cells.put("a", [1.5])
    cells.put("b", {"n": 2})
    assert Cells(tmp_path / "cells.json").done == {"a": [1.5], "b": {"n": 2}}
    assert [path.name for path in tmp_path.iterdir()] == ["cells.json"]


def test_the_mean_over_seeds_has_students_interval() -> None:
    found = Kept("toy")
    found.put_mean("a point", "share", [0.1, 0.2, 0.6])
    number = found.rows["a point"]["share"]
    # t(0.975, 2) = 4.30265 (Student's tables), of a standard deviation of √0.07 and n = 3
    half = 4.30265 * (0.07 / 3) ** 0.5
    assert number["n"] == 3
    assert number["value"] == pytest.approx(0.3)
    assert number["low"] == pytest.approx(0.3 - half, rel=1e-4)
    assert number["high"] == pytest.approx(0.3 + half, rel=1e-4)
