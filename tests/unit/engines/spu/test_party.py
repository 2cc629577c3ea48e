"""A party's process, from its start to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cosilo.engines.spu.environment import Environment
from cosilo.engines.spu.party import SpuParty
from joint_runs import SCRIPTED

PYTHON = Environment(Path(sys.executable), {})


@pytest.mark.parametrize("gone", [False, True])
async def test_its_end_is_seen_by_whoever_waits_for_it_alone(
    gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second reader of its status would have asyncio warn of an unknown child."""
    nothing = tmp_path / "nothing.py"
    nothing.write_text("")
    party = await SpuParty.start(1, PYTHON, worker=nothing if gone else SCRIPTED)
    read: list[object] = []
    monkeypatch.setattr(subprocess.Popen, "poll", lambda process: read.append(process))
    if gone:
        await party._process.wait()
    await party.end()
    await party.end()
    assert party._process.returncode is not None
    assert not read
