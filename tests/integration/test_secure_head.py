"""A plan with a private head on encrypted vectors, from the run to the client of a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.served import served_point, whole_and_pieces

from cosilo.benchmark.results import opened
from cosilo.cli import main
from cosilo.models.encoder.allowance import Allowance
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import Encoder
from cosilo.models.encoder.head import TrainedHead
from cosilo.types import Demonstration, user
from made_from_records import all_named
from private_heads import needs_tenseal

TEXTS = {
    "card": ("my card was stolen", "block the card please", "the card does not work", "a new card"),
    "loan": ("can I borrow money", "the rate of a loan", "repay my loan", "a loan for a house"),
    "cash": ("the machine gave no cash", "draw cash abroad", "cash was missing", "fee for cash"),
}
PLAN = """
name = "desk"
[attacks]
names = ["verbatim"]
tamper_share = 0
[task]
kind = "classification"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[task.columns]
secrets = "secrets"
[models.small]
kind = "classifier"
train = true
[models.large]
kind = "private_head"
head = "head"
allowance = 60
answers = "answers.sqlite"
exposes = ["text", "head"]
usd_per_gb = 0.09
[[points]]
strategy = "large"
[[points]]
strategy = "secure_head"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    examples = [
        Demonstration(f"{label} {i}", user(text), label)
        for label, texts in TEXTS.items()
        for i, text in enumerate(texts)
    ]
    encoder = Encoder()
    ClassifierModel(encoder, features="embedding").fit(examples).save(tmp_path / "head")
    encoder.close()
    for split, times in {"train": 3, "validation": 1, "test": 1}.items():
        rows = []
        for label, texts in TEXTS.items():
            for text in texts * times:
                name = f"{split.title()}{len(rows):03} Kowalczyk"
                rows.append({"text": f"{text}. {name}", "label": label, "secrets": [name]})
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "desk.toml").write_text(PLAN)
    return tmp_path


@needs_tenseal
@pytest.mark.models("minilm-int8")
@pytest.mark.timeout(600)
def test_a_plan_is_benched_and_the_point_served(folder: Path, tmp_path: Path) -> None:
    with all_named(folder, "answers.sqlite*"):  # the count of the LM owner
        assert main(["bench", str(folder / "desk.toml"), "--yes"]) == 0
    run = folder / "runs" / "desk"
    with opened(run) as results:
        clear, secure = results.points
    assert secure.test["utility"].value == clear.test["utility"].value
    assert secure.test["privacy"].value == 0, "what crosses says nothing of the texts"
    assert clear.test["privacy"].value > 0
    assert 300_000 < secure.test["bytes_up"].value + secure.test["bytes_down"].value < 600_000
    assert secure.test["usd_per_1k"].value > clear.test["usd_per_1k"].value > 0

    head = TrainedHead.load(folder / "head")
    counted = Allowance(folder / "answers.sqlite", head.digest(), 60)
    left = counted.left("")
    assert 0 < left <= 60 - 24, (
        "each item of validation and test, and those that preparing asks about"
    )
    with served_point(run, "secure_head", tmp_path) as client:
        whole, pieces = whole_and_pieces(client, "somebody has stolen my card")
    assert whole.choices[0].message.content == "card"
    assert "".join(pieces) == "card"
    assert counted.left("") == left - 2, "a gateway is the same client as the run"
