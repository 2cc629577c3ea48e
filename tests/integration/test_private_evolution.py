"""Private evolution through a whole run: noise, ε, membership, report; and again without new noise."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from a_writer import writes
from bag import Bag
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.results import opened
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.cli import main
from cosilo.models.base import models
from cosilo.models.kept.scripted import ScriptedModel
from made_from_records import all_named

PLAN = """
name = "desk"
[attacks]
names = ["nearest_text", "votes"]
tamper_share = 0.0
[task]
kind = "classification"
file = "data.jsonl"
[models.small]
kind = "bag"
[models.large]
kind = "writer"
[[points]]
strategy = "private_evolution"
about = "a message"
epsilon = [4.0, inf]
each = 8
lines = 8
rounds = 2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(models._factories, "bag", Bag)
    monkeypatch.setitem(models._factories, "writer", lambda: ScriptedModel(writes))
    rows = [
        {"text": f"{colour} text about {label} {i}", "label": label}
        for i in range(40)
        for label in ("cat", "dog")
        for colour in ("green", "blue")
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path


def run(folder: Path) -> None:
    store = Store(folder / "run", write=True)
    try:
        outcomes = asyncio.run(Runner(parse_plan(PLAN, folder / "p.toml"), store).run())
    finally:
        store.close()
    assert [o.error for o in outcomes] == [None, None]


def test_a_run_says_what_was_spent_and_how_well_members_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with all_named(folder):
        run(folder)
    with opened(folder / "run") as results:
        private, bare = results.points
    assert private.test["epsilon"].value == pytest.approx(4.0)
    assert "4 of it to prepare" in private.test["epsilon"].note
    assert "epsilon" not in bare.test, "no guarantee is no number"
    for point in (private, bare):
        assert 0 <= point.test["membership"].value <= 1
        assert point.test["membership"].baseline == 0.5
        assert point.test["utility"].value > 0.5
    assert main(["report", str(folder / "run"), "-o", str(folder / "report.html")]) == 0
    capsys.readouterr()
    page = (folder / "report.html").read_text("utf-8")
    assert "synthetic data by private votes" in page
    assert "∞: no guarantee" in page
