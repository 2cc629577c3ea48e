"""A plan tunes an LM through its emulator; its bundle is served to the real client of OpenAI's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.served import served_point, whole_and_pieces

pytest.importorskip("torch")

import tiny_lm
from cosilo.benchmark.results import opened
from cosilo.cli import main
from made_from_records import all_named

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

PLAN = """
name = "desk"
[attacks]
names = ["verbatim"]
tamper_share = 0
[task]
kind = "classification"
labels = ["the refund", "billing", "delivery"]
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[models.small]
kind = "torch"
path = "large"
precision = "float32"
[models.large]
kind = "lending"
path = "large"
precision = "float32"
exposes = ["text", "emulator"]
ends = 1
depth = 1
steps = 2
length = 16
least_gap = -100
text = "public.txt"
[[points]]
strategy = "offsite"
rank = 4
steps = 30
batch = 4
learning_rate = 0.01
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    tiny_lm.folder(folder / "large", seed=0, layers=4, scale=3.0)
    for split, size in {"train": 40, "validation": 3, "test": 3}.items():
        rows = [{"text": f"{split} about {i}", "label": "billing"} for i in range(size)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = (f"the hello world is about {i} and {i % 7}" for i in range(60))
    (folder / "public.txt").write_text("\n".join(lines))
    (folder / "desk.toml").write_text(PLAN)
    with all_named(folder):
        assert main(["bench", str(folder / "desk.toml"), "--yes"]) == 0
    return folder / "runs" / "desk"


def test_it_is_measured_and_says_what_it_found(run: Path) -> None:
    with opened(run) as results:
        (point,) = results.points
        (trial,) = [row[0] for row in results.store.rows("SELECT DISTINCT trial FROM cards", ())]
        (card,) = results.store.cards(trial)
    assert point.test["utility"].n == 3
    grades = card.tables["grade on the tune items"]
    assert grades["plugged in"] > grades["large model as it was"]
    assert card.facts["the large model answers"] == "with what was tuned"


def test_the_client_is_answered_with_what_was_tuned(run: Path, tmp_path: Path) -> None:
    with served_point(run, "offsite", tmp_path) as client:
        whole, pieces = whole_and_pieces(client, "about 7")
    assert whole.choices[0].message.content == "billing"
    assert "".join(pieces) == whole.choices[0].message.content
