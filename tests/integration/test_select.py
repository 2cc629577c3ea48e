"""`cosilo select`: the exit code is the verdict, limits are numbers that can be, and a defended point
is never passed over in silence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cosilo.cli import main
from tiny_run import PLAN, bench, write_data

TWINS = '[[points]]\nstrategy = "large"\ndefences = ["patterns"]\n'
DEFENCE = '[defences.patterns]\nkind = "pseudonym"\ndetectors = ["patterns"]\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    plan = PLAN + TWINS + DEFENCE
    write_data(folder, plan, count=240)
    outcomes, _ = bench(folder, plan)
    assert [o.error for o in outcomes] == [None] * 3
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made" / "run"


@pytest.mark.parametrize(
    ("limits", "code", "says"),
    [
        (["--at-least", "utility=80%", "--limit", "calls=1"], 0, "confidence: large has"),
        (["--limit", "privacy=0.4"], 0, "confidence: small has"),
        (["--limit", "privacy=40 %"], 0, "privacy ≤ 40 %"),
        (["--limit", "privacy=0.001"], 5, "certificate items would be needed"),
        (["--limit", "privacy=0.02", "--at-least", "utility=99%"], 5, "o point can be certified"),
        (["--limit", "tokens_in=5000"], 5, "measured, not certified"),
        ([], 0, "calls ≤ 100 %"),
    ],
)
def test_the_exit_code_says_whether_a_point_is_certified(
    run: Path, capsys: pytest.CaptureFixture[str], limits: list[str], code: int, says: str
) -> None:
    assert main(["select", str(run), *limits]) == code
    out = " ".join(capsys.readouterr().out.split())
    assert says in out
    assert "calibration items" not in out
    assert main(["select", str(run), *limits, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["sentence"]


@pytest.mark.parametrize(
    "limit",
    [
        "--limit privacy=500%", "--limit privacy=5", "--limit privacy=-0.1", "--limit privacy=nan",
        "--limit usd_per_1k=-1", "--limit usd_per_1k=inf", "--limit usd_per_1k=5%",
        "--limit tokens_in=-3", "--limit integrity=1.5", "--limit exposure=2", "--limit privacy=%",
        "--at-least utility=1.5", "--at-least utility=-1%", "--at-least utility=5%%",
    ],
)  # fmt: skip
def test_a_limit_that_a_quantity_cannot_be_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], limit: str
) -> None:
    flag, value = limit.split(" ")
    for verb in ("select", "report"):
        assert main([verb, str(run), flag, value]) == 2
        assert repr(value) in capsys.readouterr().err


def test_a_defended_twin_is_never_passed_over_in_silence(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["select", str(run), "--at-least", "utility=0.5"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "confidence: large has utility" in out
    assert "large+patterns keeps the limits too; large was chosen for its utility" in out
    # The order of testing stops before it.
    assert main(["select", str(run), "--at-least", "utility=0.999"]) == 5
    out = " ".join(capsys.readouterr().out.split())
    assert "large+patterns was not tested: testing stopped at large, the first that" in out
    assert main(["select", str(run), "--limit", "calls=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed_over"]
    assert main(["report", str(run)]) == 0
    assert "With a defence more" in (run / "report.html").read_text()
