"""A memory that keeps what was used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Recent(Generic[K, T]):
    """A mapping that keeps the entries used last, up to a total weight of `size`.

    Args:
        weigh: the weight of an entry; 1 each where not given.
    """

    def __init__(self, size: int, weigh: Callable[[T], int] = lambda _: 1) -> None:
        self._size = size
        self._weigh = weigh
        self._held = 0
        self._entries: OrderedDict[K, T] = OrderedDict()

    def get(self, key: K) -> T | None:
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: K, value: T) -> None:
        if key in self._entries:
            self._held -= self._weigh(self._entries[key])
        self._entries[key] = value
        self._entries.move_to_end(key)
        self._held += self._weigh(value)
        while self._held > self._size:
            self._held -= self._weigh(self._entries.popitem(last=False)[1])

    def __len__(self) -> int:
        return len(self._entries)
