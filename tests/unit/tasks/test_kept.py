"""Answers are graded alike with the data files and with what a run keeps of them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.tasks.config import grader, load_task, parse_task
from cosilo.tasks.kinds import Given, Kept, Kind

CASES = {
    "classification": ({}, {"label": "cat"}, ["cat", "It is a cat.", "dog", ""]),
    "choice": ({}, {"label": "B", "options": ["one\nline", "B. two", "three"]}, ["B", "C", "three"]),
    "text": ({}, {"label": "a short answer"}, ["a short answer", "answer", "no"]),
    "extraction": ({}, {"label": ["Ada", "Bob"]}, ['["Ada"]', '["Bob", "Ada"]', "Ada", "[]"]),
    "sql": (
        {"options": {"databases": "db"}, "columns": {"group": "db"}},
        {"label": "SELECT 1", "db": "tiny"},
        ["SELECT 1", "SELECT 2", "no query"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_grades_are_the_same(tmp_path: Path, kind: str) -> None:
    more, row, said = CASES[kind]
    (tmp_path / "db").mkdir()
    with closing(sqlite3.connect(tmp_path / "db" / "tiny.sqlite")) as db:
        db.execute("CREATE TABLE t (x)")
    rows = [{"text": f"question {i}", **row} for i in range(40)]
    if kind == "classification":
        rows += [{"text": f"other {i}", "label": "dog"} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = parse_task({"kind": kind, "file": "data.jsonl", **more})
    task = load_task(config, tmp_path)
    (tmp_path / "data.jsonl").unlink()
    examples = tuple(e for split in task.splits.values() for e in split)
    again = grader(config, Kept(examples, task.labels, tmp_path))
    found = [[task.grade(e, text) for text in said] for e in examples]
    assert [[again(e, text) for text in said] for e in examples] == found
    assert 1.0 in found[0]
    assert min(found[0]) < 1.0


def test_a_kind_that_cannot_says_so() -> None:
    from cosilo.errors import DataError

    class Odd(Kind):
        def form(self, given: Given) -> object:  # type: ignore[override]
            raise AssertionError

    with pytest.raises(DataError, match="data files"):
        Odd().grader(Kept(()))
