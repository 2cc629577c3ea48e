"""The helper: whom it computes for, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cosilo.engines.base import Program, Setting
from cosilo.engines.spu import helper as helping
from cosilo.engines.spu.helper import AtHelper, Helper, Listens, _Open
from cosilo.engines.spu.run import Deadlines, JointRun
from cosilo.errors import EngineError
from joint_runs import scripted_engine

DEADLINES = Deadlines(step_s=3.0, silent_s=2.0, connect_s=5.0)
LISTENS = Listens()


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_engine(tmp_path, monkeypatch)


@pytest.fixture
async def agreed() -> str:
    async with JointRun(Program("well", {}), Setting(), ranks=(0,)) as run:
        return (await run.start()).agreed


class Serving:
    """A helper that listens."""

    def __init__(self, **options: Any) -> None:
        self.helper = Helper(LISTENS, **{"deadlines": DEADLINES, **options})
        self.port = 0
        self.opened: list[AtHelper] = []

    async def close(self) -> None:
        for owner in self.opened:
            owner.close()
        await self.helper.close()

    async def at(self, rank: Any, agreed: str, run: str = 32 * "a", **changed: Any) -> AtHelper:
        told: dict[str, Any] = {
            "run": run,
            "rank": rank,
            "program": Program("well", {}),
            "setting": Setting(),
            "agreed": agreed,
            "at": ("127.0.0.1", 9),
        }
        made = await AtHelper.open(("127.0.0.1", self.port), LISTENS, **{**told, **changed})
        self.opened.append(made)
        return made

    async def both(
        self, agreed: str, run: str = 32 * "a", second: dict[str, Any] | None = None
    ) -> list[AtHelper]:
        owners = (
            self.at(0, agreed, run),
            self.at(1, **{"agreed": agreed, "run": run} | (second or {})),
        )
        done = await asyncio.gather(*owners, return_exceptions=True)
        for each in done:
            if isinstance(each, BaseException):
                raise each
        return [each for each in done if isinstance(each, AtHelper)]


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    made = Serving(most=2, idle_s=5.0)
    made.port = await made.helper.open()
    yield made
    await made.close()
    assert made.helper.runs == 0


async def test_it_computes_when_both_owners_ask(serving: Serving, agreed: str) -> None:
    owners = await serving.both(agreed)
    assert len({owner.at for owner in owners}) == 2, "a link for each"
    for number in range(3):
        first, second = await asyncio.gather(*(o.step(number, 1 << 20, 9.0) for o in owners))
        assert first == second
        assert set(first) == {(0, 2), (1, 2), (2, 0), (2, 1)}
    assert await owners[0].count() == first
    owners[0].close()
    with pytest.raises(EngineError, match=r"ended|parted"):
        await owners[1].step(3, 1 << 20, 9.0)


@pytest.mark.parametrize(
    "changed",
    [{"program": Program("other", {})}, {"setting": Setting(bits=16)}, {"agreed": 64 * "0"}],
)
async def test_owners_that_opened_different_runs_get_none(
    serving: Serving, agreed: str, changed: dict[str, Any]
) -> None:
    with pytest.raises(EngineError, match=r"different runs|did not begin|ended|parted"):
        await serving.both(agreed, second=changed)


async def test_a_run_of_another_version_does_not_begin(serving: Serving) -> None:
    with pytest.raises(EngineError, match=r"same version|did not begin"):
        await serving.both(64 * "0")


async def test_steps_come_in_their_order_and_are_the_same_for_both(
    serving: Serving, agreed: str
) -> None:
    owners = await serving.both(agreed)
    with pytest.raises(EngineError, match="comes to next"):
        await owners[0].step(1, 1 << 20, 9.0)
    owners = await serving.both(agreed, 32 * "b")
    done = await asyncio.gather(
        *(o.step(0, most, 9.0) for o, most in zip(owners, (1, 2), strict=True)),
        return_exceptions=True,
    )
    assert all(isinstance(each, EngineError) for each in done)


async def test_it_serves_so_many_runs_and_owners_that_it_knows(agreed: str) -> None:
    made = Serving(most=1, owners=frozenset({"bank"}))
    made.port = await made.helper.open()
    with pytest.raises(EngineError, match="no owner of that certificate"):
        await made.at(0, agreed)
    await made.close()
    made = Serving(most=1)
    made.port = await made.helper.open()
    opening = asyncio.create_task(made.at(0, agreed))
    while not made.helper.runs:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    with pytest.raises(EngineError, match="as many runs as it may"):
        await made.at(0, agreed, 32 * "b")
    with pytest.raises(EngineError, match="two owners"):
        await made.at(0, agreed)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await made.close()


async def test_what_is_no_frame_and_who_is_idle_gets_no_run(agreed: str) -> None:
    made = Serving(idle_s=0.2)
    made.port = await made.helper.open()
    for garbage in (b"\xff" * 64, (5).to_bytes(4, "big") + b"hello"):
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(garbage)
        assert b"no frame of a helper" in await reader.read(1000)
        writer.close()
    owners = await made.both(agreed)
    await asyncio.sleep(0.5)
    for owner in owners:
        with pytest.raises(EngineError, match=r"too long|ended"):
            await owner.step(0, 1 << 20, 9.0)
    assert made.helper.runs == 0
    await made.close()


async def test_a_helper_that_is_not_there_is_told(agreed: str) -> None:
    made = Serving()
    made.port = 1
    with pytest.raises(EngineError, match="cosilo engines serve spu"):
        await made.at(0, agreed)


async def test_without_certificates_it_connects_to_its_own_machine_alone(
    serving: Serving, agreed: str
) -> None:
    with pytest.raises(EngineError, match="stays on one machine"):
        await serving.at(0, agreed, at=("10.0.0.1", 22))


def joins(helper: Helper, owner: str, rank: Any, run: str) -> bool:
    opening = _Open(32 * run, rank, "well", {}, 64, 18, 64 * "0", ("127.0.0.1", 9))
    try:
        helper._joined(opening, owner)
    except EngineError as error:
        if "as many runs as it may" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("first", [0, 1])
async def test_half_of_all_runs_are_a_data_owners_whoever_opens_them_first(first: int) -> None:
    helper = Helper(LISTENS, owners=frozenset({"lm", "bank", "clinic"}), most=4)
    for run in "12":
        for rank in (first, 1 - first):
            assert joins(helper, ("lm", "bank")[rank], rank, run)
    assert joins(helper, "lm", 0, "3"), "an LM's owner is in all of them"
    assert not joins(helper, "bank", 1, "3")
    assert joins(helper, "clinic", 1, "3")
    assert not joins(helper, "bank", 1, "4")
    assert joins(helper, "clinic", 1, "4")
    assert not joins(helper, "lm", 0, "5"), "there are four"


async def test_who_opens_runs_that_nobody_else_does_gets_half_of_them() -> None:
    helper = Helper(LISTENS, owners=frozenset({"lm", "bank"}), most=4)
    assert [joins(helper, "bank", 0, run) for run in "123"] == [True, True, False]
    assert joins(helper, "lm", 0, "4")


async def test_whom_it_waits_for_is_said(monkeypatch: pytest.MonkeyPatch, agreed: str) -> None:
    monkeypatch.setattr(helping, "_BOTH_S", 0.2)
    made = Serving(deadlines=replace(DEADLINES, step_s=0.2, connect_s=0.2))
    made.port = await made.helper.open()
    try:
        with pytest.raises(EngineError, match="other owner has not opened"):
            await made.at(0, agreed)
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        assert b"no run was opened" in await reader.read(1000)
        writer.close()
        one, _ = await made.both(agreed, 32 * "b")
        with pytest.raises(EngineError, match="have not done the step"):
            await one.step(0, 1 << 20, 9.0)
    finally:
        await made.close()


async def test_owners_wait_while_it_compiles(
    monkeypatch: pytest.MonkeyPatch, serving: Serving, agreed: str
) -> None:
    async def slowly(run: JointRun) -> None:
        await asyncio.sleep(0.5)

    monkeypatch.setattr(helping, "_BOTH_S", 0.2)
    monkeypatch.setattr(helping, "_CONNECT_S", 0.1)
    monkeypatch.setattr(JointRun, "compile", slowly)
    assert len(await serving.both(agreed)) == 2
    monkeypatch.setattr(helping, "START_S", 0.2)
    with pytest.raises(EngineError, match=r"not compiled the program|stalled"):
        await serving.both(agreed, 32 * "b")
