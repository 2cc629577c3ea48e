"""What a benchmark has done is there when it is called again."""

from __future__ import annotations

from pathlib import Path

from kept import Cells, json_lines, note, noted


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
