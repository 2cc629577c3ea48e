"""A plan with joint computations is benched: real engines, a tiny Llama on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from cosilo.benchmark.results import opened
from cosilo.cli import main
from cosilo.engines.spu import environment
from cosilo.models.base import models
from cosilo.models.white_box.lm import TorchModel
from made_from_records import all_named
from secure_llamas import LABELS, adapted, base, with_terms

pytestmark = pytest.mark.skipif(
    environment.found() is None, reason=f"needs the engine's environment: {environment.INSTALL}"
)

PLAN = """
name = "desk"
[attacks]
names = ["verbatim"]
tamper_share = 0
[task]
kind = "classification"
labels = ["refund", "billing", "delivery"]
train = "train.jsonl"
validation = "valid.jsonl"
test = "test.jsonl"
[models.small]
kind = "public_llama"
[models.large]
kind = "private_llama"
exposes = ["text", "joint"]
[[points]]
strategy = "{name}"
lengths = [144]
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["secure_adapter", "secure_forward"])
def test_a_plan_is_benched_and_records_lead_to_all_that_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def private() -> TorchModel:
        if name == "secure_forward":
            return with_terms(base(), tmp_path, tokens=144, whole=True, layers=0)
        return with_terms(adapted(base(), [1]), tmp_path, tokens=144)

    private()  # writes its owner's public text, which is there before the run
    monkeypatch.setitem(models._factories, "public_llama", base)
    monkeypatch.setitem(models._factories, "private_llama", private)
    for split, size in {"train": 18, "valid": 2, "test": 2}.items():
        rows = [{"text": f"{split} {i}", "label": LABELS[i % 3]} for i in range(size)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "desk.toml").write_text(PLAN.format(name=name))
    with all_named(tmp_path):
        assert main(["bench", str(tmp_path / "desk.toml"), "--yes"]) == 0
    with opened(tmp_path / "runs" / "desk") as results:
        (point,) = results.points
    assert point.test["utility"].n == 2
    assert point.test["calls"].value == 1
    assert point.test["exposure"].value == 0, "no text crosses"
