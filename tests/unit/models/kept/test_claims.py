"""A question is asked by one process at a time, and whoever dies holds no claim."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cosilo
from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.errors import StoreError
from cosilo.models.kept.claims import Claims
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Sampling, user

HOLDING = """
import asyncio, sys
from pathlib import Path
from cosilo.models.kept.claims import Claims

async def hold():
    async with Claims(Path(sys.argv[1])).held(bytes.fromhex(sys.argv[2])):
        print("held", flush=True)
        sys.stdin.readline()

asyncio.run(hold())
"""
KEY, OTHER = bytes(32), bytes([1] * 32)


@contextmanager
def holding(path: Path, key: bytes) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the claim on `key` until it is told or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(path), key.hex()],
        env={**os.environ, "PYTHONPATH": str(Path(cosilo.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", ["told", "killed"])
async def test_a_claim_is_had_once_the_other_process_let_go_or_died(
    tmp_path: Path, how: str
) -> None:
    claims, had = Claims(tmp_path / "claims"), asyncio.Event()

    async def wait() -> None:
        async with claims.held(KEY):
            had.set()

    with holding(tmp_path / "claims", KEY) as process:
        async with claims.held(OTHER):  # another question is nobody's
            pass
        waiting = asyncio.create_task(wait())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        if how == "killed":
            process.kill()
        else:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        await asyncio.wait_for(had.wait(), 10)
        await waiting
    claims.close()


async def test_waiting_can_be_given_up(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims")
    with holding(tmp_path / "claims", KEY), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), claims.held(KEY):
            raise AssertionError("two hold it")
    async with asyncio.timeout(10), claims.held(KEY):
        pass
    claims.close()


async def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "none" / "claims")
    with pytest.raises(StoreError, match="cannot be locked"):
        async with claims.held(KEY):
            pass


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_another_process_asked_meanwhile_is_not_asked_again(
    tmp_path: Path, streamed: bool
) -> None:
    store, model = ReplayStore(tmp_path / "replay.sqlite"), ScriptedModel({"cat": "cat"})
    recorded = Recorded(LMOwner(model), store, of=model)
    ask = Ask(chat=user("a cat"), sampling=Sampling())
    key = recorded._key(ask.question())

    async def answer() -> str:
        if not streamed:
            reply: Message = await recorded.handle(ask)
            assert isinstance(reply, Completion)
            return reply.generation.text
        return "".join([delta.text async for delta in recorded.handle_stream(ask)])

    with holding(tmp_path / "replay.sqlite-claims", key) as process:
        asked = asyncio.create_task(answer())
        await asyncio.sleep(0)
        assert not (await asyncio.wait([asked], timeout=0.1))[0]
        there = ReplayStore(tmp_path / "replay.sqlite")
        other = Recorded(LMOwner(ScriptedModel({"cat": "theirs"})), there, of=model)
        reply = await other.inner.handle(ask)
        other._keep(key, ask, reply)
        process.kill()
        assert await asyncio.wait_for(asked, 10) == "theirs"
    there.close()
    store.close()
