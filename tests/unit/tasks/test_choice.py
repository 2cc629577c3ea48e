import csv
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


@pytest.mark.parametrize("answer", ["E", 4, "4", -1, "-1", 4.0, 1.5, "1.5", "Lima", True])
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


def in_csv(folder: Path, rows: list[list[object]], **options: object) -> Task:
    with (folder / "all.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question", "A", "B", "C", "D", "answer"], *rows])
    columns = {"text": "question", "target": "answer"}
    given = {"options": ["A", "B", "C", "D"], **options}
    table = {"kind": "choice", "file": "all.csv", "columns": columns, "options": given}
    return load_task(parse_task(table), folder)


def answers(task: Task) -> dict[str, str]:
    return {
        last_user(e.chat).split("\n")[0]: e.target for split in task.splits.values() for e in split
    }


@pytest.mark.parametrize("written", ["{}", "{}.0", " {} "])
def test_positions_may_be_text_as_in_a_csv(tmp_path: Path, written: str) -> None:
    rows = [[f"What is {i}?", *OPTIONS, written.format(i % 4)] for i in range(120)]
    found = answers(in_csv(tmp_path, rows))
    assert all(found[f"What is {i}?"] == "ABCD"[i % 4] for i in range(120))


def test_whole_fractions_are_positions(tmp_path: Path) -> None:
    assert load(tmp_path, rows_of(60, 2.0)).splits["test"][0].targets == ("C",)


def test_among_options_that_are_numbers_the_whole_column_decides(tmp_path: Path) -> None:
    positions = [[f"What is {i}?", i, i + 1, i + 2, i + 3, i % 4] for i in range(120)]
    found = answers(in_csv(tmp_path, positions))
    assert all(found[f"What is {i}?"] == "ABCD"[i % 4] for i in range(120))
    texts = [[f"What is {i}?", i, i + 1, i + 2, i + 3, i + 3] for i in range(120)]
    assert set(answers(in_csv(tmp_path, texts)).values()) == {"D"}


def test_a_column_that_means_two_things_is_refused_until_it_is_said(tmp_path: Path) -> None:
    rows = [[f"What is {i}?", 3, 2, 1, 0, i % 4] for i in range(120)]
    with pytest.raises(DataError, match='say target = "text" or "position"'):
        in_csv(tmp_path, rows)
    assert answers(in_csv(tmp_path, rows, target="position"))["What is 1?"] == "B"
    assert answers(in_csv(tmp_path, rows, target="text"))["What is 1?"] == "C"


def test_letters_among_options_that_are_letters(tmp_path: Path) -> None:
    rows = [[f"What is {i}?", "D", "C", "B", "A", "ABCD"[i % 4]] for i in range(120)]
    with pytest.raises(DataError, match='say target = "text" or "letter"'):
        in_csv(tmp_path, rows)
    assert answers(in_csv(tmp_path, rows, target="letter"))["What is 0?"] == "A"


def test_wrong_targets_are_named_at_once(tmp_path: Path) -> None:
    rows = [[f"What is {i}?", *OPTIONS, 7 if i in (3, 60, 61) else i % 4] for i in range(120)]
    with pytest.raises(DataError, match=r"line 5: the target .* 2 more rows .*: line 62, line 63"):
        in_csv(tmp_path, rows)


def test_public_questions_have_options_too(tmp_path: Path) -> None:
    rows = rows_of(60)
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    public = {"id": "p", "question": "Where?", "options": list(OPTIONS), "answer": ""}
    (tmp_path / "public.jsonl").write_text(json.dumps(public))
    columns = {"id": "id", "text": "question", "target": "answer"}
    table = {
        "kind": "choice", "file": "all.jsonl", "columns": columns, "public": "public.jsonl",
    }  # fmt: skip
    task = load_task(parse_task(table), tmp_path)
    assert last_user(task.public[0].chat).endswith("D. New York")
