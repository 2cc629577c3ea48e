"""Compiled programs that are kept, and which of them go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cosilo.engines.base import Program, Setting
from cosilo.engines.spu import compiled
from cosilo.engines.spu.run import JointRun
from joint_runs import scripted_engine


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSILO_ENGINES", str(tmp_path))
    return compiled.folder()


def write(place: Path, name: str, size: int, age_s: float) -> None:
    (place / name).write_bytes(bytes(size))
    os.utime(place / name, (time.time() - age_s,) * 2)


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_what_was_used_longest_ago_goes_first(place: Path) -> None:
    for age, name in enumerate("abcd"):
        write(place, name, 10, 100 + age)
    compiled.note_used("d", kept=30)
    assert names(place) == {"d", "a", "b"}
    compiled.note_used("b", kept=20)
    assert names(place) == {"d", "b"}
    compiled.note_used("d", kept=5)
    assert names(place) == {"d"}, "what is used is kept, however large"


def test_what_was_left_half_written_goes_when_nobody_can_be_writing_it(place: Path) -> None:
    write(place, "a.1.partial", 10, 10)
    write(place, "b.2.partial", 10, 7200)
    compiled.note_used("none")
    assert names(place) == {"a.1.partial"}


async def test_a_run_that_compiles_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_engine(tmp_path, monkeypatch)
    monkeypatch.setitem(compiled.note_used.__kwdefaults__, "kept", 15)
    for age, name in enumerate("ab"):
        write(compiled.folder(), name, 10, 100 + age)
    async with JointRun(Program("well", {}), Setting("cheetah"), ranks=(0,)) as run:
        await run.start()
        await run.compile()
    assert names(compiled.folder()) == {"a"}
