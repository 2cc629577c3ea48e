"""A report is as private as its run: quoted only when asked, and its owner's wherever it is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cosilo.cli import main
from tiny_run import PLAN, bench, write_data

WHOLE = PLAN.replace('secrets = "secrets"', 'secret_columns = ["text"]')
UNKNOWN = PLAN.replace(', secrets = "secrets"', "")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, plan in {"listed": PLAN, "whole": WHOLE, "unknown": UNKNOWN}.items():
        folders[name] = tmp_path_factory.mktemp(name)
        assert plan == PLAN or "secrets = " not in plan
        write_data(folders[name], plan)
        outcomes, _ = bench(folders[name], plan)
        assert [o.error for o in outcomes] == [None, None]
    return folders


def page(made: dict[str, Path], secrets: str, tmp_path: Path, *more: str) -> str:
    shutil.copytree(made[secrets], tmp_path / "made")
    target = tmp_path / "elsewhere.html"
    target.write_text("an older one, open to all")
    target.chmod(0o644)
    csv = tmp_path / "points.csv"
    run = str(tmp_path / "made" / "run")
    assert main(["report", run, "-o", str(target), "--csv", str(csv), *more]) == 0
    assert {file.stat().st_mode & 0o777 for file in (target, csv)} == {0o600}
    assert main(["report", run]) == 0
    assert (tmp_path / "made" / "run" / "report.html").stat().st_mode & 0o777 == 0o600
    return target.read_text()


def test_a_free_text_with_listed_secrets_masked_is_not_quoted_unasked(
    made: dict[str, Path], tmp_path: Path
) -> None:
    text = page(made, "listed", tmp_path)
    assert "saw a" not in text
    assert "No message is quoted" in text
    assert "cosilo report --quote" in text


def test_quoting_masks_what_was_listed_and_says_what_is_left(
    made: dict[str, Path], tmp_path: Path
) -> None:
    text = page(made, "listed", tmp_path, "--quote")
    assert "saw a" in text
    assert "Keller" not in text
    assert "private text all the same" in text


def test_texts_that_are_secret_as_a_whole_show_nothing_when_masked(
    made: dict[str, Path], tmp_path: Path
) -> None:
    text = page(made, "whole", tmp_path)
    assert "saw a" not in text
    assert "Keller" not in text
    assert 'class="message"' in text


def test_without_secrets_nothing_is_quoted_even_when_asked(
    made: dict[str, Path], tmp_path: Path
) -> None:
    text = page(made, "unknown", tmp_path, "--quote")
    assert "saw a" not in text
