import json
from pathlib import Path

import pytest

from cosilo.errors import DataError
from cosilo.tasks.base import Task
from cosilo.tasks.config import load_task, parse_task


def load(folder: Path, large: object, recorded: dict[str, str]) -> Task:
    rows = [{"text": f"question {n}", "small": False, "large": large} for n in range(60)]
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"target": "large", "recorded": recorded}
    table = {"kind": "graded", "file": "all.jsonl", "columns": columns}
    return load_task(parse_task(table), folder)


@pytest.mark.parametrize(("large", "grade"), [(True, 1.0), (1, 1.0), (0.25, 0.25), ("false", 0.0)])
def test_a_recorded_answer_is_its_grade(tmp_path: Path, large: object, grade: float) -> None:
    task = load(tmp_path, large, {"s": "small", "l": "large"})
    example = task.splits["test"][0]
    assert task.grade(example, example.recorded["l"][0]) == grade
    assert task.grade(example, example.recorded["s"][0]) == 0.0
    assert task.grade(example, "a real answer") == 0.0


@pytest.mark.parametrize("large", ["maybe", 2, -1, None, "nan"])
def test_a_grade_that_is_none_names_its_row(tmp_path: Path, large: object) -> None:
    with pytest.raises(DataError, match=r"line \d+: the recorded grade of 'l'"):
        load(tmp_path, large, {"l": "large"})


def test_without_recorded_models_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs recorded models"):
        load(tmp_path, True, {})
