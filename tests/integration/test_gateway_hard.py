"""The gateway under a full disk, hostile clients and kill -9; and a run that is served."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.integration.gateway import MAIN, Mock, fetch, mocking, serving, upstream

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gateway"))

import fuzz
import kill9

POINT = '[[points]]\nname = "ok"\nstrategy = "large"\nlarge = "lm"\n'


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with mocking() as found:
        yield found


def ask(client: openai.OpenAI, model: str = "cosilo/ok", text: str = "hello") -> str:
    reply = client.chat.completions.create(
        model=model, max_tokens=4, messages=[{"role": "user", "content": text}]
    )
    return reply.choices[0].message.content or ""


def test_with_a_full_disk_nothing_is_sent_and_no_charge_is_lost(mock: Mock, tmp_path: Path) -> None:
    mock.reset()
    with serving(tmp_path, upstream("lm", mock, "ok") + POINT) as gateway:
        client = openai.OpenAI(base_url=gateway.url, api_key=gateway.key("k"), max_retries=0)
        assert ask(client) == "w0 w1 w2 w3"
        largest = max(p.stat().st_size for p in (tmp_path / "store").iterdir() if p.is_file())
        # Files of this process may not grow beyond that: to it the disk is as good as full.
        soft = largest + 20_000
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
        answered = 1

        def until_it_is_full() -> None:
            nonlocal answered
            for _ in range(300):
                ask(client)
                answered += 1

        with pytest.raises(openai.InternalServerError) as caught:
            until_it_is_full()
        assert caught.value.code == "store_unavailable"
        refused = mock.seen()["answered"]
        assert refused - answered <= 1  # at most the reply that could not be recorded
        # A write-ahead log that starts over has room again; below one page there is none at all.
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        for _ in range(5):
            with pytest.raises(openai.InternalServerError):
                ask(client)
        assert mock.seen()["answered"] == refused
        resource.prlimit(
            gateway.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )
        assert ask(client) == "w0 w1 w2 w3"
        client.close()
        assert json.loads(fetch(f"{gateway.root}/readyz"))["status"] == "ready"
        seen = mock.seen()
        end = time.monotonic() + 40
        while (state := gateway.spent("k")).held.usd:  # what could not be settled is tried again
            assert time.monotonic() < end
            time.sleep(0.1)
        assert state.used.tokens_in == seen["prompt_tokens"]
        assert state.used.tokens_out == seen["completion_tokens"]


def test_hostile_clients_do_not_get_it_down(mock: Mock, tmp_path: Path) -> None:
    mock.reset()
    with serving(tmp_path, upstream("lm", mock, "ok") + POINT) as gateway:
        statuses, faults, grown = asyncio.run(
            fuzz.run(
                gateway.root, gateway.key(), "cosilo/ok", count=500, seed=1, pid=gateway.pid,
                concurrency=8, huge_every=250,
            )
        )  # fmt: skip
        assert faults == []
        assert grown < 150
        assert statuses["400"] > 100
        assert statuses["413"] + statuses["0"] > 0
        # Without the access log, which has no text, it said nothing about them.
        said = [line for line in gateway.process.lines if not line.startswith('{"at":')]
        assert len(said) <= 1, said[1:]


def test_killed_under_load_it_comes_back_and_the_books_agree(tmp_path: Path) -> None:
    with mocking() as mock:
        outcome = asyncio.run(kill9.torment(tmp_path, mock, kills=2, clients=3, seed=3))
    assert outcome.faults == []
    assert len(outcome.whole) > 5


PLAN = """
name = "desk"
[attacks]
names = []
[task]
kind = "classification"
file = "data.jsonl"
[models.small]
kind = "scripted"
confidence = 0.5
replies = {cat = "cat", dog = "cow", cow = "cow"}
[models.large]
kind = "scripted"
replies = {cat = "cat", dog = "dog", cow = "cow"}
usd_per_m_in = 1.0
[[points]]
strategy = "small"
[[points]]
strategy = "cascade"
calls = 0.5
"""


def test_a_point_of_a_run_is_served_as_it_was_measured(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = []
    for i in range(60):
        label = draw.choice(("cat", "dog", "cow"))
        rows.append({"text": f"Ada{i:04} saw a {label}", "label": label})
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "desk.toml").write_text(PLAN)
    bench = [sys.executable, "-c", MAIN, "bench", "desk.toml", "--yes"]
    done = subprocess.run(bench, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (tmp_path / "server.toml").write_text('[server]\nport = 0\n[store]\nurl = "store"\n')
    flags = ["runs/desk", "--point", "cascade", "--config", "server.toml"]
    with serving(tmp_path, None, flags=flags) as gateway:
        client = openai.OpenAI(base_url=gateway.url, api_key=gateway.key(), max_retries=0)
        assert [m.id for m in client.models.list()] == ["cosilo/cascade"]
        raw = client.chat.completions.with_raw_response.create(
            model="cosilo/cascade", messages=[{"role": "user", "content": "Bob saw a dog"}]
        )
        assert raw.parse().choices[0].message.content in ("cow", "dog")
        assert raw.headers["x-cosilo-strategy"] == "cascade"
        client.close()
