"""Heads of an LM's owner that compute on clients' encrypted vectors: a process for each client's keys.

    keys, part by part ──▶ KeyedHeads ──▶ a process with the head and these keys ◀──▶ vector, logits

Of too many processes, the least recently asked of the client with the most is ended; then its keys are
unknown, and the client sends them once more. What a client sends is read in its own process alone:
whatever it does to that one, no other client and no other part of this house notices.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

from cosilo.boundary.messages.encrypted import MOST_KEYS, EvaluationKeys
from cosilo.engines.ckks.layout import Floats
from cosilo.engines.ckks.process import HostedHead
from cosilo.errors import ModelError, RejectedError, UnknownKeysError

_UNKNOWN = "the head's owner has no such keys (any more): send them once more"

Name = tuple[str, str]  # a client, and the hash of its keys


class ComputingHead(Protocol):
    """A head with one client's keys, as `HostedHead` is one."""

    cpu_seconds: float

    @property
    def alive(self) -> bool: ...
    def logits(self, query: bytes, vectors: int = 1) -> bytes: ...
    def close(self) -> None: ...


Starts = Callable[[Floats, Floats, bytes, bytes], ComputingHead]


@dataclass(eq=False)
class _Coming:
    """Parts of keys."""

    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(eq=False)
class _Begun:
    """A process, and whose turn it is: one thread waits for it, however many of its client's vectors
    are here, and what it works in a turn is one vector's."""

    head: ComputingHead
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class KeyedHeads:
    """Those of all clients of one head.

    Args:
        weights, bias: of the head.
        most: processes in all, beside one of each client's that is being started.
        starts: makes one, given also the client's public key and the keys that turn ciphertexts.
    """

    def __init__(
        self, weights: Floats, bias: Floats, *, most: int = 4, starts: Starts = HostedHead
    ) -> None:
        self._weights, self._bias = weights, bias
        self._most = most
        self._starts = starts
        self._heads: OrderedDict[Name, _Begun] = OrderedDict()  # last used last
        self._coming: OrderedDict[Name, _Coming] = OrderedDict()  # the last begun last
        self._taking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by client
        self._starting: set[str] = set()  # clients; one that asks to forget leaves it

    async def take(self, client: str, message: EvaluationKeys) -> bool:
        """Take a part of a client's keys; whether all are here now.

        Raises:
            RejectedError: the parts are not of one, or are no keys for this head.
            UnknownKeysError: the client asked to forget them meanwhile.
            ModelError: no process could work with them.
        """
        async with self._taking[client]:  # what is sent twice starts one process
            return await self._taken((client, message.name), message)

    async def _taken(self, name: Name, message: EvaluationKeys) -> bool:
        client, _ = name
        if name in self._heads:
            return True
        coming = self._coming.setdefault(name, _Coming())
        while len(self._coming) > self._most:  # parts are memory, too
            del self._coming[_one_too_many(self._coming)]
        if (
            name not in self._coming
        ):  # this client has more than its part, and this set was the first
            raise RejectedError(
                f"parts of more than {self._most} sets of keys came; send one whole"
            )
        coming.parts[message.part] = message.packed
        if len(coming.parts) < message.parts:
            return False
        self._coming.pop(name, None)
        keys = b"".join(coming.parts[n] for n in sorted(coming.parts))
        if len(keys) > MOST_KEYS or hashlib.sha256(keys).hexdigest() != message.name:
            raise RejectedError("the parts of the keys are not what they should be together")
        turning, public = keys[: message.turning], keys[message.turning :]
        self._starting.add(client)
        head = await asyncio.to_thread(self._starts, self._weights, self._bias, public, turning)
        if client not in self._starting:
            head.close()
            raise UnknownKeysError(_UNKNOWN)
        self._keep(name, head)
        return True

    async def logits(self, client: str, name: str, query: bytes) -> tuple[bytes, float]:
        """Encrypted logits of an encrypted vector, and the CPU seconds they took.

        Raises:
            UnknownKeysError: the client's keys of that name are not here (any more).
            RejectedError: it is no vector for these keys.
            ModelError: the process has ended over it; the keys are unknown from then on.
        """
        self.require(client, name)
        begun = self._heads[client, name]
        self._heads.move_to_end((client, name))
        try:
            async with begun.turn:
                before = begun.head.cpu_seconds
                answer = await asyncio.to_thread(begun.head.logits, query)
                return answer, begun.head.cpu_seconds - before
        except ModelError:
            if self._heads.get((client, name)) is not begun:  # ended here, for other keys
                raise UnknownKeysError(_UNKNOWN) from None
            if not begun.head.alive:
                self._drop((client, name))
            raise

    def require(self, client: str, name: str) -> None:
        """Refuse keys that are not here, before anything is counted for them.

        Raises:
            UnknownKeysError: they are not.
        """
        begun = self._heads.get((client, name))
        if begun is not None and not begun.head.alive:
            self._drop((client, name))
            begun = None
        if begun is None:
            raise UnknownKeysError(_UNKNOWN)

    def forget(self, client: str) -> None:
        """Keep nothing of a client's keys, nor of those that a process is being started with."""
        self._starting.discard(client)
        for name in [name for name in self._coming if name[0] == client]:
            del self._coming[name]
        for name in [name for name in self._heads if name[0] == client]:
            self._drop(name)

    def close(self) -> None:
        for name in list(self._heads):
            self._drop(name)

    async def ended(self) -> None:
        """End all processes, without holding up whoever waits."""
        await asyncio.to_thread(self.close)

    def _keep(self, name: Name, head: ComputingHead) -> None:
        self._heads[name] = _Begun(head)
        while len(self._heads) > self._most:
            self._drop(_one_too_many(self._heads))

    def _drop(self, name: Name) -> None:
        begun = self._heads.pop(name, None)
        if begun is not None:
            begun.head.close()


def _one_too_many(names: Iterable[Name]) -> Name:
    """The first of the client with the most, so that one who has many takes nothing from the others."""
    listed = list(names)
    each = Counter(client for client, _ in listed)
    return max(listed, key=lambda name: each[name[0]])


class _Head(Protocol):
    weights: Floats
    bias: Floats
    clients: int


_kept: WeakKeyDictionary[object, KeyedHeads] = WeakKeyDictionary()


def keyed(head: _Head) -> KeyedHeads:
    """The processes of a head: one table for all clients."""
    found = _kept.get(head)
    if found is None:
        found = _kept[head] = KeyedHeads(head.weights, head.bias, most=head.clients)
        if (on_close := getattr(head, "on_close", None)) is not None:
            on_close(found.ended)
    return found
