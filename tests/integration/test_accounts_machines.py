"""Several machines: gateways that share only a PostgreSQL and a secret keep one set of books."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.integration.gateway import MAIN, Mock, Process, mocking, upstream

from cosilo.gateway.accounts.accounts import Limits
from cosilo.gateway.accounts.keys import KeyState, NewKey, read_secret
from cosilo.gateway.record.audit import open_record
from cosilo.gateway.record.store import open_store

ONE = (4 + 2 * 48) / 1e6  # dollars: what the mock bills for "hello" and 48 words
BODY = {
    "model": "cosilo/ok", "max_tokens": 48, "messages": [{"role": "user", "content": "hello"}],
}  # fmt: skip


@pytest.fixture
def mock() -> Iterator[Mock]:
    with mocking() as found:
        yield found


@contextmanager
def machine(
    folder: Path, url: str, secret: Path, mock: Mock, *, workers: int = 2
) -> Iterator[tuple[Process, str]]:
    """A gateway process in a folder of its own, and its address."""
    folder.mkdir(exist_ok=True)
    (folder / "gateway.toml").write_text(
        f'[server]\nport = 0\nworkers = {workers}\n[store]\nurl = "{url}"\nsecret = "{secret}"\n'
        + upstream("lm", mock, "slow-50")
        + '[[points]]\nname = "ok"\nstrategy = "large"\nlarge = "lm"\n'
    )
    process = Process([sys.executable, "-c", MAIN, "serve", "gateway.toml"], cwd=folder)
    try:
        port = process.wait_for(r"at http://[^:]+:(\d+)/v1", times=workers, seconds=60)[1]
        yield process, f"http://127.0.0.1:{port}/v1/chat/completions"
    finally:
        process.stop()


async def ask(addresses: list[str], bearer: str, count: int) -> list[int]:
    """The statuses of `count` requests and streams at once, 0 for those that were cut off."""
    headers = {"authorization": f"Bearer {bearer}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def one(i: int) -> int:
            body = {**BODY, "stream": i % 3 == 0}
            try:
                async with session.post(addresses[i % len(addresses)], json=body) as reply:
                    await reply.read()
                    return reply.status
            except aiohttp.ClientError:
                return 0

        return await asyncio.gather(*map(one, range(count)))


async def make(url: str, secret: Path, limit: float) -> NewKey:
    store = await open_store(url, secret=secret, work=False)
    made = await store.create_key("shared", limits=Limits(usd=limit))
    await store.close()
    return made


async def state(url: str, secret: Path) -> KeyState:
    store = await open_store(url, secret=secret, work=False)
    found = (await store.list_keys())[0]
    await store.close()
    return found


def test_two_machines_share_one_budget_and_one_record(
    postgres: Callable[[], str], mock: Mock, tmp_path: Path
) -> None:
    url, secret = postgres(), tmp_path / "secret"
    made = asyncio.run(make(url, secret, 50 * ONE))
    with ExitStack() as stack:
        addresses = [
            stack.enter_context(machine(tmp_path / name, url, secret, mock))[1]
            for name in ("one", "two")
        ]
        statuses = asyncio.run(ask(addresses, made.bearer, 200))
    served = statuses.count(200)
    assert set(statuses) == {200, 429}
    seen = mock.seen()
    assert served == seen["answered"]
    now = asyncio.run(state(url, secret))
    assert now.used.tokens_out == seen["completion_tokens"]
    assert now.used.usd == pytest.approx(served * ONE)
    assert now.used.usd <= 50 * ONE
    assert now.held.usd == 0
    with open_record(url, secret=read_secret(secret, make=False)) as record:
        verdict = record.verify()
    assert verdict.faults == []
    assert sum(verdict.chains.values()) == 2 * served
    assert len(verdict.chains) > 1


def test_a_machine_that_dies_loses_no_charge(
    postgres: Callable[[], str], mock: Mock, tmp_path: Path
) -> None:
    url, secret = postgres(), tmp_path / "secret"
    made = asyncio.run(make(url, secret, 1.0))
    with machine(tmp_path / "one", url, secret, mock, workers=1) as (process, address):

        async def die() -> list[int]:
            asking = asyncio.create_task(ask([address], made.bearer, 40))
            await asyncio.to_thread(mock.until, "requests", 10)
            process.child.send_signal(signal.SIGKILL)
            return await asking

        statuses = asyncio.run(die())
    assert statuses.count(0) > 0
    with machine(tmp_path / "two", url, secret, mock, workers=1) as (_, address):
        now = asyncio.run(state(url, secret))
        assert now.held.usd == 0
        assert now.held.requests == 0
        assert now.used.usd >= mock.seen()["answered"] * ONE - 1e-9
        assert asyncio.run(ask([address], made.bearer, 2)) == [200, 200]
    with open_record(url, secret=read_secret(secret, make=False)) as record:
        assert record.verify().faults == []
