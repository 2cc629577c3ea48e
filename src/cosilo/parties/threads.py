"""The threads that an LM's owner has under way: what was computed of each, until it is forgotten.

    name ──▶ Thread: text, tokens, the model's past ──▶ goes on in place, or as a copy from a place
                                                        that others may still go on from

Names are hashes of the content, and every client has its own: another client's thread is as unknown as
one that never was.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from cosilo.boundary.messages.forward import StatesName
from cosilo.boundary.messages.step import ThreadName
from cosilo.errors import UnknownThreadError
from cosilo.models.base import Past, StatePast

_NAME_SIZE = 160  # bytes that a name takes in memory, about


@dataclass(eq=False)
class KeptState:
    """What is kept of one thread.

    Attributes:
        names: the names that it is known by, and how much of it each stands for.
    """

    client: str
    names: dict[bytes, int] = field(default_factory=dict, kw_only=True)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, kw_only=True)

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return _NAME_SIZE * len(self.names)


@dataclass(eq=False)
class KeptThread(KeptState):
    """A reply so far, and what a model has computed of it.

    Attributes:
        prompt: the tokens in front of the reply.
        past: what the model has read; its tokens are the first of prompt and reply.
        text: the reply, with what was only drafted.
        ids: its tokens.
        ends: where each of them ends in `text`.
        settled: the bytes of `text` that were more than drafted.
    """

    begin: ThreadName
    prompt: Sequence[int]
    past: Past | None = None
    text: bytes = b""
    ids: Sequence[int] = ()
    ends: Sequence[int] = ()
    settled: int = 0

    @property
    def size(self) -> int:
        own = super().size + len(self.text) + 16 * len(self.prompt)
        return own + (self.past.size if self.past is not None else 0)


@dataclass(eq=False)
class KeptStates(KeptState):
    """States that were sent so far, and what a model's layers have computed of them.

    Attributes:
        points: where a message ended, and the name of the states up to there.
        first, last: the layers that they go through; `last` None for all, and what they predict.
        body: the version of the client's own adapter that these have; empty for none.
    """

    points: dict[int, StatesName]
    first: int
    last: int | None
    body: bytes = b""
    past: StatePast | None = None

    @property
    def size(self) -> int:
        return super().size + (self.past.size if self.past is not None else 0)


K = TypeVar("K", bound=KeptState)


class Threads:
    """Those of all clients; of each client, and of all, the least recently used are forgotten first.

    Args:
        most: threads of one client.
        size: bytes that the threads of one client take, about.
        total: bytes that all threads take, about.

    A thread that is being worked on stays, whatever its size.
    """

    def __init__(self, *, most: int = 64, size: int = 512 << 20, total: int = 2 << 30) -> None:
        self.most = most
        self.size = size
        self.total = total
        self._kept: OrderedDict[KeptState, int] = (
            OrderedDict()
        )  # each with its size; last used last
        self._names: dict[tuple[str, bytes], KeptState] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, client: str, name: bytes, kind: type[K]) -> K | None:
        kept = self._names.get((client, name))
        return kept if isinstance(kept, kind) else None

    @asynccontextmanager
    async def using(self, client: str, name: bytes, kind: type[K]) -> AsyncIterator[tuple[K, int]]:
        """The thread of this name and how much of its text that stands for, for nobody else meanwhile.

        Raises:
            UnknownThreadError: there is none, or it is another client's.
        """
        while (kept := self.find(client, name, kind)) is not None:
            async with kept.lock:
                if self.find(client, name, kind) is not kept:
                    continue  # while this one waited, it became another's
                yield kept, kept.names[name]
                return
        raise UnknownThreadError(
            "the large model's owner has no such thread (any more): open it again with all it holds"
        )

    def keep(self, kept: KeptState, names: dict[bytes, int]) -> None:
        """Note that `kept` was used, and is known by `names` alone; forget what is too much then."""
        for name in kept.names.keys() - names.keys():
            if self._names.get((kept.client, name)) is kept:
                del self._names[kept.client, name]
        kept.names = names
        for name in names:
            other = self._names.get((kept.client, name))
            self._names[kept.client, name] = kept
            if other is not None and other is not kept:
                del other.names[name]
                if not other.names and not other.lock.locked():
                    self.forget(other)
        self._kept[kept] = kept.size
        self._kept.move_to_end(kept)
        self._shrink(kept)

    def forget(self, kept: KeptState) -> None:
        for name in kept.names:
            if self._names.get((kept.client, name)) is kept:
                del self._names[kept.client, name]
        kept.names = {}
        self._kept.pop(kept, None)

    async def forget_all(self, client: str) -> int:
        """Forget all of a client's, those that are worked on once that is done; how many."""
        own = [kept for kept in self._kept if kept.client == client]
        for kept in own:
            async with kept.lock:
                self.forget(kept)
        return len(own)

    def _shrink(self, used: KeptState) -> None:
        own = [k for k in self._kept if k.client == used.client]
        count, size = len(own), sum(self._kept[k] for k in own)
        total = sum(self._kept.values())
        for kept in list(self._kept):
            if count <= self.most and size <= self.size and total <= self.total:
                return
            if kept is used or kept.lock.locked():
                continue
            mine = kept.client == used.client
            if total > self.total or (mine and (count > self.most or size > self.size)):
                took = self._kept[kept]
                count, size, total = count - mine, size - took * mine, total - took
                self.forget(kept)
