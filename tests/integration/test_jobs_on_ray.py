"""Trials on a real Ray cluster of two workers, on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.integration.endpoint import Endpoint, serving
from tests.integration.test_jobs import PLAN, booked, numbers, whole

import cosilo
from cosilo.cli import main
from tiny_run import write_data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (cosilo[ray])"),
]

CLUSTER = """
import sys
import ray
from cosilo.cli import main

temp, *arguments = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, _temp_dir=temp)
code = main(arguments)
ray.shutdown()
sys.exit(code)
"""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as found:
        yield found


@pytest.fixture
def plan(tmp_path: Path, endpoint: Endpoint) -> Path:
    write_data(tmp_path, PLAN.replace("URL", endpoint.url), count=60)
    return tmp_path / "p.toml"


def pids(run: Path) -> set[int]:
    """The processes that work on trials."""
    found = (path.read_text().strip() for path in (run / "trials").glob("*/lock"))
    return {int(text) for text in found if text}


def test_a_cluster_finds_what_one_process_does_also_where_workers_are_killed(
    plan: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    assert main(["bench", str(plan), "--run", str(tmp_path / "one"), "--yes"]) == 0
    asked, before = dict(endpoint.calls), endpoint.total
    endpoint.slow = 0.05
    run = tmp_path / "two"
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(cosilo.__file__).parents[1]),
        "HOME": str(tmp_path),  # Ray keeps a token there
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with tempfile.TemporaryDirectory(prefix="ray-") as temp:  # short: it holds sockets
        command = [sys.executable, "-c", CLUSTER, temp, "bench", str(plan), "--run", str(run)]
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(
                [*command, "--yes", "--on", "ray"], env=env, stdout=said, stderr=said
            )
        killed: set[int] = set()
        try:
            while process.poll() is None and len(killed) < 2:
                due = endpoint.total >= before + 10 * len(killed) + 4
                for pid in list(pids(run) - killed - {process.pid})[:1] if due else ():
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
                time.sleep(0.01)
            process.wait(timeout=100)
        finally:
            process.kill()
            process.wait()
    text = (tmp_path / "said").read_text()
    assert process.returncode == 0, text
    assert text.count("its process was lost (") == len(killed) == 2
    assert numbers(run) == numbers(tmp_path / "one")
    whole(run)
    assert set(endpoint.calls) == set(asked)
    assert sum(endpoint.calls.values()) - 2 * before <= 4 * len(killed)
    assert sum(n for settled, n in booked(run) if settled) == before
