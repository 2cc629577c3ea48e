"""Cells that hold nothing are all named at once, or left out and counted; a number is one label."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from cosilo.errors import DataError
from cosilo.tasks.base import Task
from cosilo.tasks.config import load_task, parse_task

LABELS = ("billing", "delivery", "account")
NAN = float("nan")
Rows = list[dict[str, object]]


def load(folder: Path, rows: Rows, form: str = "jsonl", **table: object) -> Task:
    path = folder / f"d.{form}"
    if form == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif form == "parquet":
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"kind": "classification", "file": path.name, **table}
    return load_task(parse_task(given), folder)


def rows_of(label: Callable[[int], object], text: object = None, count: int = 150) -> Rows:
    return [
        {
            "text": text if text is not None and i % 10 == 4 else f"message {i} of {LABELS[i % 3]}",
            "label": label(i),
        }
        for i in range(count)
    ]


def some(missing: object, others: Callable[[int], object]) -> Callable[[int], object]:
    return lambda i: missing if i % 10 == 4 else others(i)


def word(i: int) -> str:
    return LABELS[i % 3]


@pytest.mark.parametrize("missing", [None, NAN, float("inf"), -float("inf"), "", "  "])
def test_rows_without_a_label_are_named_at_once_in_the_order_of_the_file(
    tmp_path: Path, missing: object
) -> None:
    rows = rows_of(some(missing, word), count=150)
    with pytest.raises(DataError) as caught:
        load(tmp_path, rows)
    said = str(caught.value)
    assert "line 5: the target column is empty ('label'); 14 more rows are like it" in said
    assert "line 15, line 25, line 35" in said
    assert 'missing = "skip"' in said
    assert "billing" not in said


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_they_may_be_left_out_and_are_counted(tmp_path: Path, form: str) -> None:
    task = load(tmp_path, rows_of(some(None, word)), form, missing="skip")
    assert task.labels == ("account", "billing", "delivery")
    assert sum(map(len, task.splits.values())) == 135
    assert task.notes == ("15 rows of 'file' left out: no text or no target in them",)


def test_missing_texts_are_found_too(tmp_path: Path) -> None:
    rows = rows_of(word, text=NAN)
    with pytest.raises(DataError, match=r"line 5: column 'text' is empty; 14 more rows"):
        load(tmp_path, rows)
    assert sum(map(len, load(tmp_path, rows, missing="skip").splits.values())) == 135


def test_several_things_wrong_are_all_said(tmp_path: Path) -> None:
    rows = rows_of(some({"a": 1}, word), text="")
    rows[7]["label"] = None
    with pytest.raises(DataError) as caught:
        load(tmp_path, rows)
    said = str(caught.value)
    assert "line 5: column 'text' is empty; 14 more" in said
    assert "also" in said
    assert "line 8: the target column is empty" in said


def test_what_is_wrong_is_not_skipped(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 5: the target column is empty or holds no label"):
        load(tmp_path, rows_of(some({"a": 1}, word)), missing="skip")


def test_a_file_of_nothing_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row has a text and a target"):
        load(tmp_path, rows_of(lambda i: None), missing="skip")


@pytest.mark.parametrize("kind", ["text", "extraction", "choice"])
def test_every_kind_names_them(tmp_path: Path, kind: str) -> None:
    targets = {"text": "an answer", "extraction": ["a"], "choice": "B"}
    rows = [
        {"text": f"t {i}", "options": ["x", "y"], "label": None if i in (3, 70) else targets[kind]}
        for i in range(90)
    ]
    with pytest.raises(DataError, match=r"line 4: the target .* 1 more row is like it: line 71"):
        load(tmp_path, rows, kind=kind)
    assert "2 rows" in load(tmp_path, rows, kind=kind, missing="skip").notes[0]


@pytest.mark.parametrize(
    ("form", "label"),
    [
        ("jsonl", lambda i: i % 3 if i % 2 else float(i % 3)),
        ("jsonl", lambda i: i % 3 if i % 2 else str(i % 3)),
        ("jsonl", lambda i: float(i % 3)),
        ("csv", lambda i: i % 3),
        ("parquet", lambda i: float(i % 3)),
        ("parquet", lambda i: i % 3),
        ("parquet", lambda i: Decimal(i % 3).quantize(Decimal("0.01"))),
    ],
)
def test_a_number_is_one_label_however_it_is_written(
    tmp_path: Path, form: str, label: Callable[[int], object]
) -> None:
    assert load(tmp_path, rows_of(label), form).labels == ("0", "1", "2")


@pytest.mark.parametrize(
    ("label", "labels"),
    [
        (lambda i: -1 if i % 2 else 1, ("-1", "1")),
        (lambda i: (i % 3 - 1) / 2, ("-0.5", "0", "0.5")),
        (lambda i: i % 2 == 0, ("false", "true")),
        (lambda i: ("C", "C++", "C#")[i % 3], ("C", "C#", "C++")),
        (lambda i: "+-"[i % 2], ("+", "-")),
        (lambda i: f" {LABELS[i % 3]} ", ("account", "billing", "delivery")),
    ],
)
def test_labels_of_other_sorts(
    tmp_path: Path, label: Callable[[int], object], labels: tuple[str, ...]
) -> None:
    task = load(tmp_path, rows_of(label))
    assert task.labels == labels
    for example in task.splits["test"]:
        assert task.grade(example, example.target) == 1.0
        other = next(name for name in labels if name != example.target)
        assert task.grade(example, f"{other}.") == 0.0


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (lambda i: "Yes" if i % 2 else "yes", "differ only in case"),
        (lambda i: "yes." if i % 2 else "yes", "differ only in case, spaces or punctuation"),
        (lambda i: ("0", "0.0", "1")[i % 3], "'0' and '0.0' are the same number"),
        (lambda i: "…" if i % 2 else "yes", "nothing that a reply could name"),
    ],
)
def test_labels_that_no_reply_could_tell_apart_are_refused(
    tmp_path: Path, label: Callable[[int], object], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        load(tmp_path, rows_of(label))


def test_a_column_without_a_name_that_nobody_maps_is_not_read(tmp_path: Path) -> None:
    rows = [{"": i, **row, " ": "x"} for i, row in enumerate(rows_of(word))]  # what pandas writes
    assert load(tmp_path, rows, "csv").labels == ("account", "billing", "delivery")


def test_secrets_in_columns_of_numbers_are_found_as_they_are_written(tmp_path: Path) -> None:
    """A missing value turns a column of whole numbers into one of fractions, and is no secret."""
    rows = rows_of(word)
    for i, row in enumerate(rows):
        row["text"] = f"{row['text']}, finance account {4029000 + i}"
        row["number"] = NAN if i % 10 == 0 else float(4029000 + i)
    columns = {"secret_columns": ["number"]}
    for form in ("jsonl", "parquet"):
        task = load(tmp_path, rows, form, columns=columns)
        found = [s.value for split in task.splits.values() for e in split for s in e.secrets]
        assert len(found) == 135
        assert all(value.startswith("4029") and "." not in value for value in found)
