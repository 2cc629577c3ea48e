"""Work in a thread of its own: its result, its error, and nobody who waits for it when told to stop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cosilo.interrupts import in_thread


async def test_the_loop_goes_on_and_the_result_comes_back() -> None:
    turn = threading.Event()
    asyncio.get_running_loop().call_soon(turn.set)
    assert await in_thread(lambda: turn.wait(10)) is True


async def test_what_it_raises_is_raised() -> None:
    with pytest.raises(KeyError, match="x"):
        await in_thread(lambda: {}["x"])


def test_a_loop_that_ends_does_not_wait_for_it() -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(30)

    async def main() -> None:
        task = asyncio.create_task(in_thread(work))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not release.is_set()
    release.set()
