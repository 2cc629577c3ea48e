"""A run stays what it is: a wrong or unwanted plan, an estimate, a single attack take nothing away."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.benchmark.results import opened
from cosilo.cli import main

PLAN = """
name = "desk"
[attacks]
names = ["verbatim"]
tamper_share = 0
[task]
kind = "classification"
file = "data.jsonl"
[task.columns]
secrets = "secrets"
[models.small]
kind = "scripted"
confidence = 0.5
replies = {cat = "cat", dog = "cow", cow = "cow"}
[models.large]
kind = "scripted"
replies = {cat = "cat", dog = "dog", cow = "cow"}
usd_per_m_in = 1.0
[[points]]
strategy = "small"
[[points]]
strategy = "cascade"
threshold = 0.9
"""
MORE = '[[points]]\nstrategy = "distil_labels"\nitems = 5\n'


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    rng, rows = random.Random(0), []
    for i in range(60):
        label, name = rng.choice(("cat", "dog", "cow")), f"Ada{i:04}"
        rows.append({"text": f"{name} saw a {label} on day {i}", "label": label, "secrets": [name]})
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    path = tmp_path / "desk.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def finished(plan: Path) -> Path:
    assert main(["bench", str(plan), "--yes"]) == 0
    return plan.parent / "runs" / "desk"


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def measured(run: Path) -> dict[str, dict[str, float]]:
    """Point → measure → its value on the test split."""
    with opened(run) as results:
        return {p.name: {n: m.value for n, m in p.test.items()} for p in results.points}


WRONG: dict[str, Callable[[str], str]] = {
    "a data file that is not there": lambda t: t.replace("data.jsonl", "dota.jsonl"),
    "a column that is not there": lambda t: t.replace('"secrets"', '"secrts"'),
    "an option that is refused": lambda t: t.replace("threshold = 0.9", "threshold = 9.0"),
    "a key that does not exist": lambda t: t.replace("threshold = 0.9", "treshold = 0.9"),
    "no TOML": lambda t: t + "[[points\n",
    "a model that shows too little": lambda t: t.replace("= 0.5\nrep", "= 0.5\nlogprobs = false\nrep"),
    "a model file that is not there": lambda t: t.replace(
        'kind = "scripted"\nreplies', 'kind = "llamacpp"\npath = "none.gguf"\n#'
    ),
}  # fmt: skip


@pytest.mark.parametrize("flag", ["--estimate", "--yes"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_plan_that_cannot_work_leaves_a_finished_run_as_it_was(
    plan: Path, finished: Path, wrong: str, flag: str
) -> None:
    before, numbers = content(finished), measured(finished)
    plan.write_text(WRONG[wrong](PLAN))
    assert main(["bench", str(plan), flag]) in (1, 2)
    for name in ("plan.toml", "run.json"):
        assert (finished / name).read_bytes() == before[name]
    assert measured(finished) == numbers
    assert main(["select", str(finished), "--limit", "calls=1"]) in (0, 5)
    assert main(["report", str(finished), "-o", str(plan.parent / "report.html")]) == 0
    assert main(["attack", str(finished), "--attack", "verbatim"]) == 0


@pytest.mark.parametrize("wrong", WRONG)
def test_an_estimate_writes_nothing(plan: Path, wrong: str) -> None:
    plan.write_text(WRONG[wrong](PLAN))
    before = content(plan.parent)
    main(["bench", str(plan), "--estimate"])
    assert content(plan.parent) == before
    assert not (plan.parent / "runs").exists()


def test_an_estimate_of_a_plan_that_grew_changes_no_byte(
    plan: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(finished)
    plan.write_text(PLAN + MORE)
    capsys.readouterr()
    assert main(["bench", str(plan), "--estimate"]) == 0
    assert "1 of 3 points left: at most" in capsys.readouterr().out
    assert content(finished) == before


def test_a_plan_that_is_declined_leaves_a_finished_run_as_it_was(
    plan: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(finished)
    plan.write_text(PLAN + MORE)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["bench", str(plan)]) == 2
    for name in ("plan.toml", "run.json"):
        assert (finished / name).read_bytes() == before[name]
    assert main(["bench", str(plan), "--yes"]) == 0
    assert set(measured(finished)) == {"small", "cascade", "distil_labels"}


def test_wrong_data_make_no_folder(plan: Path) -> None:
    plan.write_text(WRONG["a column that is not there"](PLAN))
    assert main(["bench", str(plan), "--yes"]) == 2
    assert not (plan.parent / "runs").exists()


@pytest.mark.parametrize("command", ["attack", "select", "report", "serve"])
def test_a_run_that_is_not_there_is_not_made(tmp_path: Path, command: str) -> None:
    there = tmp_path / "empty"
    there.mkdir()
    more = ["--point", "x"] if command == "serve" else []
    for path in (there, tmp_path / "none"):
        assert main([command, str(path), *more]) == 2
    assert content(tmp_path) == {}
    assert not (tmp_path / "none").exists()


def test_an_estimate_waits_for_nobody_and_disturbs_nobody(
    plan: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(finished, write=True):
        assert main(["bench", str(plan), "--estimate"]) == 4
    assert "works on" in capsys.readouterr().err


def test_of_a_finished_run_nothing_is_left(
    plan: Path, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(finished)
    capsys.readouterr()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr("cosilo.benchmark.trial.measure", never)
    assert main(["bench", str(plan), "--estimate"]) == 0
    assert capsys.readouterr().out == "desk: nothing is left to answer: all 2 points are done\n"
    plan.write_text(PLAN.replace('["verbatim"]', '["relink"]'))
    assert main(["bench", str(plan), "--estimate"]) == 0
    assert "2 will be measured again, which calls nobody" in capsys.readouterr().out
    assert content(finished) == before


def test_of_a_finished_search_nothing_is_left(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searched = PLAN.replace("threshold = 0.9", "threshold = {low = 0.0, high = 1.0}")
    plan.write_text(searched + "[search]\ntrials = 3\n")
    for left in ("4 of 4 points left", "nothing is left to answer: all 4 points are done"):
        capsys.readouterr()
        assert main(["bench", str(plan), "--estimate"]) == 0
        assert left in capsys.readouterr().out
        assert main(["bench", str(plan), "--yes"]) == 0


def test_offline_asks_nobody_for_leave(
    plan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["bench", str(plan), "--offline"]) == 1
    found = capsys.readouterr()
    assert "--yes" not in found.err
    assert "offline: nobody is called" in found.out
    assert "cascade: the answer of" in found.err


# ── attacks ──────────────────────────────────────────────────────────────────


def attack(run: Path, *names: str) -> dict[str, dict[str, float]]:
    flags = [part for name in names for part in ("--attack", name)]
    assert main(["attack", str(run), *flags]) == 0
    return measured(run)


def test_an_attack_drops_no_other_attacks_numbers(plan: Path, finished: Path) -> None:
    before = measured(finished)
    assert before["cascade"]["privacy"] > 0  # by the plan's attack, "verbatim"
    alone = attack(finished, "surrogate")
    assert alone["cascade"].keys() > before["cascade"].keys()
    for name, value in before["cascade"].items():
        assert alone["cascade"][name] == value
    both = attack(finished, "relink")
    assert {"privacy", "exposure", "relink"} <= both["cascade"].keys()


def test_single_attacks_add_up_to_all_of_them_in_any_order(plan: Path, finished: Path) -> None:
    attack(finished, "surrogate")
    one_by_one = attack(finished, "relink")
    assert attack(finished, "relink", "surrogate", "verbatim") == one_by_one
    assert attack(finished) == one_by_one  # those made since count among a run's own
    plan.write_text(PLAN.replace("usd_per_m_in = 1.0", "usd_per_m_in = 2.0"))
    assert main(["bench", str(plan), "--yes"]) == 0  # measured again for the price
    again = measured(finished)
    assert again["cascade"]["usd_per_1k"] == 2 * one_by_one["cascade"].pop("usd_per_1k")
    assert again["cascade"] | {"usd_per_1k": 0} == one_by_one["cascade"] | {"usd_per_1k": 0}


def test_a_run_measured_before_guesses_were_kept_loses_nothing(finished: Path) -> None:
    before = measured(finished)
    with closing(sqlite3.connect(finished / "run.sqlite")) as db:
        db.execute("DROP TABLE guesses")
        db.commit()
    found = attack(finished, "relink")
    assert found["cascade"].items() >= before["cascade"].items()
    assert "relink" in found["cascade"]


def test_an_attack_that_was_not_named_is_not_made_again(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosilo.attacks.secrets import Verbatim

    async def never(*_: object) -> list[object]:
        raise AssertionError("its guesses are on record")

    monkeypatch.setattr(Verbatim, "guess", never)
    assert "relink" in attack(finished, "relink")["cascade"]


def test_guesses_made_by_other_code_are_made_again(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosilo.attacks.secrets import Verbatim

    made, guess = [], Verbatim.guess

    async def counting(self: Verbatim, *arguments: object) -> object:
        made.append(1)
        return await guess(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Verbatim, "guess", counting)
    attack(finished, "relink")
    assert not made
    monkeypatch.setattr("cosilo.benchmark.measure.versions_behind", lambda *_: "edited")
    attack(finished, "relink")
    assert made
