import json
from pathlib import Path

import pytest

from cosilo.errors import DataError
from cosilo.tasks.base import Task
from cosilo.tasks.config import load_task, parse_task
from cosilo.tasks.text import rouge_l


def load(folder: Path, target: object, kind: str = "text", **options: object) -> Task:
    rows = [{"text": f"question {n}", "label": target} for n in range(60)]
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_task(parse_task({"kind": kind, "file": "all.jsonl", "options": options}), folder)


@pytest.mark.parametrize(
    ("reference", "answer", "score"),
    [
        # Lin (2004), section 3.1: S1 against S2 and S3 share "police the gunman" / "the gunman".
        ("police killed the gunman", "police kill the gunman", 0.75),
        ("police killed the gunman", "the gunman kill police", 0.5),
        ("The Cat!", "the cat", 1.0),
        ("a b c d", "a c", 2 * 2 / 6),
        ("a", "", 0.0),
        ("", "", 1.0),
        ("!?", "...", 1.0),
        ("a b", "c d", 0.0),
        ("a a a", "a", 0.5),
    ],
)
def test_rouge_l(reference: str, answer: str, score: float) -> None:
    assert rouge_l(reference, answer) == pytest.approx(score)


def test_the_best_reference_counts(tmp_path: Path) -> None:
    task = load(tmp_path, ["one two three four", "five six"])
    example = task.splits["test"][0]
    assert task.grade(example, "five six") == 1.0
    assert task.grade(example, "one two") == pytest.approx(2 / 3)
    assert example.target == "one two three four"


def test_the_longest_reply_is_the_plans(tmp_path: Path) -> None:
    assert load(tmp_path, "a", max_tokens=7).sampling.max_tokens == 7


@pytest.mark.parametrize("target", [None, "", "  ", [], ["a", None], 3, {"a": 1}])
def test_a_target_that_is_no_text_names_its_row(tmp_path: Path, target: object) -> None:
    with pytest.raises(DataError, match=r"line \d+: the target column is empty"):
        load(tmp_path, target)
