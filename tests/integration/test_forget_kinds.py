"""Canaries in what a run makes with other models and processes, or outside itself: each is found by the
record it was made from, and gone with it."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from tests.integration.gateway import MAIN, Process
from tests.integration.test_forget import (
    PLAN,
    canary,
    forget,
    holding,
    ids_in,
    whom,
    write_rows,
)

from cosilo.cli import main
from cosilo.lineage.artifacts import Artifact, ArtifactKind
from cosilo.lineage.store import Lineage
from cosilo.models.fit import fitting
from cosilo.registry import Loads
from tiny_run import bench

pytestmark = pytest.mark.timeout(300)

WITHOUT_POINTS = PLAN[: PLAN.index("[[points]]")]
WORDS = (
    "river",
    "stone",
    "lamp",
    "window",
    "bread",
    "winter",
    "market",
    "ladder",
    "candle",
    "kettle",
)


def rewritten(number: int) -> str:
    """What the large model makes of a record: other words, and what gives the record away."""
    words = " ".join(random.Random(number).sample(WORDS, 8))
    return f"{words} by the garden gate no. {number:03}"


def derived(run: Path, id: str) -> tuple[Artifact, ...]:
    with Lineage(run, write=False) as lineage:
        return lineage.derived([id])


def benched(home: Path, plan: str) -> Path:
    write_rows(home)
    (home / "p.toml").write_text(plan)
    outcomes, _ = bench(home, plan)
    assert [o.error for o in outcomes if o.error] == []
    return home / "run"


def test_texts_that_a_large_model_made_of_a_record(tmp_path: Path) -> None:
    said = json.dumps({f"no. {i:03}": rewritten(i) for i in range(70)}).replace('": "', '" = "')
    large = '[models.large]\nkind = "scripted"\nreplies = '
    plan, _, after = WITHOUT_POINTS.partition(large)
    point = '[[points]]\nstrategy = "paraphrase"\neach = 1\n'
    home = tmp_path / "home"
    run = benched(home, f"{plan}{large}{said}\n{after.partition(chr(10))[2]}{point}")
    (id,) = ids_in(run, "train")
    kinds = {a.id.rpartition("/")[2]: a.kind for a in derived(run, id)}
    assert kinds["texts"] is ArtifactKind.SYNTHETIC
    before = holding(home, canary(id))
    assert {"run/run.sqlite", "data.csv"} <= {f.removesuffix("-wal") for f in before}
    assert forget(home, id) == 0
    # The plan of this test says what the large model says.
    assert holding(home, canary(id)) - {"p.toml", "run/plan.toml"} == holding(home, id) == set()


def test_heads_that_other_processes_trained_are_noted_as_their_own_are(tmp_path: Path) -> None:
    points = '[[points]]\nstrategy = "small"\n[[points]]\nstrategy = "cascade"\n'
    plan = WITHOUT_POINTS + points
    for name, jobs in (("one", []), ("two", ["--jobs", "2"])):
        write_rows(tmp_path / name)
        (tmp_path / name / "p.toml").write_text(plan)
        command = ["bench", str(tmp_path / name / "p.toml"), "--yes"]
        assert main([*command, "--run", str(tmp_path / name / "run"), *jobs]) == 0
    (id,) = ids_in(tmp_path / "one" / "run", "train")
    alone, apart = (
        {(a.id.rpartition("/")[2], a.kind, a.made_by) for a in derived(tmp_path / n / "run", id)}
        for n in ("one", "two")
    )
    assert ("model", ArtifactKind.HEAD, "cascade") in alone
    assert ("threshold", ArtifactKind.THRESHOLD, "cascade") in alone
    assert {(kind, by) for _, kind, by in alone} == {(kind, by) for _, kind, by in apart}
    home = tmp_path / "two"
    assert forget(home, id) == 0
    assert holding(home, canary(id)) == holding(home, id) == set()


def test_what_cosilo_fit_made_of_a_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, out = tmp_path / "home", tmp_path / "fitted"
    out.mkdir()
    (out / "ours.txt").write_text("was here before")
    run = benched(home, WITHOUT_POINTS + '[[points]]\nstrategy = "small"\n')
    (id,) = ids_in(run, "train")

    def fit(wanted: fitting.FitTarget, **_: object) -> None:
        (wanted.out / "work").mkdir(parents=True)
        (wanted.out / "work" / "found.json").write_text(wanted.text[0].read_text())
        raise KeyboardInterrupt  # what was begun counts, too

    monkeypatch.setattr(fitting, "fit", fit)
    monkeypatch.setattr(fitting, "loads", lambda name: Loads())
    (tmp_path / "large.gguf").write_text("")
    command = ["fit", str(tmp_path / "large.gguf"), "--ms-per-token", "9", "--memory", "1GB"]
    assert main([*command, "--out", str(out), "--text", str(home / "data.csv")]) != 0
    assert holding(out, canary(id))
    assert main(["forget", str(run), "--ids", whom(home, id), "--plan"]) == 0
    assert f"weights in {home} ({out})" in capsys.readouterr().out
    assert forget(home, id) == 0
    assert [path.name for path in out.iterdir()] == ["ours.txt"]
    assert holding(tmp_path, canary(id)) == set()


def test_a_gateway_that_serves_a_bundle_is_ended_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, bundle = tmp_path / "home", tmp_path / "elsewhere" / "bundle"
    run = benched(home, WITHOUT_POINTS + '[[points]]\nstrategy = "small"\n')
    bundle.parent.mkdir()
    assert main(["bundle", str(run), "--point", "small", str(bundle)]) == 0
    (id,) = ids_in(run, "train")
    (home / "cosilo.toml").write_text("[store]\nurl = 'store'\n")
    command = [sys.executable, "-c", MAIN, "serve", str(bundle), "--config", "cosilo.toml"]
    process = Process([*command, "--port", "0"], cwd=home)
    try:
        process.wait_for(r"at http://[^:]+:(\d+)/v1", seconds=120)
        assert main(["forget", str(run), "--ids", whom(home, id), "--plan"]) == 0
        assert "served point" in capsys.readouterr().out
        assert process.child.poll() is None
        assert forget(home, id) == 0
        assert process.child.wait(30) == 0
    finally:
        process.stop()
    assert not bundle.exists()
    certificate = json.loads(next(home.glob("erasure-*.json")).read_text())
    (served,) = [s for s in certificate["steps"] if s.get("kind") == "served point"]
    assert (served["method"], served["state"]) == ("taken down", "done")
    assert holding(tmp_path, canary(id)) == set()
