"""Strategies whose messages are made unreadable at home, served to the real client of OpenAI's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.integration.gateway import Gateway, Mock, mocking, serving, upstream

from cosilo.benchmark.results import opened
from cosilo.cli import main

NAMES = ("Zbigniew Kowalczyk", "Ada Lovelace", "Carl Bergström")
SECRET = "Zbigniew Kowalczyk lost card 4711 in Gdansk"


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with mocking() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(mock: Mock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = upstream("lm", mock, "echo") + (
        '[models.sm]\nkind = "scripted"\nreplies = {Kowalczyk = "block the card"}\n'
        '[defences.words]\nkind = "text_dp"\nmechanism = "custext"\nepsilon = 4.0\nwords = 200\n'
        '[[points]]\nname = "infer"\nstrategy = "infer_dp"\nlarge = "lm"\nsmall = "sm"\n'
        'defences = ["words"]\n'
    )
    with serving(tmp_path_factory.mktemp("gateway"), config) as found:
        yield found


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url, api_key=gateway.key(), max_retries=0) as made:
        yield made


def asked(client: openai.OpenAI, **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": SECRET}]
    return client.chat.completions.create(model="cosilo/infer", messages=messages, **fields)


@pytest.mark.models("minilm-int8")
def test_a_client_gets_the_small_models_answer_and_the_large_one_reads_other_words(
    client: openai.OpenAI, mock: Mock
) -> None:
    mock.reset()
    assert asked(client).choices[0].message.content == "block the card"
    chunks = list(asked(client, stream=True, stream_options={"include_usage": True}))
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == "block the card"
    assert len(pieces) > 2
    assert chunks[-1].cosilo["by"] == "both"
    first, again = map(json.loads, mock.seen()["bodies"])
    assert first["messages"] == again["messages"], "the same text says the same again"
    (message,) = first["messages"]
    assert len(message["content"].split()) == len(SECRET.split())
    for word in ("zbigniew", "kowalczyk", "4711", "gdansk"):
        assert word not in message["content"].split()


PLAN = """
name = "desk"
[attacks]
names = ["verbatim", "words"]
tamper_share = 0
[task]
kind = "classification"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[task.columns]
secrets = "secrets"
[models.small]
kind = "scripted"
replies = { about = "refund" }
[models.large]
kind = "scripted"
name = "lm"
[defences.text_dp]
mechanism = "custext"
words = 200
[[points]]
strategy = "infer_dp"
defences = ["text_dp"]
"""


@pytest.mark.models("minilm-int8")
def test_it_is_benched_and_the_attack_on_words_is_made(tmp_path: Path) -> None:
    for split, size in {"train": 24, "validation": 6, "test": 6}.items():
        rows = [
            {
                "text": f"{split} about {i}: {NAMES[i % 3]} lost a card",
                "label": ("refund", "billing")[i % 2],
                "secrets": [{"type": "person", "value": NAMES[i % 3]}],
            }
            for i in range(size)
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "desk.toml").write_text(PLAN)
    assert main(["bench", str(tmp_path / "desk.toml"), "--yes"]) == 0
    with opened(tmp_path / "runs" / "desk") as results:
        (point,) = results.points
    assert point.test["utility"].n == 6
    assert point.test["epsilon"].value > 6.0 * 6  # ε a word, six words and more
    assert point.test["entity_leak"].value == 0
    assert point.test["privacy"].n == 6
