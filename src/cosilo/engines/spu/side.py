"""One owner's side of a run whose other parties are elsewhere: its engine, its links, its helper.

start ▶ listen ─────▶ step 0: find the others, share the weights ▶ step 1, 2 …: compute
agreed, where it listens        what crossed on each link, as all ends count it
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cosilo.engines.base import DATA_OWNER, HELPER, LM_OWNER, Array, Program, Setting
from cosilo.engines.spu.helper import AtHelper, Listens, Passed, Where
from cosilo.engines.spu.run import Deadlines, JointRun, Reached
from cosilo.errors import ConfigError, EngineError


@dataclass(frozen=True)
class SideStep:
    """One step that was done.

    Attributes:
        outputs: what came out, where this side is told.
        passed: what has crossed from party to party since the beginning, as this side and the helper
            count it.
        cpu_seconds: of the engine here.
    """

    outputs: tuple[Array, ...]
    passed: Passed
    cpu_seconds: float


class JointSide:
    """One owner's side of a run.

    Args:
        rank: which owner it is.
        listens: where its engine is reached.
        names: rank → the name that the certificate of that party bears.
        deadlines: how long things may take.

    Attributes:
        at: rank → where that party reaches this one; known once it is started.
        agreed: the hash of what would be run; known once it is started.

    Raises:
        ConfigError: the setting protects nothing.
        CatalogError: the engine is not installed.
    """

    def __init__(
        self,
        rank: Literal[0, 1],
        program: Program,
        setting: Setting,
        listens: Listens,
        *,
        names: Mapping[int, str],
        deadlines: Deadlines | None = None,
    ) -> None:
        self._rank, self._program, self._setting = rank, program, setting
        self._listens, self._names = listens, names
        self._deadlines = deadlines or Deadlines()
        self._run = JointRun(program, setting, ranks=(rank,), deadlines=self._deadlines)
        self._loop = asyncio.get_running_loop()
        self._helper: AtHelper | None = None
        self._met: tuple[str, Reached, Where | None] | None = None
        self._next = 0
        self.at: dict[int, Where] = {}
        self.agreed = ""

    @property
    def other(self) -> int:
        """The other owner's rank."""
        return LM_OWNER if self._rank == DATA_OWNER else DATA_OWNER

    @property
    def three(self) -> bool:
        """Whether there is a helper."""
        return self._setting.parties == 3

    @property
    def alive(self) -> bool:
        """Whether nothing has ended it, and it is of this event loop."""
        return self._run.alive and self._loop is asyncio.get_running_loop()

    @property
    def pid(self) -> int:
        """Of the engine here."""
        return self._run.pids[self._rank]

    async def start(self) -> None:
        """Start the engine, compile, and listen; nothing is sent.

        Raises:
            CosiloError: it cannot be run here.
        """
        try:
            self.agreed = (await self._run.start()).agreed
            await self._run.compile()
            for rank in (self.other, HELPER)[: self._setting.parties - 1]:
                named = self._names.get(rank, "")
                self.at[rank] = await self._listens.listen(self._run, self._rank, rank, named)
        except BaseException:
            await self.close()
            raise

    def meet(self, run: str, other: Where, helper: Where | None) -> None:
        """Note the name of the run, and where the other owner's proxy and the helper are reached.

        Raises:
            ConfigError: three parties need a helper.
            EngineError: the other owner says that it is elsewhere than is known of it.
        """
        if self.three and helper is None:
            raise ConfigError(
                f"{self._setting.protocol!r} is computed by 3 parties, and there are addresses of 2: "
                "the third is a helper, on a machine of neither owner (`cosilo engines serve spu`); "
                "two parties alone can take 'cheetah'"
            )
        self._met = run, self._listens.reached(other, self._names.get(self.other, "")), helper

    async def step(
        self,
        number: int,
        most: int,
        *,
        owned: Sequence[Array] | None = None,
        given: Sequence[Array] | None = None,
        brought: Sequence[Array] | None = None,
    ) -> SideStep:
        """Do this side's part of one step: 0 is that the weights are shared.

        Args:
            most: bytes that may pass from one party to another.

        Raises:
            EngineError: a party failed, or counts differ; the run has ended.
        """
        try:
            if number != self._next:
                raise EngineError(f"step {number} is not what the run comes to next")
            self._next += 1
            if number == 0:
                return await self._begun(most, owned)
            self._run.allow(most)
            computing = self._run.compute(given, brought)
            joint, helped = await _all(computing, self._helped(number, most))
            passed = await self._settled(helped)
            return SideStep(joint.outputs, passed, joint.spent[self._rank].cpu_seconds)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End it, in whatever state it is; calling it twice is harmless."""
        if self._helper is not None:
            self._helper.close()
        if self._loop is asyncio.get_running_loop():
            await self._run.close()

    async def _begun(self, most: int, owned: Sequence[Array] | None) -> SideStep:
        assert self._met is not None, "meet first"
        run, other, helper = self._met
        reached = {self.other: other}
        if self.three and helper is not None:
            self._helper = await AtHelper.open(
                helper,
                self._listens,
                run=run,
                rank=self._rank,
                program=self._program,
                setting=self._setting,
                agreed=self.agreed,
                at=self.at[HELPER],
            )
            named = self._names.get(HELPER, "")
            reached[HELPER] = self._listens.reached(self._helper.at, named)

        async def begin() -> Any:
            await self._run.link(run, reached)
            self._run.allow(most)
            return await self._run.share(owned)

        joint, helped = await _all(begin(), self._helped(0, most))
        passed = await self._settled(helped)
        return SideStep((), passed, joint.spent[self._rank].cpu_seconds)

    async def count(self) -> Passed:
        """What has crossed from party to party since the beginning.

        Raises:
            EngineError: a party failed, or counts differ; the run has ended.
        """
        try:
            return await self._settled(await self._helper.count() if self._helper else {})
        except BaseException:
            await self.close()
            raise

    async def _settled(self, helped: Passed) -> Passed:
        """What has crossed, once both ends of each link to the helper count the same. Engines
        acknowledge some of what they are sent a little later."""
        for wait_s in _WAITS_S:
            await self._run.quiet()
            own = self._run.passed()
            if all(own[pair] == helped[pair] for pair in own.keys() & helped.keys()):
                return {**helped, **own}
            assert self._helper is not None
            await asyncio.sleep(wait_s)
            helped = await self._helper.count()
        raise EngineError("bytes that passed here are not those that passed at the helper")

    async def _helped(self, number: int, most: int) -> Passed:
        if self._helper is None:
            return {}
        within = self._deadlines.step_s + self._deadlines.connect_s + self._deadlines.silent_s
        return await self._helper.step(number, most, within)


_WAITS_S = tuple(0.02 * 2**n for n in range(8))


async def _all(*work: Any) -> list[Any]:
    """What each gives; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
