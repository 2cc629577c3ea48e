import csv
import json
from pathlib import Path

import pytest

from cosilo.errors import DataError
from cosilo.tasks.files import (
    TEXT_LIMIT_BYTES,
    FileRow,
    cell_text,
    check_columns,
    lookup,
    read_rows,
)

PRIVATE = "Ann Example, account 4711"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert PRIVATE not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_json_lines_are_rows_and_blank_lines_are_not(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"a": 1}\n\n{"a": {"b": "ü"}}\r\n')
    rows = read_rows(path)
    assert [row.values for row in rows] == [{"a": 1}, {"a": {"b": "ü"}}]
    assert rows[1].where == f"{path} line 3"


def test_a_json_array_is_rows(tmp_path: Path) -> None:
    assert len(read_rows(write(tmp_path, "a.json", '[{"a": 1}, {"a": 2}]'))) == 2
    assert "not a list" in refused(write(tmp_path, "b.json", '{"a": 1}'))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_sniffed_and_quoted_cells_hold_anything(
    tmp_path: Path, delimiter: str
) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", "text", "label"])
        writer.writerow(["1", 'two\nlines, a; b | c\t"quoted"', "x"])
        writer.writerow(["2", "plain", "y"])
    rows = read_rows(tmp_path / "a.csv")
    assert rows[0].values == {"id": "1", "text": 'two\nlines, a; b | c\t"quoted"', "label": "x"}
    assert rows[1].where.endswith("line 4")


def test_a_single_column_with_commas_in_prose_needs_quotes_only(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.csv", 'text\n"one, two"\nthree\n'))
    assert [row.values["text"] for row in rows] == ["one, two", "three"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.csv", b"\xef\xbb\xbfid,text\n1,a\n"))
    assert rows[0].values == {"id": "1", "text": "a"}


def test_the_global_csv_limit_is_put_back(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "x" * (before * 2)
    rows = read_rows(write(tmp_path, "a.csv", f"id,text\n1,{long}\n"))
    assert rows[0].values["text"] == long
    assert csv.field_size_limit() == before


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", "{}")
    assert "did you mean 'train.jsonl'" in refused(tmp_path / "trian.jsonl")
    assert "no such file" in refused(tmp_path / "nowhere" / "a.csv")
    write(tmp_path, "mail.csv.toml", "")  # a plan of that name is no data
    assert "did you mean" not in refused(tmp_path / "mail.csv")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    assert "cannot be read" in refused(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    assert "empty" in refused(write(tmp_path, name, ""))


def test_a_file_of_white_space_is_empty(tmp_path: Path) -> None:
    assert "empty" in refused(write(tmp_path, "a.csv", "\n\n  \n"))


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert "no rows" in refused(write(tmp_path, "a.csv", "id,text\n"))


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "a.xlsx", "x"))
    assert ".xlsx" in message
    assert ".parquet" in message


def test_not_utf8_says_where(tmp_path: Path) -> None:
    content = b'{"text": "fine"}\n{"text": "' + PRIVATE.encode() + b'\xff"}\n'
    message = refused(write(tmp_path, "a.jsonl", content))
    assert "not UTF-8 at byte" in message
    assert "line 2" in message
    assert "UTF-16" in refused(write(tmp_path, "b.csv", "id,text\n".encode("utf-16")))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_nul_bytes_say_where(tmp_path: Path, name: str) -> None:
    message = refused(write(tmp_path, name, f"id,text\n1,{PRIVATE}\0\n"))
    assert "NUL byte at byte" in message
    assert "line 2" in message


@pytest.mark.parametrize(
    "line",
    [
        f'{{"text": "{PRIVATE}"',
        f'{{"text": {PRIVATE}}}',
        '{"n": ' + "9" * 5000 + "}",
        "[" * 100_000,
    ],
)
def test_malformed_json_says_which_line(tmp_path: Path, line: str) -> None:
    message = refused(write(tmp_path, "a.jsonl", f'{{"text": "fine"}}\n{line}\n'))
    assert "line 2: malformed JSON" in message
    assert len(message) < 300


def test_a_line_that_is_no_object_is_refused(tmp_path: Path) -> None:
    assert "line 1: holds a list" in refused(write(tmp_path, "a.jsonl", f'["{PRIVATE}"]\n'))


def test_ragged_rows_say_which_line(tmp_path: Path) -> None:
    rows = "".join(f"{n},{PRIVATE.replace(',', '')},x\n" for n in range(60))
    message = refused(write(tmp_path, "a.csv", f"id,text,label\n{rows}61,a\n"))
    assert "line 62: 2 cells, but the header has 3" in message


def test_every_ragged_row_is_named_at_once(tmp_path: Path) -> None:
    rows = [f"{n};{PRIVATE.replace(';', '')}" + ";x" * (n in (3, 7, 40)) for n in range(60)]
    message = refused(write(tmp_path, "a.csv", "id;text\n" + "\n".join(rows)))
    assert "line 5: 3 cells, but the header has 2 (delimiter ';')" in message
    assert "2 more lines are like it: 9, 42; mend or delete them" in message
    rows = [rows[1], "x", *rows[2:3], "y;z;w"]
    message = refused(write(tmp_path, "b.csv", "id;text\n" + "\n".join(rows)))
    assert "line 3: 1 cell, but" in message
    assert "1 more line is like it: 5;" in message


def test_a_quote_never_closed_is_refused(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "a.csv", f'id,text\n1,a\n2,"{PRIVATE}\n'))
    assert "a quoted cell is never closed" in message


@pytest.mark.parametrize(
    ("header", "words"), [(",,", "no column has a name"), ("id,id,", "two columns are named")]
)
def test_a_header_names_each_column_once(tmp_path: Path, header: str, words: str) -> None:
    assert words in refused(write(tmp_path, "a.csv", f"{header}\n1,2,3\n"))


def test_parquet_rows_stay_nested(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"id": 1, "preds": {"gpt-4o": "a"}}, {"id": 2, "preds": {"gpt-4o": "b"}}]
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    assert [row.values for row in read_rows(path)] == rows


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_parquet_file_is_refused(tmp_path: Path, share: float) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": [PRIVATE] * 100}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "not a whole Parquet file" in refused(path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", 1),
        ("b.c", 2),
        ("b.d.e", 3),
        ("preds.gpt-4.5-preview", "x"),
        ("pair.1", 5),
        ("list.0.k", 6),
        ("b.nothing", None),
        ("pair.7", None),
        ("a.b", None),
    ],
)
def test_dotted_paths(path: str, value: object) -> None:
    row = {
        "a": 1,
        "b": {"c": 2, "d.e": 3},
        "preds": {"gpt-4.5-preview": "x"},
        "pair": [4, 5],
        "list": [{"k": 6}],
    }
    assert lookup(row, path) == value


def test_a_misspelt_column_names_the_nearest() -> None:
    rows = [FileRow("line 1", {"text": "x", "preds": {"gpt-4o": "y"}})]
    check_columns(rows, ["text", "preds.gpt-4o"], file=Path("a.csv"))
    with pytest.raises(DataError, match="'txet'; did you mean 'text'"):
        check_columns(rows, ["txet"], file=Path("a.csv"))
    with pytest.raises(DataError, match=r"did you mean 'preds.gpt-4o'"):
        check_columns(rows, ["preds.gpt-4"], file=Path("a.csv"))
    with pytest.raises(DataError, match=r"no column named '' \(known: preds, preds.gpt-4o, text\)"):
        check_columns(rows, [""], file=Path("a.csv"))


def test_a_column_that_some_rows_have_is_known() -> None:
    rows = [FileRow("line 1", {"text": "x"}), FileRow("line 2", {"secrets": None})]
    check_columns(rows, ["secrets"], file=Path("a.csv"))


def test_numbers_and_booleans_are_written_as_json_writes_them() -> None:
    row = FileRow("line 1", {"n": 3, "x": 0.5, "b": True, "none": None})
    assert [cell_text(row, c) for c in ("n", "x", "b", "none")] == ["3", "0.5", "true", ""]


def test_a_text_of_a_megabyte_is_accepted_and_an_oversized_one_names_its_row(
    tmp_path: Path,
) -> None:
    rows = [{"text": "é" * 500_000}, {"text": "x" * (TEXT_LIMIT_BYTES + 1)}]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    fine, over = read_rows(path)
    assert len(cell_text(fine, "text").encode()) == 1_000_000
    with pytest.raises(DataError, match=r"line 2: column 'text' holds 2,097,153 bytes"):
        cell_text(over, "text")


@pytest.mark.parametrize(
    ("value", "words"), [("a\\u0000b", "NUL character at position 1"), ("a\\ud800", "surrogate")]
)
def test_characters_no_model_takes_are_refused(tmp_path: Path, value: str, words: str) -> None:
    (row,) = read_rows(write(tmp_path, "a.jsonl", f'{{"text": "{value}"}}'))
    with pytest.raises(DataError, match=words):
        cell_text(row, "text")


def test_a_list_is_no_text() -> None:
    with pytest.raises(DataError, match="holds a list, not a text"):
        cell_text(FileRow("line 1", {"text": ["a"]}), "text")


def test_a_misspelt_column_shows_no_keys_that_may_be_values(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    people = ("Ann Lee", "Bo Roe", "Cy Poe", "Di Doe")
    path.write_text(
        "".join(json.dumps({"text": "x", "calls": {p: 3, "total": 3}}) + "\n" for p in people)
    )
    with pytest.raises(DataError) as caught:
        check_columns(read_rows(path), ["call.total"], file=path)
    assert "calls.total" in str(caught.value)
    assert not [p for p in people if p in str(caught.value)]
