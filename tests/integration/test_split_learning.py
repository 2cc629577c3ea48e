"""A model trained in two hands: benched, bundled, and served to the real client of OpenAI's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.integration.served import served_point, whole_and_pieces

pytest.importorskip("torch")
pytest.importorskip("peft")

import tiny_lm
from cosilo.benchmark.results import opened
from cosilo.cli import main
from made_from_records import all_named

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

PLAN = """
name = "desk"
[attacks]
names = ["verbatim", "words"]
tamper_share = 0
[task]
kind = "text"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[task.options]
max_tokens = 6
[models.small]
kind = "torch"
path = "model"
precision = "float32"
[models.large]
kind = "torch"
path = "model"
precision = "float32"
exposes = "weights"
[models.large.body]
rank = 4
learning_rate = 2e-2
folder = "adapters"
[[points]]
strategy = "split_learning"
layers = 1
rank = 4
learning_rate = 2e-2
epochs = 12
batch = 4
states_up = "int8"
states_down = "int8"
gradients_up = "lowrank:8"
gradients_down = "lowrank:8"
[[points]]
name = "frozen"
strategy = "split_learning"
body = false
rank = 1
batch = 8
noise = 0.3
"""
SAID = "the refund"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    tiny_lm.folder(folder / "model", seed=0, layers=4, scale=3.0)
    for split, size in {"train": 24, "validation": 4, "test": 8}.items():
        rows = [{"text": f"{split} about {i}", "label": SAID} for i in range(size)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "desk.toml").write_text(PLAN)
    with all_named(folder):
        assert main(["bench", str(folder / "desk.toml"), "--yes"]) == 0
    return folder / "runs" / "desk"


def test_it_learns_and_says_what_it_found_and_spent(run: Path) -> None:
    with opened(run) as results:
        points = {point.name: point for point in results.points}
    learned, frozen = points["split_learning"].test, points["frozen"].test
    assert learned["utility"].value > 0.5
    assert frozen["utility"].value == 0.0, "two small steps teach nothing"
    assert "epsilon" not in learned, "without noise nothing is promised"
    assert frozen["epsilon"].value > 2 * 64 / 0.3
    for found in (learned, frozen):
        assert "privacy" not in found, "states are not read as text, so nobody claims a number"


def test_the_client_gets_what_was_learned(run: Path, tmp_path: Path) -> None:
    with served_point(run, "split_learning", tmp_path) as client:
        whole, pieces = whole_and_pieces(client, "test about 77")
    said = whole.choices[0].message.content
    assert "refund" in said
    assert "".join(pieces) == said
    assert sum(map(bool, pieces)) > 1


def test_what_both_sides_kept_of_training_on_a_record_is_deleted_with_it(
    run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run.parent.parent, tmp_path / "desk")
    run = tmp_path / "desk" / "runs" / "desk"
    kept = [tmp_path / "desk" / "adapters", run / "split_learning"]
    assert all(any(f.is_file() for f in folder.rglob("*")) for folder in kept)
    with opened(run) as results:
        learned = results.store.examples(results.task, "train")
    gone = next(each for each in learned if "train about 0" in repr(each.chat))
    (tmp_path / "whom.txt").write_text(gone.id)
    whom = ["--ids", f"@{tmp_path / 'whom.txt'}", "--no-retrain"]
    assert main(["forget", str(run), *whom]) == 0
    assert not [folder for folder in kept if folder.exists()]
    files = [f for f in (tmp_path / "desk").rglob("*") if f.is_file()]
    assert not [f for f in files if b"train about 0" in f.read_bytes()]
