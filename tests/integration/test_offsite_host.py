"""An emulator comes over TLS, and what was tuned is there again when its host was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.hosts import CLIENT, HostProcess, the_way, write_host

pytest.importorskip("torch")

import lent
import tiny_lm
from cosilo.boundary.messages import Ask
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import UnknownAdapterError
from cosilo.models.fit.lending import lending
from cosilo.models.white_box.lm import torch_lm
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.remote import RemoteOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.strategies.upward.offsite import Offsite
from cosilo.types import user

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

MODEL = """\
kind = "lending"
path = "model"
precision = "float32"
exposes = ["text", "emulator"]
ends = 1
depth = 1
steps = 2
length = 16
least_gap = -100
text = "public.txt"
checkpoints = "lent"
[clients.other]"""


def owner_at(folder: Path, port: int, client: str = CLIENT) -> RemoteOwner:
    way = the_way(folder, port, client=client)
    return RemoteOwner(way, "lm-owner", f"party/{client}", exposes=lent.LENDS)


async def test_adapters_are_one_clients_and_outlive_their_host(tmp_path: Path) -> None:
    tiny_lm.folder(tmp_path / "model", seed=0, layers=4, scale=3.0)
    (tmp_path / "public.txt").write_text(lent.TEXT.read_text())
    small = torch_lm(path=tmp_path / "model", precision="float32")
    strategy = strategies.create("offsite", **lent.OPTIONS, rounds=2)
    ledger = MemoryLedger()
    host = HostProcess(write_host(tmp_path, model=MODEL))
    try:
        port, near = host.port, owner_at(tmp_path, host.port)
        data = lent.owner(small=small)
        session = open_session(data, near, strategy, sampling=lent.SAMPLING, ledger=ledger)
        tuned, session = await strategy.prepare(session)
        assert isinstance(tuned, Offsite)
        assert tuned.tuned is not None
        assert tuned.tuned.name, "it is better than the model was"
        before = (await tuned.answer(session.bind("a"), user("about 7"))).text
        sent = len(list(ledger.entries()))
        host.kill()
        host = HostProcess(write_host(tmp_path, model=MODEL, port=port))
        after = (await tuned.answer(session.bind("b"), user("about 7"))).text
        assert after == before == "billing"
        assert len(list(ledger.entries())) == sent + 2, "nothing was plugged in again"
        other = owner_at(tmp_path, port, client="other")
        ask = Ask(chat=user("about 7"), sampling=lent.SAMPLING, adapter=tuned.tuned.name)
        with pytest.raises(UnknownAdapterError):
            await other.handle(ask)
        await other.close()
        await near.close()
    finally:
        host.kill()
    here = lending(
        path=tmp_path / "model", precision="float32", ends=1, depth=1, steps=2, length=16,
        least_gap=-100, text=tmp_path / "public.txt",
    )  # fmt: skip
    near_by = open_session(
        lent.owner(small=small), LMOwner(here, lent.LENDS), strategy, sampling=lent.SAMPLING
    )
    again, _ = await strategy.prepare(near_by)
    assert isinstance(again, Offsite)
    assert again.tuned is not None
    assert again.tuned.packed == tuned.tuned.packed, "the road changes nothing"
