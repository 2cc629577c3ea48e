"""Two runs are told apart by any answer, number or byte, and by nothing that the machine decides."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import same
from tiny_run import PLAN, bench, write_data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, in the folder of its data."""
    folder = tmp_path_factory.mktemp("same")
    write_data(folder)
    bench(folder)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """The database, to be changed by somebody who is not stopped by its triggers."""
    with closing(sqlite3.connect(file)) as db, db:
        triggers = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            db.execute(f"DROP TRIGGER {name}")
        yield db


def told(a: Path, b: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = same.main([str(a), str(b)])
    out = capsys.readouterr().out
    assert "Keller" not in out  # nothing that stood in a message or an answer
    return code, out


def test_a_run_made_again_from_the_recorded_answers_is_the_same(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("", ".keys"):
        shutil.copyfile(made / f"run/replay.sqlite{ending}", tmp_path / f"shared.sqlite{ending}")
    write_data(tmp_path, PLAN + '[replay]\npath = "shared.sqlite"\n')
    bench(tmp_path, PLAN + '[replay]\npath = "shared.sqlite"\n', offline=True)
    code, out = told(made / "run", tmp_path / "run", capsys)
    assert code == 0
    assert "0 in the second" in out
    for what in ("trials: 2", "answers: 8", "numbers: ", "bytes that crossed: "):
        assert what in out
    assert " 0 compared" not in out


@pytest.mark.parametrize(
    ("file", "query", "what"),
    [
        ("run", "UPDATE items SET grade = 1 - grade WHERE id IN (SELECT id FROM items LIMIT 1)",
         "answers"),
        ("run", "UPDATE items SET refused = 'x' WHERE id IN (SELECT id FROM items LIMIT 1)",
         "answers"),
        ("run", "DELETE FROM items WHERE id IN (SELECT id FROM items LIMIT 1)", "answers"),
        ("run", "INSERT INTO faults SELECT trial, pass, split, id, 'cut' FROM items LIMIT 1",
         "answers"),
        ("run", "UPDATE trials SET state = 'failed' WHERE point = 'large'", "trials"),
        ("run", "DELETE FROM results WHERE split = 'test'", "numbers"),
        ("ledger", "UPDATE entries SET payload = x'00' WHERE number = 3", "bytes"),
        ("ledger", "DELETE FROM entries WHERE number = 3", "bytes"),
        ("ledger", "UPDATE entries SET chain = chain || '/other' WHERE number = 3", "bytes"),
    ],
)  # fmt: skip
def test_whatever_differs_is_named(
    made: Path, copy: Path, capsys: pytest.CaptureFixture[str], file: str, query: str, what: str
) -> None:
    with opened(copy / f"{file}.sqlite") as db:
        assert db.execute(query).rowcount > 0
    code, out = told(made / "run", copy, capsys)
    assert code == 1
    differing = [line for line in out.splitlines() if line.startswith(what)]
    assert not any(", 0 different" in line for line in differing), out


def test_a_number_that_is_another_differs_and_its_time_does_not(
    made: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(copy / "run.sqlite") as db:
        db.execute("UPDATE items SET seconds = 9, cpu_seconds = 9")
        db.execute("UPDATE paid SET seconds = 9")
    assert told(made / "run", copy, capsys)[0] == 0
    rename(copy, b"latency_ms", b"LATENCY_ms")
    assert told(made / "run", copy, capsys)[0] == 0
    rename(copy, b"tokens_in", b"TOKENS_IN")
    code, out = told(made / "run", copy, capsys)
    assert code == 1
    assert "test: tokens_in: only in the first" in out
    assert "(only in the second: TOKENS_IN)" in out


def rename(run: Path, old: bytes, new: bytes) -> None:
    """Call an objective otherwise, in all numbers of `run`."""
    with opened(run / "run.sqlite") as db:
        for trial, split, measured in db.execute("SELECT trial, split, measured FROM results"):
            again = "UPDATE results SET measured = ? WHERE trial = ? AND split = ?"
            db.execute(again, (measured.replace(old, new), trial, split))


def test_messages_that_were_sent_side_by_side_may_cross_in_another_order(
    made: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(copy / "ledger.sqlite") as db:
        db.execute("UPDATE entries SET request = 'pool'")
        last = db.execute("SELECT max(number) FROM entries").fetchone()[0]
    other = copy.parent / "other"
    shutil.copytree(copy, other)
    with opened(other / "ledger.sqlite") as db:
        db.execute(  # the last exchange first
            f"UPDATE entries SET answers = {4 * last} - 2 * answers,"
            f" number = {4 * last} - 2 * coalesce(answers, number) + (answers IS NOT NULL)"
        )
    code, out = told(copy, other, capsys)
    assert code == 0
    assert "requests: the same messages in another order" in out


def test_what_was_found_is_kept(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kept.RESULTS", tmp_path)
    monkeypatch.setattr("kept.ROOT", tmp_path)
    run = str(made / "run")
    assert same.main([run, run, "--as", "desk"]) == 0
    row = json.loads((tmp_path / "same.json").read_text())["rows"]["desk"]
    assert row["different"]["value"] == 0
    assert row["answers"]["value"] > 80
