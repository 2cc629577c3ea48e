"""`cosilo forget` of a record that a federated adapter learned from: the coordinator takes it back."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.integration.hosts import CLIENT, HostProcess, write_host
from tests.integration.test_host_plans import party

import tiny_lm
from cosilo.boundary.messages import Contribute, Forgotten, NextRound, RoundState, decode
from cosilo.boundary.record.ledger import connect, read_entries
from cosilo.cli import main
from tiny_run import bench

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

HOST = 'keep = "content"\n'
FEDERATION = "[federation]\nrounds = 2\nrank = 2\nquorum = 1\n"
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
columns = {text = "text", target = "label", id = "id"}
[models.small]
kind = "torch"
path = "small"
[models.large]
LARGE
[[points]]
strategy = "federated"
rank = 2
steps = 3
batch = 4
learning_rate = 0.01
"""


def written(folder: Path) -> None:
    tiny_lm.folder(folder / "small", seed=1)
    for split, count in {"train": 24, "validation": 4, "test": 6}.items():
        rows = [
            {
                "id": f"{split}-patient-{i:03}",
                "text": f"{split}: Ottilie Katzenstein-{i:03} asks about her invoice",
                "label": ("refund", "billing")[i % 2],
            }
            for i in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


def updates(book: Path) -> list[tuple[int, str]]:
    with sqlite3.connect(book) as db:
        return db.execute("SELECT round, fate FROM updates ORDER BY round").fetchall()


def test_a_coordinator_takes_back_what_was_trained_on_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    home, there = tmp_path / "home", tmp_path / "lm"
    home.mkdir()
    there.mkdir()
    written(home)
    path = write_host(there, model='kind = "scripted"')
    path.write_text(HOST + path.read_text() + FEDERATION)
    host = HostProcess(path)
    try:
        plan = PLAN.replace("LARGE", party(there, host.port))
        (home / "p.toml").write_text(plan)
        outcomes, _ = bench(home, plan)
        assert [outcome.error for outcome in outcomes] == [None]
        book = there / "host" / "federation.sqlite"
        assert updates(book) == [(1, "taken"), (2, "taken")]
        (tmp_path / "whom.txt").write_text("train-patient-003\n")
        whom = ["forget", str(home / "run"), "--ids", f"@{tmp_path / 'whom.txt'}"]
        capsys.readouterr()
        assert main(whom) == 0
        said = capsys.readouterr()
        assert "asked of another party, to be answered until" in said.out
        assert "updates in 1 federations" in said.out
        assert "patient" not in said.out + said.err
        assert updates(book) == []
    finally:
        host.stop()
    (path,) = home.glob("forgotten-*.json")
    (answer,) = json.loads(path.read_text())["answers"]
    told = decode(bytes.fromhex(answer))
    assert isinstance(told, Forgotten)
    (item,) = (outcome for outcome in told.outcomes if outcome.what == "federation")
    assert (item.how, item.first, item.last) == ("rolled back", 1, 2)
    # No other owner was told what came of rounds, and what this one was told is forgotten with them.
    assert item.left == ()
    with closing(connect(there / "host" / "ledger.sqlite")) as db:
        kinds = (Contribute.__name__, NextRound.__name__, RoundState.__name__)
        entries = [e for e in read_entries(db, CLIENT) if e.kind in kinds]
    assert len(entries) > 4
    assert not any(entry.payload or entry.content_digest for entry in entries)
    (certificate,) = home.glob("erasure-*.json")
    (step,) = (s for s in json.loads(certificate.read_text())["steps"] if "asked" in s["method"])
    assert step["state"] == "done"
    assert main(["forget", "status", str(home)]) == 0
    assert "  erased" in capsys.readouterr().out
    for record in (home / "run", there / "host"):
        assert main(["audit", "verify", str(record)]) == 0
