"""Rows are left out of data files of every format, and nothing else of them is changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosilo.errors import DataError
from cosilo.tasks.dropping import without_rows
from cosilo.tasks.files import read_rows

ROWS = [{"id": str(i), "text": f"text {i}, of two\nlines é"} for i in range(4)]


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def csv(rows: list[dict[str, str]], mark: str = "", end: str = "\r\n") -> str:
    body = "".join(f'{row["id"]},"{row["text"]}"{end}' for row in rows)
    return f"{mark}id,text{end}{body}"


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.jsonl", "\n" + lines(ROWS), "\n" + lines([ROWS[0], ROWS[2]])),
        ("a.ndjson", "\ufeff" + lines(ROWS).rstrip(), "\ufeff" + lines([ROWS[0], ROWS[2]])),
        ("a.csv", csv(ROWS), csv([ROWS[0], ROWS[2]])),
        ("a.csv", csv(ROWS, "\ufeff", "\n\n"), csv([ROWS[0], ROWS[2]], "\ufeff", "\n\n")),
        ("a.tsv", csv(ROWS).replace(',"', '\t"').replace("d,t", "d\tt"),
         csv([ROWS[0], ROWS[2]]).replace(',"', '\t"').replace("d,t", "d\tt")),
    ],
)  # fmt: skip
def test_what_is_left_of_a_text_is_the_same_to_the_byte(
    tmp_path: Path, name: str, before: str, after: str
) -> None:
    path = tmp_path / name
    path.write_bytes(before.encode())
    rows = read_rows(path)
    found = without_rows(path, {rows[1].where, rows[3].where})
    assert found.decode().rstrip("\n") == after.rstrip("\n")
    path.write_bytes(found)
    assert [r.values for r in read_rows(path)] == [ROWS[0], ROWS[2]]


@pytest.mark.parametrize("name", ["a.json", "a.parquet"])
def test_files_that_are_written_anew_have_the_other_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(ROWS), path)
    else:
        path.write_text(json.dumps(ROWS))
    rows = read_rows(path)
    path.write_bytes(without_rows(path, {rows[0].where}))
    assert [r.values for r in read_rows(path)] == ROWS[1:]


def test_a_row_that_is_not_there_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines(ROWS))
    with pytest.raises(DataError, match="line 9: there is no such row"):
        without_rows(path, {f"{path} line 9"})
