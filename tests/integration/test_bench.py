"""A run is finished whatever happens to it on the way, and nothing is paid for twice."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from tests.integration.endpoint import Endpoint, serving
from tests.integration.gateway import Process

from cosilo.benchmark.plan import load_plan
from cosilo.boundary.record.ledger import connect, read_entries
from cosilo.models.base import identity
from cosilo.models.kept.replay import ReplayStore, request_key
from cosilo.session import make_model
from cosilo.tasks.config import load_task
from cosilo.types import Answer, last_user

COSILO = [sys.executable, "-m", "cosilo"]
# Each test starts several processes; on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(600)

LABELS = ("cat", "dog", "cow")
ITEMS = 90

PLAN = """
name = "desk"
concurrency = {concurrency}
[attacks]
names = {attacks}
[task]
kind = "classification"
file = "data.jsonl"
[task.columns]
secrets = "secrets"
[models.small]
kind = "scripted"
confidence = 0.5
replies = {{cat = "cat", dog = "cow", cow = "cow"}}
[models.large]
kind = "openai"
base_url = "{url}"
model = "rule"
retries = 0
usd_per_m_in = 1.0
{more}
[[points]]
strategy = "small"
[[points]]
strategy = "large"
[[points]]
strategy = "cascade"
[[points]]
strategy = "distil_labels"
items = 20
"""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def write_data(folder: Path) -> None:
    rng = random.Random(0)
    rows = []
    for i in range(ITEMS):
        label, name = rng.choice(LABELS), f"Ada{i:04}"
        rows.append({"text": f"{name} saw a {label} on day {i}", "label": label, "secrets": [name]})
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


def write(
    folder: Path,
    endpoint: Endpoint,
    *,
    more: str = "",
    concurrency: int = 4,
    attacks: Sequence[str] = (),  # each loads heavy packages
) -> Path:
    plan = folder / "desk.toml"
    text = PLAN.format(
        url=endpoint.url, more=more, concurrency=concurrency, attacks=json.dumps(list(attacks))
    )
    plan.write_text(text)
    return plan


def command(plan: Path, *flags: str) -> list[str]:
    return [*COSILO, "bench", str(plan), "--yes", *flags]


def bench(plan: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(plan, *flags), capture_output=True, text=True, timeout=300)


def outcome(run: Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything that must not depend on what happened on the way, by the points' names."""
    named = {id: name for name, id in json.loads((run / "run.json").read_text())["points"].items()}
    with closing(sqlite3.connect(run / "run.sqlite")) as db:
        items = db.execute(
            "SELECT trial, pass, split, id, answer, grade, small_text, refused, attempt FROM items"
        ).fetchall()
        trials = db.execute("SELECT id, state, attempt FROM trials").fetchall()
    counted: dict[tuple[str, str], int] = {
        (row[0], f"{row[2]}/{row[3]}"): row[-1] for row in items if row[1] == "plain"
    }
    prepared = {id: attempt for id, _, attempt in trials}
    with closing(connect(run / "ledger.sqlite")) as db:
        crossed = [
            # A reply holds the seconds it took, which differ between two calls of the endpoint.
            (
                named[e.chain],
                e.request,
                e.direction,
                e.content_digest if e.direction == "up" else b"",
            )
            for chain in named
            for e in read_entries(db, chain)
            if counted.get((e.chain, e.request), prepared[e.chain]) == e.attempt
        ]
    return {
        "items": sorted(
            (named[row[0]], *row[1:4], answer(row[4]), *row[5:-1])
            for row in items
            if row[0] in named
        ),
        "states": sorted((named[id], state) for id, state, _ in trials if id in named),
        "crossed": sorted(crossed),
    }


def answer(stored: bytes) -> bytes:
    """A stored answer without the time it took."""
    found = msgspec.msgpack.decode(stored, type=Answer)
    timeless = msgspec.structs.replace(found.generation, seconds=0, cpu_seconds=0)
    return msgspec.msgpack.encode(msgspec.structs.replace(found, generation=timeless))


def shown(run: Path) -> object:
    """The numbers that `select` reads, without those that are times."""
    found = subprocess.run(
        [*COSILO, "select", str(run), "--limit", "calls=1", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    timed = ("cpu_ms", "latency_ms", "latency_p95_ms", "memory_mb")
    points = json.loads(found.stdout)["points"]
    for point in points:
        del point["id"]
        for split in ("validation", "test"):
            point[split] = {k: v for k, v in point[split].items() if k not in timed}
    return points


def test_a_second_run_calls_nobody(folder: Path, endpoint: Endpoint) -> None:
    plan = write(folder, endpoint)
    first = bench(plan)
    assert first.returncode == 0, first.stderr
    assert "4 of 4 points done" in first.stdout
    calls = endpoint.total
    assert 0 < calls <= ITEMS
    assert max(endpoint.calls.values()) == 1
    before = outcome(folder / "runs" / "desk")
    second = bench(plan)
    assert second.returncode == 0, second.stderr
    assert endpoint.total == calls
    assert outcome(folder / "runs" / "desk") == before
    assert "trial" not in second.stderr  # nothing was done


def test_killed_at_any_moment_it_ends_with_the_same_result_and_pays_nothing_twice(
    folder: Path, endpoint: Endpoint
) -> None:
    # While it starts, after some calls, and (when no call is left to make) at its end.
    killed_and_resumed(folder, endpoint, (0, 1, 2, 5, 0, 8), random.Random(1))


def killed_and_resumed(
    folder: Path, endpoint: Endpoint, calls: Sequence[int], rng: random.Random
) -> int:
    """Fails unless a run that is killed again and again, after so many calls each, ends as one that
    was not; how many answers were kept before the last time it was started."""
    plan = write(folder, endpoint)
    whole, run = folder / "whole", folder / "killed"
    first = bench(plan, "--run", str(whole))
    assert first.returncode == 0, first.stderr
    unique = endpoint.total
    endpoint.calls.clear()
    endpoint.slow = 0.01
    keys = questions(plan)
    kept: dict[str, int] = {}
    for until in calls:
        process = subprocess.Popen(
            command(plan, "--run", str(run)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = endpoint.total
        while until and process.poll() is None and endpoint.total - before < until:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05) if until else rng.uniform(0, 1))
        process.kill()
        process.wait()
        assert {q: endpoint.calls[q] for q in kept} == kept  # what was kept was not asked again
        kept = {q: endpoint.calls[q] for q in recorded(run, keys)}
    assert len(kept) > 10
    last = bench(plan, "--run", str(run))
    assert last.returncode == 0, last.stderr
    assert {q: endpoint.calls[q] for q in kept} == kept
    assert len(endpoint.calls) == unique
    assert outcome(run) == outcome(whole)
    assert shown(run) == shown(whole)
    return len(kept)


def questions(plan: Path) -> dict[bytes, str]:
    """The key of each answer in the replay store → the question as the endpoint sees it."""
    read = load_plan(plan)
    task, model = load_task(read.task, read.base), identity(make_model(read.large))
    return {
        request_key(model, example.chat, task.sampling): last_user(example.chat)
        for examples in task.splits.values()
        for example in examples
    }


def recorded(run: Path, keys: Mapping[bytes, str]) -> list[str]:
    """The questions whose answers are kept."""
    if not (run / "replay.sqlite").exists():
        return []
    with closing(ReplayStore(run / "replay.sqlite")) as store:
        return [keys[key] for key in store.questions()]


def test_two_processes_do_not_work_on_one_run(folder: Path, endpoint: Endpoint) -> None:
    endpoint.slow = 0.05
    plan = write(folder, endpoint)
    first = subprocess.Popen(command(plan), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not endpoint.total:
            time.sleep(0.005)
        first.send_signal(signal.SIGSTOP)  # or it might be done before the second has started
        second = bench(plan)
        assert second.returncode == 4
        assert str(first.pid) in second.stderr
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    endpoint.slow = 0
    assert bench(plan).returncode == 0  # the lock went with its holder


@pytest.mark.parametrize("calls", [1, 30, 70])
@pytest.mark.usefixtures("foreground")
def test_an_interrupted_run_says_a_word_at_once_and_goes_on_later(
    folder: Path, endpoint: Endpoint, calls: int
) -> None:
    endpoint.slow = 0.05
    plan = write(folder, endpoint, concurrency=7)
    process = Process(command(plan))
    while endpoint.total < calls:
        assert process.child.poll() is None
        time.sleep(0.005)
    process.child.send_signal(signal.SIGINT)
    process.wait_for("stopping; what is done is kept", seconds=5)
    assert process.stop(0) == 130
    said = "".join(process.lines)
    assert "the same command goes on" in said
    assert "Warning" not in said  # such as: a coroutine was never awaited
    assert "Traceback" not in said
    endpoint.slow = 0
    assert bench(plan).returncode == 0


@pytest.mark.parametrize(
    "usage",
    [{"prompt_tokens": 20, "completion_tokens": 900_000_000}, {"prompt_tokens": -5}, "many"],
)
def test_no_claim_of_usage_passes_the_budget_and_a_dispute_is_said(
    folder: Path, endpoint: Endpoint, usage: object
) -> None:
    endpoint.usage = usage
    plan = write(folder, endpoint, more="usd_per_m_out = 1.0\n[budget]\nusd = 1.0\n")
    done = bench(plan)
    assert done.returncode == 0, done.stderr
    assert "claims more tokens than a request can have used" in done.stderr
    with closing(sqlite3.connect(folder / "runs" / "desk" / "run.sqlite")) as db:
        [(paid, calls)] = db.execute("SELECT sum(usd), count(*) FROM paid").fetchall()
    assert calls == endpoint.total
    assert 0 < paid < calls * 1000 / 1e6  # at most a prompt's bytes and the longest reply, each


def test_a_budget_that_runs_out_keeps_what_was_done(folder: Path, endpoint: Endpoint) -> None:
    # Each call is booked at its prompt's bound and billed 20 tokens, at a dollar a million.
    plan = write(folder, endpoint, more="[budget]\nmessages = 12\n", concurrency=2)
    first = bench(plan)
    assert first.returncode == 3
    assert endpoint.total == 12
    assert "messages would reach 13" in first.stderr
    assert "1 of 4 points done" in first.stdout
    run = folder / "runs" / "desk"
    states = dict(outcome(run)["states"])
    assert states["small"] == "done"
    assert states["large"] == "unaffordable"
    assert len(outcome(run)["items"]) > 12
    again = bench(plan)
    assert again.returncode == 3
    assert endpoint.total == 12  # the budget is the run's, not the process's
    write(folder, endpoint, more="", concurrency=2)
    assert bench(plan).returncode == 0
    assert max(endpoint.calls.values()) == 1


def test_an_endpoint_that_fails_half_way_is_resumed(folder: Path, endpoint: Endpoint) -> None:
    plan = write(folder, endpoint)
    endpoint.fail = lambda calls: 500 if calls >= 10 else None
    first = bench(plan)
    assert first.returncode == 1
    assert "500" in first.stderr
    assert "1 of 4 points done" in first.stdout
    assert "Traceback" not in first.stderr
    made = endpoint.total
    endpoint.fail = lambda _: None
    assert bench(plan).returncode == 0
    assert max(endpoint.calls.values()) == 1
    assert endpoint.total > made


def test_a_revoked_key_books_no_wrong_answers(folder: Path, endpoint: Endpoint) -> None:
    plan = write(folder, endpoint)
    endpoint.fail = lambda calls: 401 if calls >= 10 else None
    first = bench(plan)
    assert first.returncode == 1
    assert "401" in first.stderr
    refused = [row for row in outcome(folder / "runs" / "desk")["items"] if row[-1]]
    assert not refused


def test_offline_calls_nobody(folder: Path, endpoint: Endpoint) -> None:
    plan = write(folder, endpoint)
    first = bench(plan, "--offline")
    assert first.returncode == 1
    assert "--offline" in first.stderr
    assert "not tried: " in first.stderr
    assert (
        "not tried: not tried" not in first.stderr
    )  # why the first point failed, and not the last one
    assert endpoint.total == 0
    assert bench(plan).returncode == 0
    calls = endpoint.total
    assert bench(plan, "--offline", "--run", str(folder / "other")).returncode == 1
    with (folder / "desk.toml").open("a") as file:
        file.write(f'[replay]\npath = "{folder}/runs/desk/replay.sqlite"\n')
    shared = bench(plan, "--offline", "--run", str(folder / "third"))
    assert shared.returncode == 0, shared.stderr
    assert endpoint.total == calls


def test_it_does_not_spend_without_being_told(folder: Path, endpoint: Endpoint) -> None:
    plan = write(folder, endpoint)
    asked = subprocess.run(
        [*COSILO, "bench", str(plan)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    only = bench(plan, "--estimate")
    assert only.returncode == 0
    assert "LM calls" in only.stdout
    assert "$" in only.stdout
    assert endpoint.total == 0


def test_private_text_is_in_no_output(folder: Path, endpoint: Endpoint) -> None:
    plan = write(folder, endpoint)
    endpoint.fail = lambda calls: 500 if calls >= 10 else None
    for done in (bench(plan), bench(plan, "--estimate")):
        assert "Ada" not in done.stdout + done.stderr


def test_a_strategy_that_needs_what_a_model_does_not_show_is_refused_before_any_call(
    folder: Path, endpoint: Endpoint
) -> None:
    plan = write(folder, endpoint)
    plan.write_text(plan.read_text().replace("confidence = 0.5", "logprobs = false"))
    done = bench(plan)
    assert done.returncode == 2
    assert "point 'cascade' needs logprobs" in done.stderr
    assert endpoint.total == 0


def test_old_runs_are_scored_again_without_a_call(folder: Path, endpoint: Endpoint) -> None:
    plan = write(folder, endpoint, attacks=["relink"])
    assert bench(plan).returncode == 0
    run, calls = folder / "runs" / "desk", endpoint.total
    before = shown(run)
    (folder / "data.jsonl").unlink()  # a measure needs the run's folder, and nothing else
    with closing(sqlite3.connect(run / "run.sqlite")) as db:
        db.execute("DELETE FROM results")
        db.commit()
    done = subprocess.run([*COSILO, "attack", str(run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert shown(run) == before
    assert endpoint.total == calls
