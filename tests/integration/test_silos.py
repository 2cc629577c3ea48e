"""docs/silos.md, as it stands there: three owners and a coordinator, each a process, all killed."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.integration.gateway import MAIN, Process

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

PAGE = (Path(__file__).parents[2] / "docs" / "silos.md").read_text("utf-8")
OWNERS = ("bank", "clinic", "town")
LABELS = ("refund", "billing", "delivery")


def commands() -> list[str]:
    return re.findall(r"^    (cosilo .*)$", PAGE, re.MULTILINE)


def files() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def process(folder: Path, command: str, **env: str) -> Process:
    words = [sys.executable, "-c", MAIN, *command.split()[1:]]
    return Process(words, cwd=folder, OMP_NUM_THREADS="1", **env)


def written(folder: Path, port: int, model: Path) -> None:
    """The page's files, at home: this machine, a free port, a made-up model."""
    host, plan = (
        text.replace("coordinator.example", "localhost").replace("8443", str(port))
        for text in files()
    )
    host = host.replace('"0.0.0.0"', '"127.0.0.1"')
    plan = plan.replace('model = "smollm2-135m-instruct"', f'path = "{model}"')
    plan = plan.replace("steps = 50", "steps = 4\nbatch = 4")
    (folder / "federation.toml").write_text(host)
    for of, owner in enumerate(OWNERS):
        own = folder / owner
        own.mkdir()
        (own / "certs").symlink_to(folder / "certs")
        (own / "plan.toml").write_text(plan.replace("client-bank", f"client-{owner}"))
        for split, count in {"train": 24, "validation": 3, "test": 3}.items():
            rows = [
                {"text": f"{owner} {split} {i}", "label": LABELS[(of + (i % 3 == 0)) % 3]}
                for i in range(count)
            ]
            (own / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def undisturbed(folder: Path, model: Path) -> bytes:
    """What comes of it where nobody is killed, in this process."""
    settings = FederationSettings(owners=OWNERS, rounds=3, rank=4, quorum=2)
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


def final(path: Path) -> bytes:
    """The last round's adapter."""
    with sqlite3.connect(path) as db:
        found: bytes = db.execute("SELECT packed FROM rounds WHERE number = 3").fetchone()[0]
        return found


def rows(path: Path, sql: str) -> list[Any]:
    with sqlite3.connect(path) as db:
        return db.execute(sql).fetchall()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_owners_and_a_coordinator_that_are_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    certs, serve_host, bench, bundle, _, verify, compare = [
        c for c in commands() if "pull" not in c
    ]
    model = tiny_lm.folder(tmp_path / "model", seed=1)
    made = certs.replace("coordinator.example", "localhost").replace(
        " certs certs ", f" certs {tmp_path / 'certs'} "
    )
    assert main(made.split()[1:]) == 0
    written(tmp_path, free_port(), model)
    book = tmp_path / "host" / "federation.sqlite"

    host = process(tmp_path, serve_host)
    running = {}
    try:
        host.wait_for("coordinator serves bank, clinic, town", seconds=60)
        for owner in OWNERS:
            running[owner] = process(tmp_path / owner, bench)
        seen = 0
        killed = {2: "coordinator", 4: "clinic"}
        while seen < 9:  # updates; three owners, three rounds
            there = rows(book, "SELECT count(*) FROM updates")[0][0]
            if there == seen:
                assert any(p.child.poll() is None for p in running.values()), [
                    "".join(p.lines) for p in running.values()
                ]
                time.sleep(0.02)
                continue
            for number in range(seen + 1, there + 1):
                who = killed.get(number)
                if who == "coordinator":
                    host.stop(signal.SIGKILL)
                    host = process(tmp_path, serve_host)
                    host.wait_for("coordinator serves", seconds=60)
                elif who is not None:
                    running[who].stop(signal.SIGKILL)
                    running[who] = process(tmp_path / who, bench)
            seen = there
        for owner in OWNERS:
            assert running[owner].child.wait(120) == 0, "".join(running[owner].lines)
    finally:
        for each in (host, *running.values()):
            each.stop(signal.SIGKILL)

    assert final(book) == undisturbed(tmp_path, model)
    assert rows(book, "SELECT fate, count(*), count(packed) FROM updates GROUP BY fate") == [
        ("taken", 9, 0)
    ]
    capsys.readouterr()
    for owner in OWNERS:
        monkeypatch.chdir(tmp_path / owner)
        assert main(verify.split()[1:]) == 0
        told = compare.replace("HOST_FOLDER", str(tmp_path / "host")).replace("bank", owner)
        assert main(told.split()[1:]) == 0
    assert "no differences" in capsys.readouterr().out
    assert main(bundle.split()[1:]) == 0
    assert (tmp_path / "town" / "tickets.bundle" / "small").is_dir()
