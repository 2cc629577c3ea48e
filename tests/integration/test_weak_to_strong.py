"""A plan has an LM tuned on the small model's labels; its bundle is served to OpenAI's real client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.hosts import CLIENT, HostProcess, the_way, write_host
from tests.integration.served import served_point, whole_and_pieces

pytest.importorskip("torch")

import taught
import tiny_lm
from cosilo.benchmark.results import opened
from cosilo.boundary.messages import Ask
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.cli import main
from cosilo.errors import UnknownAdapterError
from cosilo.parties.remote import RemoteOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import user
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
train = true
train_items = 16
learning_rate = 0.01
epochs = 24
[models.large]
kind = "tunable"
path = "large"
precision = "float32"
checkpoints = "tuned"
[[points]]
strategy = "weak_to_strong"
rank = 4
steps = 30
batch = 4
learning_rate = 0.01
"""

MODEL = """\
kind = "tunable"
path = "model"
precision = "float32"
checkpoints = "tuned"
[clients.other]"""


def test_a_plan_is_measured_and_its_bundle_served(tmp_path: Path) -> None:
    tiny_lm.folder(tmp_path / "large", seed=0, layers=4, scale=3.0)
    for split, size in {"train": 56, "validation": 3, "test": 3}.items():
        rows = [
            {"text": f"{split} about {i}" if i % 2 else f"hello world {i}", "label": label(i)}
            for i in range(size)
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "desk.toml").write_text(PLAN)
    with all_named(tmp_path):
        assert main(["bench", str(tmp_path / "desk.toml"), "--yes"]) == 0
    with opened(tmp_path / "runs" / "desk") as results:
        (trial,) = [row[0] for row in results.store.rows("SELECT DISTINCT trial FROM cards", ())]
        cards = {card.by: card for card in results.store.cards(trial)}
    card = cards["weak_to_strong"]
    assert card.facts["left out, the small model had learned from them"] == 0
    assert card.facts["the large model answers"] == "as tuned"
    (tmp_path / "out").mkdir()
    with served_point(tmp_path / "runs" / "desk", "weak_to_strong", tmp_path / "out") as client:
        whole, pieces = whole_and_pieces(client, "hello world 8")
    assert whole.choices[0].message.content == "billing", "untuned, it says 'delivery'"
    assert "".join(pieces) == whole.choices[0].message.content


def label(i: int) -> str:
    return "the refund" if i % 2 else "billing"


async def test_what_was_tuned_is_one_clients_and_outlives_its_host(tmp_path: Path) -> None:
    tiny_lm.folder(tmp_path / "model", seed=0, layers=4, scale=3.0)
    options = taught.OPTIONS | {"soft": False, "steps": 20}
    strategy, ledger = strategies.create("weak_to_strong", **options), MemoryLedger()
    host = HostProcess(write_host(tmp_path, model=MODEL))
    try:
        port = host.port
        near, other = (
            RemoteOwner(the_way(tmp_path, port, client=name), "lm-owner", f"party/{name}")
            for name in (CLIENT, "other")
        )
        session = open_session(
            taught.owner(), near, strategy, sampling=taught.SAMPLING, ledger=ledger
        )
        strong, session = await strategy.prepare(session)
        name = strong.sent.name  # type: ignore[attr-defined]
        assert name, "it is better than the model was"
        before = (await strong.answer(session.bind("a"), user("about 7"))).text
        sent = len(list(ledger.entries()))
        host.kill()
        host = HostProcess(write_host(tmp_path, model=MODEL, port=port))
        assert (await strong.answer(session.bind("b"), user("about 7"))).text == before
        assert len(list(ledger.entries())) == sent + 2, "nothing was tuned again"
        with pytest.raises(UnknownAdapterError):
            await other.handle(Ask(chat=user("about 7"), sampling=taught.SAMPLING, adapter=name))
        await other.close()
        await near.close()
    finally:
        host.kill()
