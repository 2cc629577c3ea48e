"""Writes that many tasks ask for at once, made together.

A commit costs a database far more than the rows in it, so what is asked for while a batch is being
written waits and makes up the next. When tasks come one at a time, each batch holds one item.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_TURNS = 4  # each costs the loop a look for what has come, some microseconds


class Batches(Generic[T, R]):
    """Items in the order they were put.

    Args:
        write: makes a batch last. It returns one entry per item, the exception to raise for it or
            what `put` returns; what it raises itself is raised for each of them.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]]) -> None:
        self._write = write
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._writer: asyncio.Task[None] | None = None

    def put(self, item: T) -> asyncio.Future[R]:
        """Done once `item` is written; it is also when its caller is cancelled while waiting."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, done))
        if self._writer is None:
            self._writer = loop.create_task(self._run())
        return done

    async def _run(self) -> None:
        try:
            while self._waiting:
                for _ in range(_TURNS):  # who is ready in these turns of the loop comes along
                    known = len(self._waiting)
                    await asyncio.sleep(0)
                    if len(self._waiting) == known:
                        break
                batch, self._waiting = self._waiting, []
                try:
                    outcomes = await self._write([item for item, _ in batch])
                except Exception as error:
                    outcomes = [error] * len(batch)
                except BaseException:
                    for _, done in batch:
                        done.cancel()
                    raise
                for (_, done), outcome in zip(batch, outcomes, strict=True):
                    if done.done():  # nobody waits for it any more
                        continue
                    if isinstance(outcome, Exception):
                        done.set_exception(outcome)
                    else:
                        done.set_result(outcome)
        finally:
            self._writer = None
