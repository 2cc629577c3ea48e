"""Writes that many tasks ask for at once, made together.

A commit costs a database far more than the rows in it, so what is asked for while a batch is being
written waits and makes up the next. When tasks come one at a time, each batch holds one item.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Batches(Generic[T]):
    """Items in the order they were put.

    Args:
        write: makes a batch last. It returns one entry per item, the exception to raise for it or
            None; what it raises itself is raised for each of them.
    """

    def __init__(
        self, write: Callable[[Sequence[T]], Awaitable[Sequence[Exception | None]]]
    ) -> None:
        self._write = write
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def put(self, item: T) -> None:
        """Returns once `item` is written; it is also when its caller is cancelled while waiting."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((item, done))
        if self._writer is None:
            self._writer = loop.create_task(self._run())
        await done

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # who is ready in this turn of the loop comes along
                batch, self._waiting = self._waiting, []
                try:
                    failures = await self._write([item for item, _ in batch])
                except Exception as error:
                    failures = [error] * len(batch)
                except BaseException:
                    for _, done in batch:
                        done.cancel()
                    raise
                for (_, done), failure in zip(batch, failures, strict=True):
                    if done.done():  # nobody waits for it any more
                        continue
                    if failure is None:
                        done.set_result(None)
                    else:
                        done.set_exception(failure)
        finally:
            self._writer = None
