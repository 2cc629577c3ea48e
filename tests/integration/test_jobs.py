"""Points at once, each in a process and a folder of its own: same numbers, and nothing paid twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.endpoint import Endpoint, serving

import cosilo
from cosilo.benchmark.executors.base import Worker
from cosilo.benchmark.executors.processes import Processes
from cosilo.benchmark.measure import MEASURED
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.results import opened
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.boundary.record.faults import verify
from cosilo.boundary.record.ledger import connect
from cosilo.cli import main
from tiny_run import write_data

PLAN = """
name = "desk"
concurrency = 4
[attacks]
names = ["verbatim"]
tamper_share = 0.3
[task]
kind = "classification"
file = "data.jsonl"
columns = {text = "text", target = "label", secrets = "secrets"}
[models.small]
kind = "scripted"
confidence = 0.5
replies = {cat = "cat", dog = "cow", cow = "cow"}
[models.large]
kind = "openai"
model = "rule"
base_url = "URL"
usd_per_m_in = 1.0
[[points]]
strategy = "small"
[[points]]
strategy = "large"
[[points]]
strategy = "cascade"
threshold = 0.9
[[points]]
strategy = "distil_labels"
"""
OF_TIME = ("cpu_ms", "latency_ms", "latency_p95_ms", "memory_mb")
"""Measures that no two runs agree on."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as found:
        yield found


@pytest.fixture
def plan(tmp_path: Path, endpoint: Endpoint) -> Path:
    write_data(tmp_path, PLAN.replace("URL", endpoint.url), count=60)
    return tmp_path / "p.toml"


def numbers(run: Path) -> dict[str, object]:
    """Point → its measures on each split, without those of time."""
    with opened(run) as results:
        trials = {t.point: t.id for t in results.store.trials().values()}
        found: dict[str, object] = {}
        for point, id in trials.items():
            for split in MEASURED:
                result = results.store.result(id, split)
                assert result is not None
                found[f"{point} on {split}"] = {
                    m.objective.name: (m.value, m.low, m.high, m.n, m.note)
                    for m in result.measurements
                    if m.objective.name not in OF_TIME
                }
    return found


def booked(run: Path) -> list[tuple[int, int]]:
    """How many calls are booked, settled and not; and that nothing is set aside any more."""
    with closing(sqlite3.connect(run / "run.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM leases").fetchone() == (0,)
        return db.execute("SELECT settled, count(*) FROM paid GROUP BY settled").fetchall()


def whole(run: Path) -> None:
    """Every chain of the record holds, and no folder of a trial is left."""
    with closing(connect(run / "ledger.sqlite")) as db:
        assert verify(db) == []
    assert not (run / "trials").exists()


def start(plan: Path, run: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "cosilo",
        "bench",
        str(plan),
        "--run",
        str(run),
        "--yes",
        *more,
    ]
    env = {**os.environ, "PYTHONPATH": str(Path(cosilo.__file__).parents[1])}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def workers(process: subprocess.Popen[bytes]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    try:  # one whose parent is gone may stay a zombie
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def until(process: subprocess.Popen[bytes], true: Callable[..., bool]) -> None:
    """Wait until `true()`, while the process runs."""
    while not true():
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        time.sleep(0.01)


def test_two_processes_find_what_one_does_and_pay_for_nothing_twice(
    plan: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    assert main(["bench", str(plan), "--run", str(tmp_path / "one"), "--yes"]) == 0
    asked = dict(endpoint.calls)
    endpoint.calls.clear()
    assert main(["bench", str(plan), "--run", str(tmp_path / "two"), "--yes", "--jobs", "2"]) == 0
    assert numbers(tmp_path / "two") == numbers(tmp_path / "one")
    assert endpoint.calls == asked
    assert set(endpoint.calls.values()) == {1}
    assert booked(tmp_path / "two") == booked(tmp_path / "one")
    whole(tmp_path / "two")
    assert main(["bench", str(plan), "--run", str(tmp_path / "two"), "--yes", "--jobs", "2"]) == 0
    assert sum(endpoint.calls.values()) == sum(asked.values())


def test_workers_that_are_killed_lose_nothing_that_was_paid_for(
    plan: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    assert main(["bench", str(plan), "--run", str(tmp_path / "one"), "--yes"]) == 0
    asked, before = set(endpoint.calls), endpoint.total
    endpoint.slow = 0.05
    process = start(plan, tmp_path / "two", "--jobs", "2")
    killed: set[int] = set()
    for kill in range(3):
        until(process, lambda most=before + 8 * kill + 4: endpoint.total >= most)
        until(process, lambda: bool(set(workers(process)) - killed))
        (victim, *_) = set(workers(process)) - killed
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
    assert said.count(b"its process was lost (signal 9)") == 3
    assert numbers(tmp_path / "two") == numbers(tmp_path / "one")
    whole(tmp_path / "two")
    assert set(endpoint.calls) == asked
    # What was under way when it was killed is asked again; each worker asks four things at once.
    assert sum(n - 2 for n in endpoint.calls.values()) <= 4 * len(killed)


@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_ends_its_workers_and_goes_on_where_it_was(
    plan: Path, endpoint: Endpoint, tmp_path: Path, how: signal.Signals
) -> None:
    endpoint.slow = 0.05
    run = tmp_path / "run"
    process = start(plan, run, "--jobs", "2")
    until(process, lambda: endpoint.total >= 20)
    there = workers(process)
    assert there
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode == (130 if how is signal.SIGINT else -how)
    endpoint.slow = 0.0
    assert main(["bench", str(plan), "--run", str(run), "--yes", "--jobs", "2"]) == 0
    assert not any(map(alive, there))
    whole(run)
    assert main(["bench", str(plan), "--run", str(tmp_path / "one"), "--yes"]) == 0
    assert numbers(run) == numbers(tmp_path / "one")
    assert sum(n - 2 for n in endpoint.calls.values()) <= 8


def test_a_budget_holds_for_all_processes_together(
    plan: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    plan.write_text(plan.read_text() + "[budget]\nmessages = 15\n")
    assert main(["bench", str(plan), "--run", str(tmp_path / "run"), "--yes", "--jobs", "3"]) == 3
    assert sum(count for _, count in booked(tmp_path / "run")) == 15
    assert 10 < endpoint.total <= 15  # what is cancelled on its way is booked
    with opened(tmp_path / "run") as results:
        states = {t.point: t.state for t in results.store.trials().values()}
    assert states["small"] == "done"
    assert set(states.values()) == {"done", "unaffordable"}
    text = plan.read_text().replace("messages = 15", "messages = 1000")
    plan.write_text(text)
    assert main(["bench", str(plan), "--run", str(tmp_path / "run"), "--yes", "--jobs", "3"]) == 0
    assert endpoint.total <= len(endpoint.calls) + 2
    whole(tmp_path / "run")


class Elsewhere(Processes):
    """Workers that cannot use the run's recorded answers, as on another machine."""

    async def worker(self) -> Worker:
        worker = await super().worker()
        worker.here = False  # type: ignore[misc]
        return worker


def test_workers_on_another_machine_are_given_what_is_recorded_and_bring_back_what_is_new(
    plan: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    assert main(["bench", str(plan), "--run", str(tmp_path / "one"), "--yes"]) == 0
    endpoint.calls.clear()
    for points in (1, 4):  # the second time, the first two points' answers are there
        text = plan.read_text()
        part = text.split("[[points]]")
        store = Store(tmp_path / "two", write=True)
        try:
            few = "[[points]]".join(part[: points + 2])
            runner = Runner(parse_plan(few, plan), store, executor=Elsewhere(), jobs=2)
            assert [o.error for o in asyncio.run(runner.run())] == [None] * (
                2 if points == 1 else 4
            )
        finally:
            store.close()
    assert numbers(tmp_path / "two") == numbers(tmp_path / "one")
    assert max(endpoint.calls.values()) == 1  # the labelled items are no others' questions
    whole(tmp_path / "two")


def test_an_endpoint_that_is_down_stops_no_point_that_asks_nothing(
    plan: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.fail = lambda _: 401
    assert main(["bench", str(plan), "--run", str(tmp_path / "run"), "--yes", "--jobs", "2"]) == 1
    with opened(tmp_path / "run") as results:
        states = {t.point: t.state for t in results.store.trials().values()}
    assert states == {
        "small": "done",
        "large": "failed",
        "cascade": "failed",
        "distil_labels": "failed",
    }


def test_wrong_places_and_numbers_are_told(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(plan), "--yes", "--jobs", "0"]) == 2
    assert "--jobs 0 is not positive" in capsys.readouterr().err
    assert main(["bench", str(plan), "--yes", "--on", "mars"]) == 2
    assert "trials run on ray, or ray:ADDRESS" in capsys.readouterr().err
