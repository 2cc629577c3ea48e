"""Adapters that an LM's owner trains on its own layers, one for each client that asked.

    open ─▶ version 0 ── step ─▶ 1 ── step ─▶ … k-1 ── step ─▶ k
                                              └ kept, too: who did not hear of step k goes on from here

The last version and the one before are kept: a client that was stopped between a step and its own note
of it comes back with the one before. The same gradient leads to the version that is there already, and
the reply that it gave is given again; another gradient takes the place of that step. With a folder all
of it is on the disk before a step is answered.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cosilo.boundary.messages.body import Body, BodyVersion, OpenBody
from cosilo.boundary.messages.forward import Backward
from cosilo.boundary.wire import states
from cosilo.errors import RejectedError, StoreError, UnknownThreadError
from cosilo.models.base import Array
from cosilo.models.parts import LayerRange, PartModel, PartTuning, Passed
from cosilo.parties.threads import KeptState


@dataclass(frozen=True, kw_only=True)
class BodyTuning:
    """How an LM's owner trains adapters for its clients.

    Attributes:
        rank: of an adapter's matrices.
        learning_rate: of each step.
        clip: gradients of an adapter are scaled down to this norm.
        most: adapters of one client.
        steps: of one adapter, at most.
        folder: where they are kept; in memory alone when unset.
    """

    rank: int = 8
    learning_rate: float = 2e-4
    clip: float = 1.0
    most: int = 8
    steps: int = 100_000
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name in ("rank", "most", "steps"):
            if not 1 <= getattr(self, name) < 1 << 16 << (name == "steps") * 8:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not from 1 on, or too large")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < 1e6:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive and finite")


@dataclass(eq=False)
class KeptBatch(KeptState):
    """Several texts' states that went through layers, until their gradient comes.

    Attributes:
        part: what they went through, as it is.
        body: the version of the adapter that they went through; empty where it has none.
        passed: what their gradient needs.
    """

    part: LayerRange
    body: bytes
    passed: Passed

    @property
    def size(self) -> int:
        return super().size + self.passed.size


class KeptBody:
    """One adapter, at its last version or, for one message, at the one before.

    Args:
        part: the layers with the adapter, as it is at `now`.
        now: its last version.
        first, last: its layers.
        folder: where it is kept.
        begun: what it was at version 0.
    """

    def __init__(
        self,
        part: LayerRange,
        now: BodyVersion,
        first: int,
        last: int,
        folder: Path | None,
        begun: Mapping[str, Any],
    ) -> None:
        self.part = part
        self.now = now
        self.first, self.last = first, last
        self.lock = asyncio.Lock()
        self._folder = folder
        self._begun = begun
        self._before: tuple[BodyVersion, Mapping[str, Any]] | None = None
        self._reply = b""

    @property
    def versions(self) -> tuple[bytes, ...]:
        """Those that are kept, the last first."""
        before = () if self._before is None else (bytes(self._before[0]),)
        return (bytes(self.now), *before)

    async def begin(self, first: BodyVersion) -> None:
        """Be at version 0, whatever came of it before."""
        await self.part.restore(self._begun)
        self.now, self._before, self._reply = first, None, b""
        if self._folder is not None:
            for path in self._files():
                path.unlink(missing_ok=True)

    async def forward(self, name: bytes, given: Array, lengths: Sequence[int]) -> Passed:
        """What the version `name` makes of several texts' states."""
        if name == bytes(self.now):
            return await self.part.forward(given, lengths)
        assert self._before is not None
        now = await self.part.state()
        await self.part.restore(self._before[1])
        try:
            return await self.part.forward(given, lengths)
        finally:
            await self.part.restore(now)

    async def step(self, message: Backward, batch: KeptBatch, most: int) -> bytes:
        """A step from the version that `message` names; the packed gradient that it is answered with.

        Raises:
            RejectedError: the adapter's gradient is not finite, or it has taken `most` steps.
            StoreError: the step cannot be kept, and is not taken then.
        """
        begun = BodyVersion.named(message.body)
        made = begun.after(message)
        if bytes(made) == bytes(self.now):
            return self._reply
        if begun.step >= most:
            raise RejectedError(f"the adapter has taken {begun.step} steps, which is all it may")
        if message.body != bytes(self.now):
            assert self._before is not None
            self.now, state = self._before
            self._before, self._reply = None, b""
            await self.part.restore(state)
            await self._drop_after(begun.step)
        state = await self.part.state()
        found = await self.part.step(batch.passed, message.array())
        reply = states.pack_by(message.back, found)
        if self._folder is not None:
            try:
                await self.part.write(self._folder / _file(made), reply, bytes(made).hex())
            except BaseException:
                await self.part.restore(state)
                raise
        self._before, self.now, self._reply = (begun, state), made, reply
        await self._drop_before(begun.step)
        return reply

    async def read(self) -> None:
        """Be at the last version in the folder, where there is any.

        Raises:
            StoreError: it cannot be read.
        """
        files = self._files()
        if not files:
            return
        before = (self.now, self._begun)
        if len(files) > 1:
            state, _, name = await self.part.read(files[-2])
            before = (BodyVersion.named(bytes.fromhex(name)), state)
        state, self._reply, name = await self.part.read(files[-1])
        await self.part.restore(state)
        self.now = BodyVersion.named(bytes.fromhex(name))
        self._before = before if before[0].step == self.now.step - 1 else None

    def _files(self) -> list[Path]:
        assert self._folder is not None
        return sorted(self._folder.glob("*.safetensors"))

    async def _drop_before(self, step: int) -> None:
        await self._drop(lambda there: there < step)

    async def _drop_after(self, step: int) -> None:
        await self._drop(lambda there: there > step)

    async def _drop(self, which: Callable[[int], bool]) -> None:
        if self._folder is None:
            return
        for path in self._files():
            if which(int(path.name.partition("-")[0])):
                path.unlink(missing_ok=True)


def _file(version: BodyVersion) -> str:
    return f"{version.step:010d}-{bytes(version).hex()}.safetensors"


class ClientBodies:
    """The adapters of all clients of one LM owner."""

    def __init__(self, tuning: BodyTuning) -> None:
        self.tuning = tuning
        self._kept: dict[str, dict[bytes, KeptBody]] = {}  # client → version 0 → adapter
        self._opening = asyncio.Lock()

    async def open(self, client: str, model: PartModel, asked: OpenBody) -> Body:
        """Begin an adapter, or take one up at the version that its client has come to.

        Raises:
            UnknownThreadError: that version is not there (any more).
            RejectedError: the client has as many as it may, or there are no such layers.
            StoreError: what was kept cannot be read.
        """
        tuning = self.tuning
        said = Body(
            layers=model.layers,
            rank=tuning.rank,
            learning_rate=tuning.learning_rate,
            clip=tuning.clip,
        )
        first = BodyVersion.first(asked, said)
        async with self._opening:
            own = self._kept.setdefault(client, {})
            kept = own.get(bytes(first))
            if kept is None:
                kept = await self._taken_up(client, model, asked, first)
            async with kept.lock:
                if not asked.at:
                    await kept.begin(first)
                elif asked.at not in kept.versions:
                    raise UnknownThreadError(_GONE)
            own[bytes(first)] = kept
        return said

    def find(self, client: str, name: bytes) -> KeptBody:
        """The adapter of which `name` is the last version, or the one before.

        Raises:
            UnknownThreadError: there is none, or it is another client's.
        """
        for kept in self._kept.get(client, {}).values():
            if name in kept.versions:
                return kept
        raise UnknownThreadError(_GONE)

    def versions(self, client: str) -> dict[str, tuple[str, ...]]:
        """Each adapter of the client's, by the name of its first version: the names of those that are
        kept, the last one first; in memory or on disk."""
        found = {
            name.hex(): tuple(version.hex() for version in kept.versions)
            for name, kept in self._kept.get(client, {}).items()
        }
        folder = self._folder(client)
        if folder is not None and folder.is_dir():
            for place in sorted(folder.iterdir()):
                files = sorted(place.glob("*.safetensors"), reverse=True)
                names = tuple(_version(file) for file in files) or (place.name,)
                found.setdefault(place.name, names)
        return found

    async def forget(self, client: str, first: str) -> None:
        """Keep nothing of the adapter whose first version has that name, in memory or on disk; nothing
        happens where there is none.

        Raises:
            StoreError: its folder cannot be taken away.
        """
        async with self._opening:
            own = self._kept.get(client, {})
            kept = own.get(bytes.fromhex(first))
            async with kept.lock if kept is not None else asyncio.Lock():
                folder = self._folder(client)
                if folder is not None:
                    await asyncio.to_thread(_taken_away, folder / first)
                own.pop(bytes.fromhex(first), None)

    async def _taken_up(
        self, client: str, model: PartModel, asked: OpenBody, first: BodyVersion
    ) -> KeptBody:
        tuning, folder = self.tuning, self._folder(client)
        place = None if folder is None else folder / bytes(first).hex()
        there = {kept.hex() for kept in self._kept[client]}
        if folder is not None and folder.is_dir():
            there |= {path.name for path in folder.iterdir()}
        if bytes(first).hex() not in there and len(there) >= tuning.most:
            raise RejectedError(
                f"{len(there)} adapters of this client are kept, which is as many as there may be; the "
                "large model's owner can take one away"
            )
        how = PartTuning(
            rank=tuning.rank,
            learning_rate=tuning.learning_rate,
            clip=tuning.clip,
            seed=asked.seed,
        )
        part = await model.part(asked.first, asked.last, how)
        kept = KeptBody(part, first, asked.first, asked.last, place, await part.state())
        if place is not None and place.is_dir():
            await kept.read()
        return kept

    def _folder(self, client: str) -> Path | None:
        if self.tuning.folder is None:
            return None
        return self.tuning.folder / f"client-{quote(client, safe='')}"


def _version(file: Path) -> str:
    """The name of the version in a file."""
    return file.stem.partition("-")[2]


def _taken_away(place: Path) -> None:
    try:
        if place.is_dir():
            shutil.rmtree(place)
    except OSError as error:
        raise StoreError(f"{str(place)!r} cannot be taken away: {error.strerror}") from None


_GONE = "the large model's owner has no such version of an adapter (any more): training begins anew"
