"""Workers on this machine: what ends them, and what they say when they were ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from cosilo.benchmark.executors.base import (
    PROGRESS,
    Job,
    Progress,
    WorkerLostError,
    machine,
    progress_of,
)
from cosilo.benchmark.executors.processes import Processes
from cosilo.benchmark.plan import parse_plan
from cosilo.boundary.meter import Budget
from tiny_run import PLAN, write_data


def job(folder: Path) -> Job:
    write_data(folder)
    plan = parse_plan(PLAN, folder / "p.toml")
    (folder / "trial").mkdir()
    return Job(plan, plan.points[0], "no such trial", folder / "trial", folder, Budget())


async def test_a_worker_that_is_killed_is_lost(tmp_path: Path) -> None:
    worker = await Processes().worker()
    os.kill(cast(Any, worker)._process.pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="signal 9"):
        await worker.run(job(tmp_path))
    await worker.close()
    await worker.close()


async def test_a_worker_says_why_a_job_cannot_be_done_and_takes_the_next(tmp_path: Path) -> None:
    worker = await Processes().worker()
    asked = job(tmp_path)
    for _ in range(2):
        ended = await worker.run(asked)
        assert ended.fatal
        assert "are not the same for its worker" in str(ended.error)
    await worker.close()
    assert cast(Any, worker)._process.returncode == 0


async def test_a_worker_whose_runner_is_gone_ends(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", Processes.__module__, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.close()
    async with asyncio.timeout(30):
        await process.communicate()
    assert process.returncode == 0


def test_progress_that_is_not_there_or_torn_is_none(tmp_path: Path) -> None:
    assert progress_of(tmp_path) == Progress()
    (tmp_path / PROGRESS).write_text('{"items": 3, "calls"')
    assert progress_of(tmp_path) == Progress()
    (tmp_path / PROGRESS).write_text('{"items": 3, "calls": 2, "usd": 0.5}')
    assert progress_of(tmp_path) == Progress(3, 2, 0.5)


def test_a_machine_is_the_same_from_one_look_to_the_next() -> None:
    assert machine() == machine() != ""
