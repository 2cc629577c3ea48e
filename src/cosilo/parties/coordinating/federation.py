"""A federation as owners ask it: one thread works on it, and whoever must wait is held a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from cosilo.boundary.messages import (
    Contribute,
    Contributed,
    Enrol,
    Enrolled,
    NextRound,
    NextStep,
    RoundState,
    SumState,
)
from cosilo.boundary.messages.forget import ForgottenItem
from cosilo.models.mutual import MutualModel, TaughtModel, exchanges, is_taught
from cosilo.parties.coordinating.learning import learned_beside
from cosilo.parties.coordinating.opinions import OpinionExchange
from cosilo.parties.coordinating.rounds import Part, Rounds
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.coordinating.sums import Given
from cosilo.parties.coordinating.transferring import Transfer

T = TypeVar("T")
S = TypeVar("S", RoundState, SumState)

_LEAST_S = 0.01  # between two looks, where a deadline is about to pass


class Federation:
    """The coordinator of one federation.

    Args:
        path: the file that it lives in; it is forgotten with the process where None.
        mutual: a large model that learns from what comes of each round, and teaches it; with opinions,
            from these.
        clock: seconds that only go forward, for deadlines.

    Raises:
        ConfigError: the file is that of a federation with other settings; what comes of its rule is
            added to weights, and a model that is taught goes on from an adapter.
        CapabilityError: the models cannot teach each other.
        StoreError: it cannot be opened.
    """

    def __init__(
        self,
        settings: FederationSettings,
        path: Path | None = None,
        *,
        mutual: MutualModel | TaughtModel | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transfer = self._made(mutual, path) if mutual is not None else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="federation")
        try:
            self._rounds = self._thread.submit(Rounds, settings, path, self._transfer).result()
        except BaseException:
            self._thread.shutdown()
            raise
        self._stopping = False

    @property
    def name(self) -> str:
        return self._rounds.standing.name

    @property
    def closed(self) -> int:
        """How many rounds have closed."""
        return self._rounds.standing.closed

    @property
    def over(self) -> bool:
        """Whether there will be no more rounds."""
        return self._rounds.standing.state in ("ended", "failed")

    @property
    def failed(self) -> str:
        """Why it ended without a result; nothing where it did not."""
        return self._rounds.standing.why

    async def waits_for(self) -> set[str]:
        """See `Rounds.waits_for`."""
        return await self._do(lambda: self._rounds.waits_for(self._clock()))

    async def enrol(self, owner: str, message: Enrol) -> Enrolled:
        """See `Rounds.enrol`."""
        return await self._do(lambda: self._rounds.enrol(owner, message, self._clock()))

    async def next(self, owner: str, message: NextRound) -> RoundState:
        """See `Rounds.next`; held until there is something to say, or its patience ends."""

        def waits(state: RoundState) -> bool:
            return state.state == "wait" and not state.packed

        return await self._held(
            lambda: self._rounds.next(owner, message, self._clock()), waits, message.patience
        )

    async def contribute(self, owner: str, message: Contribute) -> Contributed:
        """See `Rounds.contribute`."""
        return await self._do(lambda: self._rounds.contribute(owner, message, self._clock()))

    async def give(self, owner: str, message: Given) -> Contributed:
        """See `Rounds.give`."""
        return await self._do(lambda: self._rounds.give(owner, message, self._clock()))

    async def step(self, owner: str, message: NextStep) -> SumState:
        """See `Rounds.step`; held until there is something to say, or its patience ends."""

        def waits(state: SumState) -> bool:
            return state.step == "wait"

        return await self._held(
            lambda: self._rounds.step(owner, message, self._clock()), waits, message.patience
        )

    async def take_back(
        self, owner: str, federation: str, request: str, rounds: Sequence[int]
    ) -> ForgottenItem | None:
        """See `Rounds.take_back`; None where this is another federation."""
        if federation != self.name:
            return None
        return await self._do(lambda: self._rounds.take_back(owner, request, rounds))

    async def part_of(self, owner: str) -> Part:
        """See `Rounds.part_of`."""
        return await self._do(lambda: self._rounds.part_of(owner))

    def stop(self) -> None:
        """Hold nobody any longer."""
        self._stopping = True
        self._changed.set()

    def close(self) -> None:
        if self._transfer is not None:
            self._transfer.close()
        self._thread.submit(self._rounds.close).result()
        self._thread.shutdown()

    async def _held(self, look: Callable[[], S], waits: Callable[[S], bool], patience: float) -> S:
        """What `look` finds, as soon as there is nothing to wait for, or patience ends."""
        end = self._clock() + min(patience, self.settings.held_s)
        while True:
            changed = self._changed
            state = await self._do(look)
            left = min(end - self._clock(), max(state.left, _LEAST_S))
            if not waits(state) or left <= 0 or self._stopping:
                return state
            try:
                async with asyncio.timeout(left):
                    await changed.wait()
            except TimeoutError:
                pass

    async def _do(self, work: Callable[[], T]) -> T:
        """`work`, in the federation's own thread; those who are held look again where it changed how
        things stand. It is done even where nobody waits for it any more."""
        before = self._rounds.standing

        def tell(_: object) -> None:
            if self._rounds.standing is not before:
                self._tell()

        self._loop = asyncio.get_running_loop()
        working = self._loop.run_in_executor(self._thread, work)
        working.add_done_callback(tell)
        return await asyncio.shield(working)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _learned(self) -> None:
        """Called by another thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._tell)

    def _made(
        self, mutual: MutualModel | TaughtModel, path: Path | None
    ) -> Transfer | OpinionExchange:
        folder = None if path is None else learned_beside(path)
        if is_taught(mutual):
            return OpinionExchange(mutual, top=self.settings.top, folder=folder, told=self._learned)
        assert exchanges(mutual)
        return Transfer(
            mutual,
            scale=self.settings.scale,
            codec=self.settings.codec,
            folder=folder,
            told=self._learned,
        )
