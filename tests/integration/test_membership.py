"""Who counts as a member in a whole run: what was sent, or what the model was given to learn from."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from bag import Bag
from cosilo.benchmark.measure import load_run
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.results import opened
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.models.base import models
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.base import Run
from cosilo.objectives.scoring import learned_by, members_of

WORDS = [f"w{i}" for i in range(400)]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, small: str, point: str) -> tuple[Run, float]:
    """The test split of a run of 300 texts, and how well its members are told from the items."""
    monkeypatch.setitem(models._factories, "bag", Bag)
    said = {"about a": "a", "about b": "b"}
    monkeypatch.setitem(models._factories, "lm", lambda: ScriptedModel(said))
    rng = random.Random(0)
    rows = [
        f"{' '.join(rng.sample(WORDS, 12))} about {'ab'[i % 2]},{'ab'[i % 2]}" for i in range(300)
    ]
    (folder / "d.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    text = f"""
        name = "x"
        [attacks]
        names = ["nearest_text", "loss"]
        published = true
        tamper_share = 0.0
        [task]
        kind = "classification"
        file = "d.csv"
        [models.small]
        kind = "bag"
        {small}
        [models.large]
        kind = "lm"
        [[points]]
        {point}
    """
    plan = parse_plan(text, folder / "p.toml")
    store = Store(folder / "run", write=True)
    try:
        (outcome,) = asyncio.run(Runner(plan, store).run())
    finally:
        store.close()
    assert outcome.error is None
    with opened(folder / "run") as results:
        trial = results.trials[outcome.point.name]
        found = load_run(results.plan, results.store, results.task, trial, "test")
        assert "model_membership" in results.points[0].test
        return found, results.points[0].test["membership"].value


@pytest.mark.parametrize("train_items", [1, 60, 100])
def test_all_that_was_labelled_by_the_lm_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train_items: int
) -> None:
    """However few of the training texts that is."""
    found, area = run(
        tmp_path, monkeypatch, f"train_items = {train_items}", 'strategy = "distil_labels"'
    )
    assert area > 0.99
    assert len(found.members) == train_items


def test_what_tuning_asks_about_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, area = run(tmp_path, monkeypatch, "train = true", 'strategy = "cascade"')
    assert area > 0.99


def test_a_model_that_is_given_away_is_attacked_about_what_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = run(
        tmp_path,
        monkeypatch,
        "train_items = 40",
        'strategy = "distil_labels"\nitems = 25\ngold = false',
    )
    assert len(found.learned) == 25
    assert learned_by(found) == found.learned == members_of(found)
    assert not found.learned & found.members, "those with gold targets were given to nobody"
