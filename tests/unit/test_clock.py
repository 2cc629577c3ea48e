"""Time is counted where it is spent: own steps, own threads, never somebody else's."""

from __future__ import annotations

import asyncio
import gc
from time import thread_time

import pytest

from cosilo.clock import Clock, aside, charge, install, timed


def burn(seconds: float) -> None:
    end = thread_time() + seconds
    while thread_time() < end:
        pass


@pytest.fixture(autouse=True)
async def clocked() -> None:
    install(asyncio.get_running_loop())


async def work(seconds: float) -> str:
    await asyncio.sleep(0)
    burn(seconds)
    await asyncio.sleep(0)
    return "done"


async def test_items_under_way_together_are_told_apart() -> None:
    short, long = Clock(), Clock()
    results = await asyncio.gather(timed(work(0.01), short), timed(work(0.03), long))
    assert results == ["done", "done"]
    assert 0.009 < short.cpu_seconds < 0.02
    assert 0.029 < long.cpu_seconds < 0.04
    assert short.seconds >= short.cpu_seconds * 0.9


async def test_waiting_costs_nothing() -> None:
    clock, gate = Clock(), asyncio.Event()

    async def other() -> None:
        burn(0.03)
        gate.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(timed(gate.wait(), clock))
        group.create_task(other())
    assert clock.seconds < 0.01


async def test_child_tasks_and_threads_are_counted() -> None:
    clock = Clock()

    async def parent() -> None:
        await asyncio.gather(work(0.01), work(0.01))
        await asyncio.to_thread(burn, 0.02)

    await timed(parent(), clock)
    assert 0.038 < clock.cpu_seconds < 0.06


async def test_what_runs_aside_goes_to_its_own_clock() -> None:
    clock, lm = Clock(), Clock()

    async def model() -> None:
        await work(0.02)
        await asyncio.to_thread(burn, 0.02)
        await asyncio.gather(work(0.01))

    async def item() -> None:
        burn(0.01)
        await aside(model(), lm)

    await timed(item(), clock)
    assert 0.009 < clock.cpu_seconds < 0.02
    assert 0.049 < lm.cpu_seconds < 0.07


async def test_errors_and_cancellation_pass_through() -> None:
    clock = Clock()

    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await timed(failing(), clock)
    started = asyncio.Event()

    async def hanging() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            burn(0.005)
            raise

    task = asyncio.create_task(timed(hanging(), clock))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.cpu_seconds > 0.004


async def test_an_error_thrown_in_can_be_handled_inside() -> None:
    async def item() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "handled"
        return "not reached"

    assert await timed(item(), Clock()) == "handled"


async def test_a_task_that_is_cancelled_before_it_began_leaves_nothing_behind() -> None:
    """Python would warn of a coroutine that was never awaited, and warnings fail the tests."""
    ended: list[str] = []

    async def begun() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("begun")

    async def item() -> None:
        await timed(begun(), Clock())

    for steps in range(4):
        task = asyncio.get_running_loop().create_task(item())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended == ["begun", "begun"]
    gc.collect()


async def test_a_coroutine_that_is_closed_closes_what_it_waits_for() -> None:
    closed: list[bool] = []

    async def open_ended() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    waiting = aside(open_ended())
    waiting.send(None)
    waiting.close()
    assert closed == [True]


async def test_what_a_process_apart_does_is_charged_to_whoever_it_is_for() -> None:
    outer, large = Clock(), Clock()

    async def item() -> None:
        charge(2.0)
        await aside(lm(), large)

    async def lm() -> None:
        charge(30.0)

    await timed(item(), outer)
    charge(500.0)  # nobody is timed here
    assert 2.0 <= outer.cpu_seconds < 3.0
    assert outer.seconds < 1.0
    assert 30.0 <= large.cpu_seconds < 31.0
