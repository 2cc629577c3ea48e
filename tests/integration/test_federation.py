"""A federation of one in a plan: measured, tampered with, opened again, taken out to be served."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("torch")

import tiny_lm
from cosilo.benchmark.results import opened
from cosilo.bundle import read_bundle
from cosilo.cli import main
from cosilo.lineage.artifacts import ArtifactKind
from cosilo.lineage.store import Lineage
from made_from_records import all_named
from tiny_run import bench

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

PLAN = """
name = "desk"
[attacks]
names = ["verbatim"]
tamper_share = 0.3
[task]
kind = "classification"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[models.small]
kind = "torch"
path = "small"
[models.large]
kind = "federation"
rounds = 2
rank = 2
state_file = "federation.sqlite"
[[points]]
strategy = "federated"
rank = 2
steps = 3
batch = 4
learning_rate = 0.01
"""


def written(folder: Path) -> None:
    tiny_lm.folder(folder / "small", seed=1)
    (folder / "p.toml").write_text("")
    for split, count in {"train": 24, "validation": 4, "test": 6}.items():
        rows = [
            {"text": f"{split} about {i}", "label": ("refund", "billing")[i % 2]}
            for i in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_bench_of_one_owner(tmp_path: Path) -> None:
    written(tmp_path)
    with all_named(tmp_path):
        outcomes, _ = bench(tmp_path, PLAN)
    assert [outcome.error for outcome in outcomes] == [None]
    with sqlite3.connect(tmp_path / "federation.sqlite") as db:
        kept = db.execute("SELECT count(*), count(packed) FROM updates").fetchone()
    assert kept == (2, 0)
    left = list((tmp_path / "run" / "checkpoints").glob("*/round-*"))
    assert {path.suffix for path in left} == {".update"}
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        kinds = dict(
            db.execute("SELECT kind, count(*) FROM entries WHERE direction = 'up' GROUP BY kind")
        )
    # Twice: where replies are tampered with it is prepared again, by what is recorded.
    assert kinds == {"Enrol": 2, "Contribute": 4, "NextRound": 6}
    _, again = bench(tmp_path, PLAN)
    assert again.items == 0
    assert main(["audit", "verify", str(tmp_path / "run")]) == 0
    assert (
        main(["bundle", str(tmp_path / "run"), "--point", "federated", str(tmp_path / "out")]) == 0
    )
    bundle = read_bundle(tmp_path / "out")
    assert bundle.point.strategy == "small"
    assert "adapter" in bundle.models["small"].options
    forgotten(tmp_path)


def forgotten(folder: Path) -> None:
    """A record is forgotten with the adapter, the round's updates and what the federation came to."""
    run, book, whom = folder / "run", folder / "federation.sqlite", folder / "whom.txt"
    with opened(run) as results:
        id = results.store.examples(results.task, "train")[0].id
    whom.write_text(f"{id}\n")
    with Lineage(run, write=False) as lineage:
        kinds = {a.kind for a in lineage.derived([id])}
    made = {ArtifactKind.ADAPTER, ArtifactKind.AGGREGATE, ArtifactKind.STATE, ArtifactKind.BUNDLE}
    assert made <= kinds
    assert main(["forget", str(run), "--ids", f"@{whom}"]) == 0
    if book.exists():
        with closing(sqlite3.connect(book)) as db:
            assert db.execute("SELECT count(*) FROM updates").fetchone() == (0,)
    assert not list(folder.rglob("*.update"))
    assert not (folder / "out").exists()
    with Lineage(run, write=False) as lineage:
        assert not {a.kind for a in lineage.derived([id])} & made
