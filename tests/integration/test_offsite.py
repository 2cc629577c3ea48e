"""A plan tunes an LM through its emulator; its bundle is served to the real client of OpenAI's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from tests.integration.gateway import MAIN, Process, make_key

pytest.importorskip("torch")

import tiny_lm
from cosilo.benchmark.results import opened
from cosilo.cli import main

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
    assert main(["bundle", str(run), "--point", "offsite", str(tmp_path / "point")]) == 0
    (tmp_path / "cosilo.toml").write_text("[store]\nurl = 'store'\n")
    with served(tmp_path) as client:
        (model,) = [m.id for m in client.models.list() if m.id.startswith("cosilo/")]
        asked = {"model": model, "messages": [{"role": "user", "content": "about 7"}]}
        whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
            if chunk.choices
        ]
    assert whole.choices[0].message.content == "billing"
    assert "".join(pieces) == whole.choices[0].message.content


@contextmanager
def served(folder: Path) -> Iterator[openai.OpenAI]:
    key = make_key(folder, "me")
    serve = [sys.executable, "-c", MAIN, "serve", "point", "--config", "cosilo.toml", "--port", "0"]
    process = Process(serve, cwd=folder)
    try:
        port = process.wait_for(r"at http://[^:]+:(\d+)/v1", seconds=120)[1]
        url = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            yield client
    finally:
        assert process.stop() == 0
