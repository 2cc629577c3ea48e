"""What is asked for at once is written at once, in order, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from cosilo.boundary.record.batches import Batches


class Book:
    """Keeps the batches it is given; refuses odd numbers, and everything while `broken`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.broken = False
        self.room = asyncio.Event()
        self.room.set()

    async def write(self, batch: Sequence[int]) -> Sequence[Exception | None]:
        await self.room.wait()
        if self.broken:
            raise OSError("the disk is gone")
        self.batches.append(list(batch))
        return [ValueError(f"{n} is odd") if n % 2 else None for n in batch]


async def test_what_is_put_in_one_turn_is_written_together_in_order() -> None:
    book = Book()
    batches = Batches(book.write)
    await asyncio.gather(*(batches.put(n) for n in range(0, 20, 2)))
    await batches.put(20)
    assert book.batches == [list(range(0, 20, 2)), [20]]


async def test_what_comes_turn_after_turn_is_written_together_and_is_not_waited_for_without_end() -> (
    None
):
    book = Book()
    batches = Batches(book.write)
    waiting = []
    for n in range(0, 40, 2):  # as requests do that are read one after another
        waiting.append(asyncio.ensure_future(batches.put(n)))
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert [n for batch in book.batches for n in batch] == list(range(0, 40, 2))
    sizes = [len(batch) for batch in book.batches]
    assert 3 <= sizes[0] <= 6


async def test_what_comes_while_a_batch_is_written_is_the_next() -> None:
    book = Book()
    batches = Batches(book.write)
    book.room.clear()
    first = asyncio.ensure_future(batches.put(0))
    for _ in range(3):  # until it is being written
        await asyncio.sleep(0)
    later = [asyncio.ensure_future(batches.put(n)) for n in (2, 4)]
    await asyncio.sleep(0)
    assert not first.done()
    book.room.set()
    await asyncio.gather(first, *later)
    assert book.batches == [[0], [2, 4]]


async def test_one_that_is_refused_leaves_the_others_alone() -> None:
    book = Book()
    batches = Batches(book.write)
    found = await asyncio.gather(*(batches.put(n) for n in (2, 3, 4)), return_exceptions=True)
    assert found[0] is None
    assert isinstance(found[1], ValueError)
    assert found[2] is None


async def test_a_batch_that_fails_fails_for_all_and_the_next_is_tried() -> None:
    book = Book()
    batches = Batches(book.write)
    book.broken = True
    found = await asyncio.gather(batches.put(2), batches.put(4), return_exceptions=True)
    assert [type(f) for f in found] == [OSError, OSError]
    book.broken = False
    await batches.put(6)
    assert book.batches == [[6]]


async def test_one_whose_caller_is_cancelled_is_written_all_the_same() -> None:
    book = Book()
    batches = Batches(book.write)
    gone = asyncio.ensure_future(batches.put(2))
    await asyncio.sleep(0)
    gone.cancel()
    await batches.put(4)
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert book.batches == [[2, 4]]
