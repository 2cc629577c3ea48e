"""docs/strategies.md's recipe: an owner federates an expert with a host, whose LM is steered by it; the
bundle is served to the real client of OpenAI's."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.integration.hosts import HostProcess, write_host
from tests.integration.served import served_point, whole_and_pieces

import tiny_lm
from cosilo.bundle import read_bundle
from cosilo.cli import main

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

ROOT = Path(__file__).parents[2]
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
[models.small]
kind = "torch"
path = "small"
precision = "float32"
[models.large]
kind = "party"
url = "https://localhost:{port}"
ca = "certs/ca.pem"
cert = "certs/client-clinic.pem"
key = "certs/client-clinic.key"
exposes = "logits"
"""


def recipe() -> tuple[str, str]:
    """The page's tables for the host, and its point."""
    page = (ROOT / "docs" / "strategies.md").read_text("utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page.partition("#### FedPT")[2], re.DOTALL)
    return blocks[0], blocks[1]


@pytest.mark.parametrize("rule", ["average", "flora"])
def test_it_is_measured_bundled_and_served(tmp_path: Path, rule: str) -> None:
    tables, point = recipe()
    tiny_lm.folder(tmp_path / "large", seed=0, layers=3)
    tiny_lm.folder(tmp_path / "small", seed=1)
    tables = tables.replace(
        'model = "smollm2-135m-instruct"', 'path = "large"\nprecision = "float32"'
    )
    tables = tables.replace('rule = "flora"', f'rule = "{rule}"\nowners = ["clinic"]')
    point = re.sub(r"steps = \d+", "steps = 3\nbatch = 4", point)
    for split, count in {"train": 24, "validation": 3, "test": 3}.items():
        rows = [
            {"text": f"{split} about {i}", "label": ("refund", "billing")[i % 2]}
            for i in range(count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = tables.partition("[model]\n")[2]
    host = HostProcess(write_host(tmp_path, model=model))
    try:
        (tmp_path / "desk.toml").write_text(PLAN.format(port=host.port) + point)
        run = tmp_path / "runs" / "desk"
        assert main(["bench", str(tmp_path / "desk.toml"), "--yes"]) == 0
        with sqlite3.connect(run / "ledger.sqlite") as db:
            sql = "SELECT kind, count(*) FROM entries WHERE direction = 'up' GROUP BY kind"
            kinds = dict(db.execute(sql))
        assert kinds["Contribute"] >= 2
        assert kinds["Step"] >= 3
        assert "Ask" not in kinds
        (tmp_path / "out").mkdir()
        with served_point(run, "fedpt", tmp_path / "out") as client:
            whole, pieces = whole_and_pieces(client, "about 7")
        assert whole.choices[0].message.content in ("refund", "billing")
        assert "".join(pieces) == whole.choices[0].message.content
        bundle = read_bundle(tmp_path / "out" / "point")
        assert bundle.point.strategy == "proxy"
        assert "adapter" in bundle.models["small"].options, "so that it can be taken off again"
    finally:
        host.kill()
