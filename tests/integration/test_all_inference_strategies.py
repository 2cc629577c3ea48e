"""One small plan with every way of working together while answering: each ends with its row."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("torch")

import tiny_lm
from cosilo.benchmark.results import opened
from cosilo.cli import main
from cosilo.strategies.base import strategies
from cosilo.strategies.guide import guide
from made_from_records import all_named

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

PLAN = """
name = "desk"
[attacks]
names = ["verbatim"]
tamper_share = 0
[task]
kind = "classification"
train = "train.jsonl"
tune = "tune.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
public = "public.jsonl"
[task.columns]
id = "id"
secrets = "secrets"
[models.small]
kind = "torch"
path = "model"
precision = "float32"
epochs = 5
learning_rate = 0.01
[models.large.one]
kind = "torch"
path = "model"
precision = "float32"
exposes = "activations"
[models.large.two]
kind = "scripted"
replies = { about = "refund" }
[models.large.planner]
kind = "scripted"
replies = { about = "SELECT count(*) AS n FROM cards" }
"""
OPTIONS = {
    "small": "",
    "large": "",
    "router": "calls = 0.5",
    "cascade": "calls = 0.5",
    "automix": "calls = 0.5",
    "ensemble": 'peers = ["one", "two"]',
    "rewrite": 'otherwise = "small"\nsearch = 0',
    "sketch": 'otherwise = "small"',
    "decompose": 'planner = "question"',
    "decompose_tables": 'database = "cards.sqlite"\npeers = ["planner"]',
    "retrieve": 'documents = "notes"',
    "infer_dp": "",
    "rerank": 'samples = 2\njudge = "majority"',
    "speculative": "anyway = true\nprobe = 2",
    "fusion": "weight = 0.5",
    "offset": 'forget = "gone.txt"\nmethod = "npo"\nepochs = 20\nlearning_rate = 0.0001\nbatch = 2',
    "proxy": "",
    "split": "layers = 1\nnoise = 0.2\ndenoise = 8",
}
"""Each inference strategy, and what its point needs to be answered by a tiny model on few items."""

ELSEWHERE = {"secure_head", "secure_adapter", "secure_forward"}
"""Those whose models no other can work with: an encoder at home and a head, in test_secure_head.py; a
Llama that takes part in joint runs, in test_secure_llama.py."""

SENDS_NOTHING = ("small",)
NAMES = ("Zbigniew Kowalczyk", "Ada Lovelace", "Carl Bergström")


def test_every_inference_strategy_is_in_the_plan() -> None:
    ours = {name for name in strategies.names() if strategies.get(name).__module__[:7] == "cosilo."}
    answering = {
        name for name in ours if (of := guide(strategies.get(name))) and of.direction == "inference"
    }
    assert answering - ELSEWHERE == OPTIONS.keys(), "give each strategy a line in OPTIONS"


def test_one_plan_with_all_of_them_ends_with_a_row_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_lm.folder(tmp_path / "model", seed=0, scale=5.0, context=4096)
    (tmp_path / "gone.txt").write_text("train-0\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text(
        "The lift is late. " * 20 + "A card that is lost is blocked."
    )
    with closing(sqlite3.connect(tmp_path / "cards.sqlite")) as database:
        database.execute("CREATE TABLE cards (holder TEXT, lost INTEGER)")
        database.executemany("INSERT INTO cards VALUES (?, 1)", [(name,) for name in NAMES])
        database.commit()
    for split, size in {"train": 16, "tune": 20, "validation": 2, "test": 2, "public": 8}.items():
        rows = [
            {
                "id": f"{split}-{i}",
                "text": f"{split} about {i}: {NAMES[i % 3]} lost a card",
                "label": ("refund", "billing")[i % 2],
                "secrets": [{"type": "person", "value": NAMES[i % 3]}],
            }
            for i in range(size)
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    points = [f'[[points]]\nstrategy = "{name}"\n{options}\n' for name, options in OPTIONS.items()]
    (tmp_path / "desk.toml").write_text(PLAN + "".join(points))
    with all_named(tmp_path, ".cosilo/retrieve.sqlite*"):  # of documents, not of records
        assert main(["bench", "desk.toml", "--yes"]) == 0
    said = capsys.readouterr()
    for out in said:
        assert "no numbers:" not in out
        assert not any(name in out for name in NAMES), "no private text is printed"
    with opened(tmp_path / "runs" / "desk") as results:
        found = {point.name: point.test for point in results.points}
    assert found.keys() == OPTIONS.keys()
    for name, measured in found.items():
        assert measured["utility"].n == 2, name
        assert measured["usd_per_1k"].n == 2, name
    for name in SENDS_NOTHING:
        assert found[name]["calls"].value == 0
    assert found["decompose_tables"]["entity_leak"].value == 0
    assert found["rewrite"]["entity_leak"].value == 0
    assert found["sketch"]["entity_leak"].value == 0
    assert found["large"]["entity_leak"].value == 1
