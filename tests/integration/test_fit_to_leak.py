"""`cosilo fit --for STRATEGY` on a tiny model: measured, remembered, chosen, and written as a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import tiny_lm
from cosilo.benchmark.leak_limit import cuts, updates
from cosilo.benchmark.leak_limit.candidates import HomeLimits
from cosilo.benchmark.leak_limit.choosing import Fitted, LeakTarget, fit_to_leak
from cosilo.benchmark.plan import parse_plan
from cosilo.cli import main
from cosilo.cli.fit import _share
from cosilo.errors import ConfigError, DataError, ModelError

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

AROUND = """
name = "x"
[task]
kind = "classification"
train = "train.jsonl"
test = "test.jsonl"
[models.large]
kind = "scripted"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_lm.folder(tmp_path_factory.mktemp("model") / "tiny", layers=4, scale=3.0)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ("the", "hello", "world", "refund", "is", "about", "billing", "delivery", "lighthouse")
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    lines = [" ".join(words[(i * k + i // 3) % 9] for k in range(1, 30)) for i in range(30)]
    path.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    return path


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, values in (
        (cuts, {"_NOISE": (0.0, 3.0), "_CODECS": ("int8",), "_RANKS": (2,)}),
        (updates, {"_NOISE": (0.0, 1.0), "_RANKS": (4,), "_STEPS": (2,)}),
    ):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


def fitted(model: Path, text: Path, out: Path, strategy: str, leak: float = 1.0) -> Fitted:
    wanted = LeakTarget(
        model=str(model), strategy=strategy, limits=HomeLimits(10**10, 1e9, leak), out=out,
        text=(text,), count=3, length=12, precisions=("float32",),
    )  # fmt: skip
    return fit_to_leak(wanted, say=lambda _: None)


def by_options(found: Fitted, **options: Any) -> Any:
    (one,) = [c for c in found.candidates if options.items() <= c.options.items()]
    return one


def test_a_cut_leaks_all_without_noise_and_a_deeper_one_with_noise_is_chosen(
    model: Path, text: Path, tmp_path: Path
) -> None:
    found = fitted(model, text, tmp_path, "split_learning", leak=0.9)
    bare = [c for c in found.candidates if "noise" not in c.options]
    assert {c.options["layers"] for c in bare} == {1, 2}
    assert all(c.leak.found == c.leak.of == 33 for c in bare)
    noisy = by_options(found, layers=1, noise=3.0)
    assert noisy.leak.found < noisy.leak.of
    assert noisy.nats > max(c.nats for c in bare)
    assert by_options(found, layers=2, noise=3.0).ms > 0
    assert found.choice is not None
    assert found.choice.options["noise"] == 3.0
    plan = parse_plan(AROUND + found.text, tmp_path / "plan.toml")
    assert plan.points[0].options["layers"] == found.choice.options["layers"]
    assert plan.small.options["precision"] == "float32"


def test_what_was_measured_is_not_measured_again(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fitted(model, text, tmp_path, "split")

    def again(*_: object) -> list[float]:
        raise AssertionError("measured again")

    monkeypatch.setattr(cuts.Cuts, "_leak", again)
    monkeypatch.setattr(cuts.Cuts, "_costs", again)
    assert fitted(model, text, tmp_path, "split").candidates == first.candidates


def test_what_cannot_be_attacked_is_not_chosen(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> list[float]:
        raise ModelError("no")

    monkeypatch.setattr(updates.Updates, "_leak", fails)
    found = fitted(model, text, tmp_path, "federated")
    assert found.choice is None
    assert {c.failed for c in found.candidates} == {"ModelError"}
    assert not (tmp_path / "point.toml").exists()
    monkeypatch.undo()
    assert fitted(model, text, tmp_path, "federated").choice is not None  # a failure is not kept


def test_an_update_hides_in_noise_that_changes_what_it_teaches(
    model: Path, text: Path, tmp_path: Path
) -> None:
    found = fitted(model, text, tmp_path, "federated")
    bare, noisy = found.candidates
    assert bare.leak is not None
    assert noisy.leak is not None
    assert noisy.leak.found <= bare.leak.found
    # Two steps of a tiny model: which noise is drawn differs between processors, and some of it helps.
    assert abs(noisy.nats) > 0.01 > bare.nats == 0.0
    assert bare.leak.base > 0


def test_the_command_says_every_candidate_and_writes_the_point(
    model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", str(model), "--for", "federated", "--out", str(tmp_path), "--text", str(text)]
    code = main([*words, "--memory", "1GB", "--ms-per-step", "60000", "--leak", "100%"])
    said = capsys.readouterr().out
    assert code == 0
    assert "rank=4, steps=2" in said
    assert "chosen" in said
    assert (tmp_path / "point.toml").read_text() in said
    assert main([*words, "--memory", "1kB", "--ms-per-step", "60000", "--leak", "1"]) == 1
    assert "no candidate is within the limits; the nearest" in capsys.readouterr().out


def test_what_is_wrong_is_said_before_anything_is_measured(
    model: Path, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="known are split_learning"):
        fitted(model, text, tmp_path, "cascade")
    short = tmp_path / "short.txt"
    short.write_text("hello world")
    with pytest.raises(DataError, match="give more --text"):
        fitted(model, short, tmp_path, "split")
    for wrong in ("2", "-1", "much", "200%"):
        with pytest.raises(ConfigError, match="--leak must be a share"):
            _share(wrong)
    assert _share("20%") == _share("0.2") == 0.2
