"""An owner learns with a large model of another tokeniser and is served; both are killed on the way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.hosts import CLIENT, HostProcess, the_way, write_host
from tests.integration.served import served_point, whole_and_pieces

pytest.importorskip("torch")

import torch

import tiny_lm
from cosilo.boundary.wire import tensors
from cosilo.cli import main
from cosilo.models.base import Access, models
from cosilo.models.white_box.adapters import adapter_of
from cosilo.models.white_box.lm import torch_lm
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.remote import RemoteOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import Demonstration, Sampling, user
from made_from_records import all_named

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

LABELS = ("refund", "billing")
OTHER = ("billing", "fund", "about", " 1")
PLAN = """
name = "desk"
[attacks]
names = ["opinions", "update_words", "nearest_text"]
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
exposes = "logits"
method = "opinions"
top = 8
rounds = 2
state_file = "federation.sqlite"
path = "large"
public = "public.jsonl"
mutual = { steps = 2, batch = 2, rank = 2 }
[[points]]
strategy = "fedmkt"
public = "public.jsonl"
rank = 2
steps = 3
batch = 4
taught_steps = 2
learning_rate = 0.01
"""
MODEL = """\
kind = "taught"
path = "large"
public = "public.jsonl"
precision = "float32"
exposes = "{exposes}"
threads = 1
steps = 20
batch = 2
rank = 2
[federation]
owners = ["clinic"]
method = "opinions"
top = 8
rounds = 2
[clients.other]"""


def written(folder: Path) -> None:
    words = tiny_lm.tokenizer(OTHER)
    tiny_lm.module(len(words), seed=1).save_pretrained(folder / "small")
    words.save_pretrained(folder / "small")
    tiny_lm.folder(folder / "large", seed=0, layers=3)
    for split, count in {"train": 24, "validation": 4, "test": 6, "public": 6}.items():
        key = "target" if split == "public" else "label"
        rows = [{"text": f"{split} about {i}", key: LABELS[i % 2]} for i in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_plan_is_measured_and_its_bundle_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    written(tmp_path)
    (tmp_path / "desk.toml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    with all_named(tmp_path):
        assert main(["bench", "desk.toml", "--yes"]) == 0
    assert "membership" in capsys.readouterr().out
    assert (tmp_path / "federation.mutual" / "adapter").is_dir()
    assert main(["audit", "verify", "runs/desk"]) == 0
    (tmp_path / "out").mkdir()
    with served_point(tmp_path / "runs" / "desk", "fedmkt", tmp_path / "out") as client:
        whole, pieces = whole_and_pieces(client, "test about 3")
    assert whole.choices[0].message.content in LABELS
    assert "".join(pieces) == whole.choices[0].message.content


async def test_a_host_and_an_owner_that_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    written(tmp_path)
    model = MODEL.format(exposes="logits")
    host = HostProcess(write_host(tmp_path, model=model))
    port, folder = host.port, tmp_path / "host" / "federation.mutual"
    near = RemoteOwner(
        the_way(tmp_path, port, patience_s=60.0), "lm-owner", f"party/{CLIENT}",
        exposes=Access.LOGITS.shows,
    )  # fmt: skip
    try:
        learning = asyncio.ensure_future(prepared(tmp_path, near, tmp_path / "kept"))
        for number in (1, 2):
            while not list(folder.glob(f"training-{number}-*/*")):
                assert not learning.done(), learning.exception()
                await asyncio.sleep(0.01)
            host.kill()
            learning.cancel()  # an owner that begins anew has what it kept, and nothing else
            await asyncio.wait([learning])
            host = HostProcess(write_host(tmp_path, model=model, port=port))
            learning = asyncio.ensure_future(prepared(tmp_path, near, tmp_path / "kept"))
        found = await learning
    finally:
        host.kill()
        await near.close()
    made: Any = models.create(
        "taught", path=tmp_path / "large", public=tmp_path / "public.jsonl", precision="float32",
        steps=20, batch=2, rank=2,
    )  # fmt: skip
    settings = FederationSettings(owners=(CLIENT,), rounds=2, method="opinions", top=8)
    whole = Federation(settings, tmp_path / "whole.sqlite", mutual=made)
    party = LMOwner(made, exposes=Access.LOGITS.shows, client=CLIENT, federation=whole)
    wanted = await prepared(tmp_path, party, None)
    whole.close()
    assert all(np.array_equal(found[n], wanted[n]) for n in wanted)
    (own,), (other,) = (f.glob("round-2-*") for f in (folder, tmp_path / "whole.mutual"))
    large, same = (tensors.unpack(f.read_bytes()) for f in (own, other))
    assert all(np.array_equal(large[n], same[n]) for n in same)


async def prepared(folder: Path, party: Any, kept: Path | None) -> dict[str, Any]:
    """The adapter that comes of it for the owner."""
    strategy = strategies.create(
        "fedmkt", public=folder / "public.jsonl", steps=3, batch=4, rank=2, learning_rate=0.01,
        taught_steps=3, taught_rate=0.01, checkpoints=kept,
    )  # fmt: skip
    private = tuple(Demonstration(f"{i}", user(f"own about {i}"), LABELS[i % 2]) for i in range(8))
    owner = DataOwner(torch_lm(path=folder / "small", precision="float32"), private=private)
    session = open_session(owner, party, strategy, sampling=Sampling(choices=LABELS))
    _, session = await strategy.prepare(session)
    return dict(adapter_of(session.owner.model.module).tensors)
