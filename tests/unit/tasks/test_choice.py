import json
from pathlib import Path

import pytest

from cosilo.errors import DataError
from cosilo.tasks.base import SPLITS, Task
from cosilo.tasks.choice import chosen_letter
from cosilo.tasks.config import load_task, parse_task
from cosilo.types import last_user

OPTIONS = ("Paris", "Rome", "Oslo", "New York")


def load(folder: Path, rows: list[dict[str, object]], **options: object) -> Task:
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"id": "id", "text": "question", "target": "answer"}
    table = {"kind": "choice", "file": "all.jsonl", "columns": columns, "options": options}
    return load_task(parse_task(table), folder)


def rows_of(count: int, answer: object = "C") -> list[dict[str, object]]:
    return [
        {"id": str(n), "question": f"Which one, {n}?", "options": list(OPTIONS), "answer": answer}
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("C", "C"),
        ("c", "C"),
        (" C.", "C"),
        ("(C)", "C"),
        ("C) Oslo", "C"),
        ("**C**", "C"),
        ("C\nbecause it is in Norway", "C"),
        ("The answer is (C).", "C"),
        ("The answer is C", "C"),
        ("the correct answer is: c", "C"),
        ("Answer: C", "C"),
        ("Answer: **C**", "C"),
        ("I choose option C.", "C"),
        ("The answer is (A)? No. After checking, the answer is (B).", "B"),
        ("Rome is in Italy, so it must be (B) here.", "B"),
        ("oslo", "C"),
        ("New York.", "D"),
        ("The answer is a matter of taste", None),
        ("The answer is (J)", None),
        ("(A) or (B)", None),
        ("A city in the north", None),
        ("I'd rather not say", None),
        ("", None),
    ],
)
def test_the_letter_a_reply_settles_on(reply: str, letter: str | None) -> None:
    assert chosen_letter(reply, OPTIONS) == letter


@pytest.mark.parametrize("answer", ["C", "(c)", 2, "Oslo"])
def test_a_target_is_a_letter_a_position_or_an_option(tmp_path: Path, answer: object) -> None:
    task = load(tmp_path, rows_of(60, answer))
    example = task.splits["test"][0]
    assert example.targets == ("C",)
    assert task.grade(example, "The answer is (C).") == 1.0
    assert task.grade(example, "B") == 0.0
    assert last_user(example.chat).endswith("?\nA. Paris\nB. Rome\nC. Oslo\nD. New York")
    assert task.sampling.choices == task.labels == ("A", "B", "C", "D")


def test_options_in_columns_of_their_own(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": str(n), "question": f"Which, {n}?", "o1": "yes", "o2": "no", "o3": "", "answer": 1}
        for n in range(60)
    ]
    task = load(tmp_path, rows, options=["o1", "o2", "o3"])
    assert last_user(task.splits["test"][0].chat).endswith("?\nA. yes\nB. no")
    assert task.labels == ("A", "B")


@pytest.mark.parametrize("answer", ["E", 4, -1, "Lima", None, True, 1.0])
def test_a_target_outside_the_options_names_its_row(tmp_path: Path, answer: object) -> None:
    with pytest.raises(DataError, match=r"line \d+: the target is neither"):
        load(tmp_path, rows_of(60, answer))


@pytest.mark.parametrize("options", [["one"], [], "one", None, ["x"] * 27])
def test_rows_without_options_are_refused(tmp_path: Path, options: object) -> None:
    rows = [{**row, "options": options} for row in rows_of(60)]
    with pytest.raises(DataError, match=r"options|no column named"):
        load(tmp_path, rows)


def test_the_same_stem_with_other_options_is_another_question(tmp_path: Path) -> None:
    stems = [
        {"id": str(n), "question": "Which is true?", "options": ["x", f"y{n}"], "answer": "A"}
        for n in range(200)
    ]
    task = load(tmp_path, stems)
    assert all(task.splits[split] for split in SPLITS)
