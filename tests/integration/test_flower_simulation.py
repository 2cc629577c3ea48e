"""Owners in Flower's simulation engine: the same adapter as anywhere, also where it was killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("ray")

from tests.integration.flowers import python
from tests.integration.simulated_owner import settings, takes_part

from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.kind import NoModel
from cosilo.parties.lm_owner import LMOwner

TESTS = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def simulated(folder: Path, dies_after: int) -> int:
    """What the process came to."""
    script = Path(__file__).with_name("simulated_owner.py")
    path = os.pathsep.join(map(str, (TESTS.parent / "src", TESTS, script.parent)))
    with (folder / "log").open("wb") as log:
        return subprocess.run(
            [python(), str(script), str(folder), str(dies_after)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HOME": str(folder)},
            stdout=log,
            stderr=log,
        ).returncode


def adapters(path: Path) -> list[bytes]:
    with sqlite3.connect(path) as db:
        return [packed for (packed,) in db.execute("SELECT packed FROM rounds ORDER BY number")]


async def plainly(folder: Path) -> None:
    """The same federation, all of it in this process."""
    federation = Federation(settings(), folder / "plain.sqlite")

    async def one(number: int, name: str) -> None:
        party = LMOwner(NoModel(), client=name, federation=federation)
        await takes_part(folder / "plain", number, party)

    await asyncio.gather(*(one(i, name) for i, name in enumerate(settings().owners)))
    federation.close()


def test_three_of_twelve_owners_a_round_killed_after_the_first(tmp_path: Path) -> None:
    python()
    assert simulated(tmp_path, 1) == -signal.SIGKILL
    assert len(adapters(tmp_path / "federation.sqlite")) == 1
    assert simulated(tmp_path, 0) == 0, (tmp_path / "log").read_text()[-3000:]
    seconds, in_owners, calls = json.loads((tmp_path / "took.json").read_text())
    assert len(seconds) == 1  # the first round is not gone through again
    assert calls == [12 + 9]  # who is who, and three messages to each that was drawn
    assert 0 < in_owners[0] < seconds[0]
    asyncio.run(plainly(tmp_path))
    assert adapters(tmp_path / "federation.sqlite") == adapters(tmp_path / "plain.sqlite")
