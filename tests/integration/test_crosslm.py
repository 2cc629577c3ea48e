"""A plan has an LM taught to write by a small model's judgement; its bundle is served to OpenAI's real
client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.served import served_point, whole_and_pieces

pytest.importorskip("torch")

import tiny_lm
from cosilo.benchmark.results import opened
from cosilo.cli import main
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.models.white_box.tuning import Tuning
from cosilo.strategies.synthesis import TONES, WantedTexts, question
from cosilo.types import Demonstration
from made_from_records import all_named

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

PLAN = """
name = "desk"
[attacks]
names = ["opinions"]
tamper_share = 0
[task]
kind = "classification"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[models.small]
kind = "torch"
path = "small"
precision = "float32"
epochs = 2
learning_rate = 0.01
[models.large]
kind = "tunable"
path = "large"
precision = "float32"
most_steps = 10
checkpoints = "tuned"
[[points]]
strategy = "crosslm"
each = 24
least = 0.0
steps = 4
batch = 4
rank = 2
"""


def writes(folder: Path) -> None:
    """A model that has learned to write sentences, whatever it is asked."""
    words = tiny_lm.tokenizer()
    module = tiny_lm.module(len(words), seed=0, context=2048)
    how = Tuning(method="full", epochs=12, batch=4, learning_rate=1e-2, validation=0.0)
    model = TorchModel.holding(module, ChatTokens(words), name="writer", tuning=how)
    examples = [
        Demonstration(
            f"{i}",
            question(
                "Labels: refund, billing", of, WantedTexts(each=1, lines=1), tone=TONES[i % 8]
            ),
            f"the {of} is about the hello world {i}",
        )
        for i, of in enumerate(("refund", "billing", "delivery", "world") * 4)
    ]
    model.fit(examples).save(folder)


def test_a_plan_is_measured_and_its_bundle_served(tmp_path: Path) -> None:
    tiny_lm.folder(tmp_path / "small", seed=1)
    writes(tmp_path / "large")
    for split, size in {"train": 24, "validation": 3, "test": 3}.items():
        rows = [
            {"text": f"{split} text {i} is about the world", "label": ("refund", "billing")[i % 2]}
            for i in range(size)
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "desk.toml").write_text(PLAN)
    with all_named(tmp_path):
        assert main(["bench", str(tmp_path / "desk.toml"), "--yes"]) == 0
    with opened(tmp_path / "runs" / "desk") as results:
        (trial,) = [row[0] for row in results.store.rows("SELECT DISTINCT trial FROM cards", ())]
        cards = {card.title: card for card in results.store.cards(trial)}
    judged = cards["texts as the small model judges them"]
    assert judged.facts["worth learning from"] == cards["generated data"].facts["kept"] > 4
    assert list(judged.tables["probability of their label, on average"]) == ["round 0", "round 1"]
    (tmp_path / "out").mkdir()
    with served_point(tmp_path / "runs" / "desk", "crosslm", tmp_path / "out") as client:
        whole, pieces = whole_and_pieces(client, "text 7 is about the world")
    assert whole.choices[0].message.content in ("refund", "billing")
    assert "".join(pieces) == whole.choices[0].message.content
