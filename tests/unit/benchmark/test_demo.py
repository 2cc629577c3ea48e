import re
from collections import Counter
from pathlib import Path

import pytest

from cosilo.benchmark import desk
from cosilo.benchmark.demo import DemoMessage, messages, write_demo
from cosilo.cli import main
from cosilo.tasks.base import SPLITS
from cosilo.tasks.config import load_task, parse_task
from cosilo.tasks.splits import same_text
from tiny_run import write_data

SIZES = {"train": 40, "tune": 20, "validation": 20, "certificate": 20, "test": 20}


def facts(kind: str) -> list[str]:
    return [m.text[s.start : s.end] for m in MANY for s in m.spans if s.kind == kind]


MANY: list[DemoMessage] = messages(600, seed=1)


def test_a_seed_makes_the_same_messages_and_another_seed_others() -> None:
    assert messages(50, seed=4) == messages(50, seed=4)
    assert messages(50, seed=4) != messages(50, seed=5)


def test_no_two_messages_are_alike_and_the_intents_are_even() -> None:
    assert len({same_text(m.text) for m in MANY}) == 600
    counts = Counter(m.label for m in MANY)
    assert set(counts) == set(desk.INTENTS)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_no_slot_is_left_open() -> None:
    assert not any(re.search(r"[{}]", m.text) for m in MANY)


def test_every_sentence_is_used_once_only_in_one_intent() -> None:
    every = [s for sentences in desk.SENTENCES.values() for s in sentences]
    assert len(every) == len(set(every))
    assert set(desk.SENTENCES) == set(desk.ASIDES) == set(desk.INTENTS)


def test_spans_lie_apart_and_hold_what_their_kind_says() -> None:
    patterns = {
        "person": r"[A-Z][a-z]+ [A-Z][a-z]+",
        "account": r"\d{8}",
        "iban": r"DE\d{20}",
        "phone": r"\d{3}-555-01\d\d",
        "email": r"[a-z]+\.[a-z]+@example\.(org|net|com)",
        "address": r"\d+ [A-Z][a-z]+ [A-Z][a-z]+, [A-Z][a-z]+( [A-Z][a-z]+)?",
        "amount": r"\d+(\.\d\d)? euros",
    }
    for kind, pattern in patterns.items():
        found = facts(kind)
        assert len(found) >= 5, kind
        assert all(re.fullmatch(pattern, value) for value in found), kind
    for message in MANY:
        ends = [0]
        for span in message.spans:
            assert ends[-1] <= span.start < span.end <= len(message.text)
            ends.append(span.end)


def test_numbers_have_their_check_digits() -> None:
    for iban in facts("iban"):
        assert int(iban[4:] + "1314" + iban[2:4]) % 97 == 1
    for account in facts("account"):
        digits = [int(d) for d in reversed(account)]
        doubled = [sum(divmod(2 * d, 10)) if i % 2 else d for i, d in enumerate(digits)]
        assert sum(doubled) % 10 == 0


def test_names_of_people_are_never_left_unmarked() -> None:
    people = re.compile("|".join(desk.LAST_NAMES))
    for message in MANY:
        marked = {i for s in message.spans for i in range(s.start, s.end)}
        for found in people.finditer(message.text):
            assert found.start() in marked


def test_the_demo_loads_as_a_task_with_gold_secrets(tmp_path: Path) -> None:
    write_demo(tmp_path, sizes=SIZES)
    task = load_task(
        parse_task(
            {
                "kind": "classification",
                **{split: f"{split}.jsonl" for split in SPLITS},
                "columns": {"id": "id", "secrets": "secrets"},
            }
        ),
        tmp_path,
    )
    assert {split: len(task.splits[split]) for split in SPLITS} == SIZES
    assert task.gold_secrets
    assert not task.notes
    assert sum(len(e.secrets) for split in SPLITS for e in task.splits[split]) > 80


@pytest.mark.parametrize("tiny", [False, True])
def test_the_plan_is_read_and_its_points_are_known(tmp_path: Path, tiny: bool) -> None:
    from cosilo.benchmark.plan import load_plan

    plan = load_plan(write_demo(tmp_path, sizes=SIZES, tiny=tiny))
    task = load_task(plan.task, plan.base)
    assert task.labels == tuple(sorted(desk.INTENTS))
    strategies = {point.strategy for point in plan.points}
    assert {"small", "large", "cascade", "distil_labels"} <= strategies


def test_a_folder_that_the_demo_did_not_make_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "cosilo-demo"
    own.mkdir()
    (own / "plan.toml").write_text("mine")
    assert main(["demo"]) == 2
    assert "--dir" in capsys.readouterr().err
    assert [(f.name, f.read_text()) for f in own.iterdir()] == [("plan.toml", "mine")]

    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--dir", "file"]) == 2
    assert main(["demo", "--dir", "file/below"]) == 2
    assert (tmp_path / "file").read_text() == "mine"
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_of_an_earlier_demo_or_an_empty_one_is_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new" / "deep"):
        first = write_demo(folder, sizes=SIZES).read_text()
        assert write_demo(folder, sizes=SIZES).read_text() == first


def test_what_the_demo_writes_is_not_committed() -> None:
    ignored = (Path(__file__).parents[3] / ".gitignore").read_text().split()
    assert {"/cosilo-demo/", "/cosilo-demo-tiny/"} <= set(ignored)


def test_the_demo_runs_the_commands_as_a_user_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(folder: Path, *, tiny: bool) -> Path:
        folder.mkdir()
        write_data(folder)
        return folder / "p.toml"

    monkeypatch.setattr("cosilo.benchmark.demo.write_demo", write)
    assert main(["demo", "--dir", str(tmp_path / "demo")]) == 0
    assert (tmp_path / "demo/report.html").is_file()
