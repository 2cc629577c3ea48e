import json
from pathlib import Path

import pytest

from cosilo.errors import DataError
from cosilo.tasks.base import Task
from cosilo.tasks.config import load_task, parse_task
from cosilo.tasks.extraction import first_json, span_f1


def load(folder: Path, target: object, **options: object) -> Task:
    rows = [{"text": f"question {n}", "label": target} for n in range(60)]
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = {"kind": "extraction", "file": "all.jsonl", "options": options}
    return load_task(parse_task(table), folder)


TARGET = json.dumps({"name": "Ann Lee", "drugs": ["aspirin", "codeine"]})


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (TARGET, 1.0),
        ('{"drugs": ["Codeine", "ASPIRIN."], "name": " ann  lee "}', 1.0),
        ('Here it is:\n```json\n{"name": "Ann Lee"}\n```', 0.5),
        ('{"name": "Ann Lee", "drugs": "aspirin"}', 0.8),
        ('{"name": "aspirin", "drugs": "Ann Lee"}', 0.0),
        ('{"name": "Ann Lee", "drugs": ["aspirin", "codeine", "aspirin"]}', 6 / 7),
        ("name: Ann Lee\n- drugs: aspirin", 0.8),
        ('{"name": null}', 0.0),
        ("none of these", 0.0),
        ("", 0.0),
    ],
)
def test_f1_over_fields(answer: str, score: float) -> None:
    assert span_f1(TARGET, answer) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "score"),
    [('["a b", "c"]', 1.0), ("a b\nc", 1.0), ("- a b", 2 / 3), ("[]", 0.0), ("c, a b", 0.0)],
)
def test_f1_over_values(answer: str, score: float) -> None:
    assert span_f1('["a b", "c"]', answer) == pytest.approx(score)


@pytest.mark.parametrize("answer", ["[]", "{}", "", '{"name": []}'])
def test_nothing_to_extract_and_nothing_extracted_is_right(answer: str) -> None:
    assert span_f1("{}", answer) == 1.0


def test_the_first_whole_json_counts() -> None:
    assert first_json('see [1] and {"a": 2}') == [1]
    assert first_json('a set {x} then {"a": [2]} {"b": 1}') == {"a": [2]}
    assert first_json("no json { here") is None
    assert first_json("[" * 5000) is None


def test_the_fields_are_asked_for_by_name(tmp_path: Path) -> None:
    task = load(tmp_path, {"name": "x", "age": 3})
    example = task.splits["test"][0]
    assert example.chat[0].content.endswith("Fields:\n- age\n- name")
    assert task.grade(example, example.target) == 1.0
    assert task.grade(example, '{"age": "3"}') == pytest.approx(2 / 3)


def test_fields_of_the_plan_come_first(tmp_path: Path) -> None:
    task = load(tmp_path, {"name": "x"}, fields=["name", "city"])
    assert task.splits["test"][0].chat[0].content.endswith("Fields:\n- name\n- city")


def test_a_list_may_be_json_text(tmp_path: Path) -> None:
    task = load(tmp_path, '["x", "y"]')
    assert task.grade(task.splits["test"][0], "x\ny") == 1.0


@pytest.mark.parametrize("target", ["plain", 3, '"text"'])
def test_a_target_of_no_known_form_names_its_row(tmp_path: Path, target: object) -> None:
    with pytest.raises(DataError, match=r"line \d+: the target is neither"):
        load(tmp_path, target)
