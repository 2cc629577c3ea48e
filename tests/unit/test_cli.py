"""The command line: one clear line on stderr, the right exit code, no traceback, no private text."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cosilo.cli import main, make_parser
from cosilo.cli.reference import page
from cosilo.errors import BudgetExceededError, ConfigError, CosiloError, RunBusyError

ROOT = Path(__file__).parents[2]


def test_the_page_in_the_docs_is_up_to_date() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert text == page(), "run: python -m cosilo.cli.reference > docs/cli.md"


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for verb in ("bench", "select", "report", "attack", "list", "models", "demo"):
        assert f"    {verb} " in listed
        assert main([verb, "--help"]) == 0
        assert len(capsys.readouterr().out) > 300


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], list[str]]:
    def prepare(error: BaseException) -> list[str]:
        def run(_: argparse.Namespace) -> int:
            raise error

        monkeypatch.setattr("cosilo.cli.list_.run", run)
        return ["list", "strategies"]

    return prepare


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no such thing"), 2),
        (CosiloError("no such thing"), 1),
        (BudgetExceededError("no such thing"), 3),
        (RunBusyError("no such thing"), 4),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    error: Exception,
    code: int,
    failing: Callable[[BaseException], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(failing(error)) == code
    assert capsys.readouterr().err == "cosilo: no such thing\n"


def test_an_interruption_says_how_to_go_on(
    failing: Callable[[BaseException], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(failing(KeyboardInterrupt())) == 130
    assert "the same command" in capsys.readouterr().err


def test_an_unexpected_error_shows_its_place_and_not_its_text(
    failing: Callable[[BaseException], list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COSILO_DEBUG", raising=False)
    assert main(failing(KeyError("Ada Lovelace"))) == 1
    shown = capsys.readouterr().err
    assert "Ada" not in shown
    assert "Traceback" not in shown
    assert "KeyError in test_cli.py line" in shown
    monkeypatch.setenv("COSILO_DEBUG", "1")
    main(failing(KeyError("Ada Lovelace")))
    assert "Traceback" in capsys.readouterr().err


def test_an_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bnech"]) == 2
    assert "bnech" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["strategies", "defences", "attacks", "objectives", "models"])
def test_everything_that_can_be_named_is_listed(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", kind]) == 0
    assert capsys.readouterr().out.strip()


def test_the_list_of_strategies_says_what_crosses(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "strategies"])
    blocks = {b.split("\n")[0]: b for b in capsys.readouterr().out.split("\n\n")}
    assert "sends across: nothing" in blocks["small"]
    assert "sends across: Ask" in blocks["large"]
    assert "needs of the small model: logprobs" in blocks["cascade"]
    assert "calls: a number, optional" in blocks["cascade"]
    assert "that it can be trained" in blocks["distil_labels"]
    assert "    model:" not in blocks["router"]  # what it learns is no option
    assert "what crosses: every question, as the owner put it" in blocks["large"]
    assert "choose it when: " in blocks["zerogen"]


def test_the_list_of_strategies_goes_by_direction(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "strategies"])
    lines = capsys.readouterr().out.splitlines()
    below, above, across = (
        lines.index("FROM THE LARGE MODEL TO THE SMALL ONE"),
        lines.index("WHILE ANSWERING"),
        lines.index("FROM THE SMALL MODEL TO THE LARGE ONE"),
    )
    assert above < lines.index("cascade") < below < lines.index("zerogen") < across
    assert across < lines.index("supericl")
    main(["list", "strategies", "small"])
    assert capsys.readouterr().out.startswith("small\n")


def test_importing_the_command_line_is_light() -> None:
    import subprocess

    code = (
        "import json, sys; from cosilo.cli import make_parser; make_parser();"
        "print(json.dumps([m for m in ('torch', 'sklearn', 'spacy', 'onnxruntime',"
        " 'xllamacpp') if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


def test_no_verb_abbreviates_its_options() -> None:
    assert make_parser().allow_abbrev is False


@pytest.mark.parametrize(
    ("kind", "name", "option"),
    [
        ("defences", "pseudonym", "detectors"),
        ("tasks", "classification", "descriptions"),
        ("tasks", "sql", "databases"),
        ("tasks", "extraction", "fields"),
    ],
)
def test_each_option_is_listed_once_and_on_a_line_of_its_own(
    kind: str, name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", kind, name]) == 0
    said = capsys.readouterr().out
    assert "Options:" not in said
    assert len(re.findall(rf"\b{option}: ", said)) == 1
    assert not re.search(r"\S  +\S", said)


def test_what_is_no_run_says_where_runs_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for wrong in ("nowhere", "."):
        assert main(["report", wrong]) == 2
        assert "`cosilo bench PLAN` makes one" in capsys.readouterr().err
    for name in ("mail", "calls"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.sqlite").touch()
    for wrong, why in (
        ("runs/mial", "there is no such folder"),
        ("runs", "it has no run.sqlite"),
        (".", "it has no run.sqlite"),
    ):
        assert main(["report", wrong]) == 2
        said = capsys.readouterr().err
        assert f"{wrong!r} is not a run: {why}; runs are there: 'runs/calls', 'runs/mail'" in said
