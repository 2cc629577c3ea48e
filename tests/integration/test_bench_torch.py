"""Benches whose small model learns from the large one's logits, with tiny models in this process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

import tiny_lm
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.progress import Silent
from cosilo.benchmark.reopen import reopen
from cosilo.benchmark.results import opened
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.boundary.meter import Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import CosiloError
from cosilo.gateway.serving.breaker import Breaker
from cosilo.gateway.serving.points import Recipe, open_recipe
from cosilo.gateway.serving.upstreams import Upstream
from cosilo.models.base import Access
from cosilo.selection import Point
from cosilo.types import user
from house import open_tab
from made_from_records import all_named

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

PLAN = """
name = "desk"
[attacks]
names = ["output_layer", "loss", "min_k"]
published = true
tamper_share = 0
[task]
kind = "classification"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[models.small]
kind = "torch"
path = "small"
[models.large]
kind = "torch"
path = "large"
exposes = "logits"
usd_per_m_in = 1.0
[[points]]
strategy = "distil_logits"
steps = 40
batch = 4
learning_rate = 0.01
on_policy = 0.1
k = 8
[[points]]
strategy = "distil_across"
steps = 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    tiny_lm.folder(folder / "large", seed=0)
    tiny_lm.folder(folder / "small", seed=1)
    for split, size in {"train": 12, "validation": 4, "test": 16}.items():
        rows = [
            {"text": f"{split} about {i}", "label": ("refund", "billing")[i % 2]}
            for i in range(size)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def bench(folder: Path, run: str, text: str) -> tuple[list[Point], int]:
    """The points' results, and the messages that were paid for."""
    store = Store(folder / run, write=True)
    try:
        plan = parse_plan(text, folder / "plan.toml")
        outcomes = asyncio.run(Runner(plan, store, reports=Silent()).run())
        paid = store.paid().messages
    finally:
        store.close()
    assert [o.error for o in outcomes] == [None] * len(outcomes)
    with opened(folder / run) as results:
        return list(results.points), paid


def test_what_was_scored_is_measured_and_not_paid_for_again(folder: Path) -> None:
    with all_named(folder):
        points, paid = bench(folder, "run", PLAN)
    for point in points:
        assert point.test["utility"].n == 16
        assert point.test["calls"].value == 0  # after training the small model answers alone
        assert point.test["output_layer"].value == 1  # logits give the teacher's width away
        assert point.test["prepare_usd"].value > 0
        remembered = point.test["model_membership"]
        assert 16 < remembered.n <= 16 + 12  # what it was not trained on, and what it was
        # the same attack on the model before training, which tells these few texts apart, too
        assert remembered.baseline is not None
        assert 0 < remembered.baseline <= remembered.value
    # A reply to each training item, their scores by eight for the one and for the other, and which
    # vocabulary it is.
    assert paid >= 12 + 2 + 2 + 1
    # A new run trains again, and the LM has nothing to read again: not even what the small one wrote.
    recorded = '\n[replay]\npath = "run/replay.sqlite"\n[[points]]'
    again, more = bench(folder, "again", PLAN.replace("\n[[points]]", recorded, 1))
    assert more == 0
    assert [p.test["utility"].value for p in again] == [p.test["utility"].value for p in points]


def test_such_a_point_is_served_from_what_was_recorded(folder: Path) -> None:
    points, _ = bench(folder, "run", PLAN)  # as the test above left it, or made now

    async def opened_again() -> str:
        run = reopen(folder / "run", [points[0].name])
        recipe = Recipe(
            config=run.points[0], owner=run.owner, upstreams=("large",), answers=run.recorded,
            sampling=run.task.sampling, system=run.system,
        )  # fmt: skip
        upstream = Upstream(
            "large", run.peers["large"], Access.LOGITS.shows, Price(), Breaker("large", None)
        )
        point = await open_recipe(
            recipe, {"large": upstream}, tabs={"": open_tab()}, ledger=MemoryLedger()
        )
        route = point.routes[0]
        reply = await route.strategy.answer(route.session, user("about 1"))
        await run.owner.model.close()
        await run.recorded["large"].close()
        return reply.generation.text

    assert asyncio.run(opened_again()) in ("refund", "billing")


STATES = """
name = "desk"
[attacks]
tamper_share = 0
[task]
kind = "classification"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[models.small]
kind = "classifier"
features = "embedding"
train = true
train_items = 6
[models.large]
kind = "torch"
path = "large"
exposes = "activations"
usd_per_m_in = 1.0
[[points]]
strategy = "distil_states"
"""


@pytest.mark.models("minilm-int8")
def test_states_of_a_pool_are_read_once_and_teach_the_small_model(folder: Path) -> None:
    with all_named(folder):
        (point,), paid = bench(folder, "states", STATES)
    assert point.test["utility"].n == 16
    assert point.test["calls"].value == 0
    assert point.test["prepare_usd"].value > 0
    assert 0 < point.test["prepare_bytes_up"].value < 12 * 120  # twelve texts in their frames
    assert paid >= 1  # the states in one message, and what the pace was measured by
    recorded = '\n[replay]\npath = "states/replay.sqlite"\n[[points]]'
    (again,), more = bench(folder, "states2", STATES.replace("\n[[points]]", recorded, 1))
    assert more == 0
    assert again.test["utility"].value == point.test["utility"].value


def test_an_owner_that_shows_too_little_is_refused_before_anything_is_read(folder: Path) -> None:
    text = STATES.replace('"activations"', '"logits"')
    with pytest.raises(CosiloError, match="needs states"):
        bench(folder, "refused", text)
