"""Strategies that go token by token: benched, bundled, and served to the real client."""

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
names = ["output_layer", "surrogate"]
tamper_share = 0
[task]
kind = "text"
train = "train.jsonl"
tune = "tune.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[task.options]
max_tokens = 6
[task.columns]
id = "id"
[models.small]
kind = "torch"
path = "small"
precision = "float32"
epochs = 20
learning_rate = 0.02
[models.large]
kind = "torch"
path = "large"
precision = "float32"
exposes = "logits"
"""
POINTS = {
    "proxy": '[[points]]\nstrategy = "proxy"\n',
    "offset": (
        '[[points]]\nstrategy = "offset"\nforget = "gone.txt"\nepochs = 20\nbatch = 2\n'
        "learning_rate = 0.0001\n"
    ),
    "fusion": '[[points]]\nstrategy = "fusion"\n',
    "defer": '[[points]]\nname = "defer"\nstrategy = "fusion"\nrule = "defer"\n',
    "bytes": '[[points]]\nname = "bytes"\nstrategy = "proxy"\nby = "bytes"\n',
    "speculative": '[[points]]\nstrategy = "speculative"\nanyway = true\n',
}


MESSAGES = [
    {"role": "system", "content": "Answer the user."},
    {"role": "user", "content": "about 7"},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    tiny_lm.folder(folder / "large", seed=0, scale=5.0)
    tiny_lm.folder(folder / "small", seed=1, scale=5.0, layers=1)
    for split, size in {"train": 12, "tune": 3, "validation": 2, "test": 2}.items():
        rows = [
            {
                "id": f"{split}-{i}",
                "text": f"{split} about {i}",
                "label": ("the refund", "billing about", "hello world")[i % 3],
            }
            for i in range(size)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "gone.txt").write_text("train-0\n")
    (folder / "desk.toml").write_text(PLAN + "".join(POINTS.values()))
    assert main(["bench", str(folder / "desk.toml"), "--yes"]) == 0
    return folder / "runs" / "desk"


def test_points_are_measured(run: Path) -> None:
    with opened(run) as results:
        points = {p.name: p for p in results.points}
    assert points.keys() == POINTS.keys()
    for point in points.values():
        assert point.test["utility"].n == 2
        if point.name != "speculative":  # which gets text and nothing else
            assert point.test["output_layer"].n  # what the large model's owner shows is looked at


@pytest.mark.parametrize("point", ["proxy", "offset", "fusion", "speculative"])
def test_the_client_gets_the_reply_token_by_token(run: Path, tmp_path: Path, point: str) -> None:
    with served_point(run, point, tmp_path) as client:
        whole, pieces = whole_and_pieces(client, MESSAGES)
    said = whole.choices[0].message.content
    assert said
    assert "".join(pieces) == said
    assert sum(map(bool, pieces)) > 1
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 6
