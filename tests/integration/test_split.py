"""A model in two hands: benched, bundled, and served to the real client of OpenAI's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.served import served_point, whole_and_pieces

pytest.importorskip("torch")

import tiny_lm
from cosilo.benchmark.results import opened
from cosilo.cli import main

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
public = "public.jsonl"
[task.options]
max_tokens = 6
[models.small]
kind = "torch"
path = "large"
precision = "float32"
[models.large]
kind = "torch"
path = "large"
precision = "float32"
exposes = "activations"
[[points]]
strategy = "split"
layers = 1
noise = 0.2
denoise = 8
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    tiny_lm.folder(folder / "large", seed=0, scale=5.0)
    for split, size in {"train": 12, "validation": 2, "test": 2, "public": 8}.items():
        rows = [{"text": f"{split} about {i}", "label": "the refund"} for i in range(size)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "desk.toml").write_text(PLAN)
    assert main(["bench", str(folder / "desk.toml"), "--yes"]) == 0
    return folder / "runs" / "desk"


def test_it_is_measured_and_says_what_it_spent(run: Path) -> None:
    with opened(run) as results:
        (point,) = results.points
    assert point.test["utility"].n == 2
    assert point.test["epsilon"].value > 2 * 64 / 0.2
    assert point.test["bytes_up"].value > 6 * 2 * 64
    assert "privacy" not in point.test, "states are not read as text, so nobody claims a number"


def test_the_client_gets_the_reply_token_by_token(run: Path, tmp_path: Path) -> None:
    with served_point(run, "split", tmp_path) as client:
        whole, pieces = whole_and_pieces(client, "about 7")
    said = whole.choices[0].message.content
    assert said
    assert "".join(pieces) == said, "the noise is the same for the same text"
    assert sum(map(bool, pieces)) > 1
