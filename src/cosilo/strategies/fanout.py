"""Many crossings at once, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def fan_out(
    function: Callable[[A], Awaitable[B]], items: Sequence[A], *, concurrency: int = 8
) -> list[B]:
    """`function` of every item, in the items' order.

    The first error cancels what is still under way and is raised as it is.
    """
    gate = asyncio.Semaphore(concurrency)

    async def one(item: A) -> B:
        async with gate:
            return await function(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
