"""What does not fit together in a plan is refused before anything is paid, or told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from cosilo.benchmark.advice import require_taught
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.progress import Silent
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.errors import CapabilityError, ConfigError, RejectedError
from cosilo.models.base import Array, models
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.strategies.base import strategies
from cosilo.types import Chat, Demonstration, Generation, Sampling, TokenLogprob

LABELS = ("billing", "delivery", "account")
FEW = 5  # training items among which all three labels occur


@dataclass
class Counting(ScriptedModel):
    """Says the first label it was taught."""

    labels: tuple[str, ...] = ()

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> Counting:
        return Counting(labels=tuple(sorted({e.target for e in examples})))

    def probabilities(self, texts: Sequence[str]) -> Array:
        return np.full((len(texts), len(self.labels)), 1 / len(self.labels), np.float32)

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        if not self.labels:
            raise RejectedError("the classifier is not trained")
        return Generation(self.labels[0], tokens=(TokenLogprob(self.labels[0], -0.7),))


@dataclass
class Asked(ScriptedModel):
    calls: list[Chat] = field(default_factory=list)


ASKED = Asked(name="asked")


@pytest.fixture(autouse=True, scope="module")
def kinds() -> None:
    if "counting" not in models.names():
        models.register("counting")(Counting)
        models.register("asked")(lambda: ASKED)


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def notes(folder: Path, points: str, small: str = "train = true", kind: str = "") -> list[str]:
    rows = [{"text": f"message {i}", "label": LABELS[(i // 2) % 3]} for i in range(150)]
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = (
        f'name = "p"\n[task]\nkind = "{kind or "classification"}"\nfile = "d.jsonl"\n'
        f'[models.small]\nkind = "counting"\n{small}\n[models.large]\nkind = "asked"\n{points}'
    )
    noting = Noting()
    store = Store(folder / "run", write=True)
    ASKED.seen.clear()
    try:
        plan = parse_plan(text, folder / "p.toml")
        asyncio.run(Runner(plan, store, reports=noting).expected())
    finally:
        store.close()
    return noting.notes


def point(strategy: str, more: str = "") -> str:
    return f'[[points]]\nstrategy = "{strategy}"\n{more}\n'


@pytest.mark.parametrize(
    "points", [point("small"), point("cascade", "calls = 0.5"), point("router"), point("supericl")]
)
def test_a_classifier_that_nobody_teaches_is_refused_before_anything_is_paid(
    tmp_path: Path, points: str
) -> None:
    with pytest.raises(CapabilityError, match=r"set train = true in \[models.small\]"):
        notes(tmp_path, point("large") + points, small="")
    assert not ASKED.seen


def test_a_strategy_that_teaches_it_and_one_that_does_not_need_it_may_go_on(tmp_path: Path) -> None:
    assert notes(tmp_path, point("large") + point("distil_labels"), small="") == []


def test_what_was_taught_says_nothing(tmp_path: Path) -> None:
    assert notes(tmp_path, point("small")) == []


@pytest.mark.parametrize("kind", ["text"])
def test_a_classifier_for_free_text_is_told(tmp_path: Path, kind: str) -> None:
    (note,) = notes(tmp_path, point("small"), kind=kind)
    assert f"a {kind!r} task has no labels" in note


@pytest.mark.parametrize(
    ("items", "words"), [(1, "hold 1 of the 3 labels"), (FEW, "fewer than two")]
)
def test_too_few_training_items_are_told(tmp_path: Path, items: int, words: str) -> None:
    (note,) = notes(tmp_path, point("small"), small=f"train = true\ntrain_items = {items}")
    assert words in note
    assert f"train_items = {items}" in note


@pytest.mark.parametrize("items", [0, -1, -5])
def test_a_number_of_training_items_that_is_none_is_refused(tmp_path: Path, items: int) -> None:
    with pytest.raises(ConfigError, match=f"train_items = {items} is not positive"):
        notes(tmp_path, point("small"), small=f"train = true\ntrain_items = {items}")


@pytest.mark.parametrize("strategy", ["large", "ensemble", "secure_head"])
def test_what_asks_no_small_model_needs_none_that_was_taught(strategy: str) -> None:
    owner = DataOwner(Counting())
    require_taught(owner, strategies.create(strategy), by="point")
    with pytest.raises(CapabilityError, match="has learned nothing"):
        require_taught(owner, strategies.create("small"), by="point")
