import json
from pathlib import Path

import pytest

from cosilo.errors import DataError
from cosilo.tasks.base import Example, Task
from cosilo.tasks.classification import LabelGrade
from cosilo.tasks.config import load_task, parse_task
from cosilo.types import last_user, user

LABELS = ("card", "credit card", "mortgages_and_loans", "Other")


def load(folder: Path, values: dict[str, list[str]], **table: object) -> Task:
    """One file per split, holding these labels in turn."""
    for name, found in values.items():
        rows = [{"text": f"{name} item {n}", "label": v} for n, v in enumerate(found)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {name: f"{name}.jsonl" for name in values}
    return load_task(parse_task({"kind": "classification", **files, **table}), folder)


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("card", "card"),
        (" Credit-Card.\n", "credit card"),
        ("MORTGAGES AND LOANS", "mortgages_and_loans"),
        ("The label is: credit card", "credit card"),
        ("I would say `mortgages_and_loans`, clearly.", "mortgages_and_loans"),
        ("card, or maybe other", None),
        ("a credit card and a card", None),
        ("cards", None),
        ("discard", None),
        ("", None),
    ],
)
def test_the_label_a_reply_names(reply: str, label: str | None) -> None:
    assert LabelGrade(LABELS).label(reply) == label


def test_any_acceptable_label_is_right() -> None:
    grade = LabelGrade(LABELS)
    example = Example("1", user("x"), ("card", "Other"))
    assert grade(example, "other") == 1.0
    assert grade(example, "card") == 1.0
    assert grade(example, "credit card") == 0.0
    assert grade(example, "no idea") == 0.0


def test_the_chat_lists_the_labels_and_ends_with_exactly_the_text(tmp_path: Path) -> None:
    values = ["a", "b"] * 20
    descriptions = {"a": "the first"}
    task = load(tmp_path, {"train": values, "test": values}, options={"descriptions": descriptions})
    example = task.splits["test"][0]
    assert last_user(example.chat) == "test item 0"
    assert [turn.role for turn in example.chat] == ["system", "user"]
    assert example.chat[0].content.endswith("Labels:\n- a: the first\n- b")
    assert task.labels == task.sampling.choices == ("a", "b")
    assert example.targets == ("a",)


def test_own_instructions_replace_the_default(tmp_path: Path) -> None:
    values = ["a", "b"] * 20
    task = load(tmp_path, {"train": values, "test": values}, instructions="Sort the mail.")
    assert task.splits["test"][0].chat[0].content.startswith("Sort the mail.\n\nLabels:\n- a")


def test_labels_that_train_lacks_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'test' split that 'train' lacks: 'new', 'newer'"):
        load(tmp_path, {"train": ["a", "b"] * 20, "test": ["a", "new", "newer"]})


def test_labels_of_the_plan_may_be_new_to_train(tmp_path: Path) -> None:
    task = load(
        tmp_path, {"train": ["a", "b"] * 20, "test": ["a", "new"]}, labels=["b", "a", "new"]
    )
    assert task.labels == ("b", "a", "new")


def test_a_label_the_plan_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: 'new' is not one of the plan's labels"):
        load(tmp_path, {"train": ["a", "b"] * 20, "test": ["a", "new"]}, labels=["a", "b"])


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only one class: every target is 'a'"):
        load(tmp_path, {"train": ["a"] * 40, "test": ["a"]})


def test_labels_that_look_alike_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="differ only in case, spaces or punctuation"):
        load(tmp_path, {"train": ["a b", "A_B"] * 20, "test": ["a b"]})


def test_an_empty_label_names_its_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line \d+: the target column is empty"):
        load(tmp_path, {"train": ["a", "b", "", "a"] * 10, "test": ["a"]})


def test_a_column_of_prose_is_not_shown_as_labels(tmp_path: Path) -> None:
    prose = [f"my name is Ann and this is secret number {n}" for n in range(60)]
    with pytest.raises(DataError, match="these are not labels") as caught:
        load(tmp_path, {"train": prose, "test": ["a"]})
    assert "Ann" not in str(caught.value)
    with pytest.raises(DataError, match="these are not labels"):
        load(tmp_path, {"train": ["a", "x" * 101] * 20, "test": ["a"]})


def test_a_described_label_must_exist(tmp_path: Path) -> None:
    values = ["a", "b"] * 20
    with pytest.raises(DataError, match="descriptions: 'c' is not a label"):
        load(tmp_path, {"train": values, "test": ["a"]}, options={"descriptions": {"c": "x"}})
