"""Three owners and a coordinator that sees none of their updates, each a process, all killed."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.integration.test_silos import (
    OWNERS,
    command,
    free_port,
    killed_on_the_way,
    rows,
    written,
)

import tiny_lm
from cosilo.benchmark.parts import load_data, make_owner
from cosilo.benchmark.plan import load_plan
from cosilo.cli import main
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.lm import torch_lm
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import make_strategy, open_session

ROUNDS = 2


def final(path: Path) -> bytes:
    with sqlite3.connect(path) as db:
        found: bytes = db.execute(
            "SELECT packed FROM rounds WHERE number = ?", (ROUNDS,)
        ).fetchone()[0]
        return found


def undisturbed(folder: Path, model: Path) -> bytes:
    settings = FederationSettings(
        owners=OWNERS, rounds=ROUNDS, rank=4, quorum=3, secure=True, momentum=0.7
    )
    path = folder / "undisturbed.sqlite"

    async def run() -> None:
        coordinator = Federation(settings, path)

        async def one(name: str) -> None:
            plan = load_plan(folder / name / "plan.toml")
            task, small = load_data(plan), torch_lm(path=model)
            owner = make_owner(plan, task, small, None)
            party = LMOwner(ScriptedModel(), client=name, federation=coordinator)
            strategy = make_strategy(plan.points[1])
            session = open_session(owner, party, strategy, sampling=task.sampling)
            await strategy.prepare(session)
            await small.close()

        await asyncio.gather(*map(one, OWNERS))
        coordinator.close()

    asyncio.run(run())
    return final(path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sum_comes_out_the_same_whoever_is_killed_between_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    certs, serve_host = command("host", "certs"), command("host", "federation.toml")
    bench = command("bench")
    verify, compare = command("audit", "verify"), command("audit", "compare")
    model = tiny_lm.folder(tmp_path / "model", seed=1)
    made = certs.replace("coordinator.example", "localhost").replace(
        " certs certs ", f" certs {tmp_path / 'certs'} "
    )
    assert main(made.split()[1:]) == 0
    written(tmp_path, free_port(), model)
    file = tmp_path / "federation.toml"
    text = file.read_text().replace("quorum = 2", "quorum = 3\nsecure = true\nmomentum = 0.7")
    file.write_text(text.replace("rounds = 3", f"rounds = {ROUNDS}"))
    for owner in OWNERS:
        plan = tmp_path / owner / "plan.toml"
        plan.write_text(plan.read_text() + "secure = true\n")
    book = tmp_path / "host" / "federation.sqlite"
    # After so many parts (of 3 owners, 4 steps, 2 rounds) somebody is killed.
    killed = {
        1: "coordinator",
        4: "clinic",
        7: "coordinator",
        10: "town",
        14: "bank",
        20: "coordinator",
    }
    killed_on_the_way(
        tmp_path, serve_host, bench, lambda: rows(book, "SELECT count(*) FROM sum_parts")[0][0],
        3 * 4 * ROUNDS, killed,
    )  # fmt: skip

    assert final(book) == undisturbed(tmp_path, model)
    assert rows(book, "SELECT fate, count(*) FROM updates GROUP BY fate") == [("taken", 3 * ROUNDS)]
    assert rows(book, "SELECT step FROM sum_parts WHERE content IS NOT NULL GROUP BY step") == [
        ("advert",)
    ]
    capsys.readouterr()
    for owner in OWNERS:
        monkeypatch.chdir(tmp_path / owner)
        assert main(verify.split()[1:]) == 0
        told = compare.replace("HOST_FOLDER", str(tmp_path / "host")).replace("bank", owner)
        assert main(told.split()[1:]) == 0
    assert "no differences" in capsys.readouterr().out
