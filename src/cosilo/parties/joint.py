"""Joint computations that an LM's owner takes part in: a side of a run for each client that opened one.

    AskJoint ─▶ offer (what the model brings) ─▶ OpenJoint ─▶ an engine that listens ─▶ Joint 0, 1, 2 …

A run is one client's and does one thing at a time. It ends when anything in it fails, when its client
closes it or asks to forget, and when nothing was asked of it for a while.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from cosilo.boundary.messages.joint import (
    Address,
    Joint,
    JointLink,
    JointOffered,
    JointOpened,
    JointSpent,
    OpenJoint,
)
from cosilo.engines import ranges
from cosilo.engines.base import DATA_OWNER, HELPER, LM_OWNER, Array, Program, Setting
from cosilo.engines.spu.helper import Helper, Listens, Passed, Where, since
from cosilo.engines.spu.run import Deadlines
from cosilo.engines.spu.side import JointSide, SideStep
from cosilo.errors import CapabilityError, EngineError, RejectedError
from cosilo.models.base import TextModel
from cosilo.models.joint import JointPart, Wanted, takes_part
from cosilo.models.plain_llama import has_plain_llama
from cosilo.parties.joint_llama import part_of
from cosilo.parties.network import JointNetwork

LATE = 1 << 20
"""Bytes that may cross a link after a computation, of which most are acknowledgements."""

_Key = tuple[int, bytes]

_OFFERS = 8  # of a model, kept: the same for whoever wants the same
_TRIAL = Deadlines(
    step_s=3600.0, silent_s=600.0
)  # its data owner says how long it waits, and is here
_OFFERED = 1 << 30  # bytes of arrays that offers keep; the newest is kept, whatever it has


@dataclass(eq=False)
class _Run:
    """A client's run, at the owner's side."""

    client: str
    part: JointPart
    side: JointSide
    parties: int
    next: int = 0
    told: Passed = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class _Opening:
    """A run that is being started: its name is taken, and it counts as one."""

    client: str
    side: JointSide | None = None
    ended: bool = False

    def require(self) -> None:
        """Raises:
        EngineError: it was ended meanwhile.
        """
        if self.ended:
            raise EngineError("the run was ended while it was being opened")

    async def end(self) -> None:
        self.ended = True
        if self.side is not None:
            await self.side.close()


class JointRuns:
    """The runs of all clients.

    Args:
        network: how engines elsewhere are reached; on this machine alone, over loopback, when None.
        trials: whether there may be such runs on this machine. Where clients are elsewhere there may
            not: what they name as theirs would be ports of this machine's.
        each, most: runs of one client, and of all, at the same time; each is a process with its share
            of the weights.
        idle_s: how long one may be asked for nothing.
        deadlines: how long steps may take.
    """

    def __init__(
        self,
        network: JointNetwork | None = None,
        *,
        trials: bool = True,
        each: int = 2,
        most: int = 8,
        idle_s: float = 600.0,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._network, self._trials = network, trials
        self._listens = network.listens if network else Listens()
        self._each, self._most, self._idle_s = each, most, idle_s
        self._deadlines = deadlines or Deadlines()
        self._runs: dict[str, _Run] = {}
        self._offers: OrderedDict[_Key, tuple[JointPart, JointOffered]] = OrderedDict()
        self._making: tuple[asyncio.Lock, asyncio.AbstractEventLoop] | None = None
        self._opening: dict[str, _Opening] = {}
        self._trial: tuple[Helper, asyncio.Task[int], asyncio.AbstractEventLoop] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        """The engines that run here for runs."""
        return [run.side.pid for run in self._runs.values()]

    async def offer(
        self, model: TextModel, wanted: Wanted, *, by: str
    ) -> tuple[JointPart, JointOffered]:
        """What `model` brings to what is wanted, and what is told of it.

        Raises:
            CapabilityError: it takes no part in it.
        """
        brings = _brings(model)
        if brings is None:
            raise CapabilityError(f"{by}'s model takes no part in joint computations")
        if self._network is None and not self._trials:
            raise CapabilityError(
                f"{by} computes jointly with clients elsewhere over links with certificates alone, and "
                "its owner has named none: [joint] network = FILE in the host's file does"
            )
        key = id(model), msgspec.json.encode(wanted)  # an owner's model outlives its runs
        if (found := self._offers.get(key)) is not None:
            return found
        turn = self._turn()
        await turn.acquire()
        if (found := self._offers.get(key)) is not None:
            turn.release()
            return found
        making = asyncio.ensure_future(self._made(key, brings, wanted, by))
        making.add_done_callback(lambda _: turn.release())  # a thread goes on whose client is gone
        return await asyncio.shield(making)

    def _turn(self) -> asyncio.Lock:
        """Of whoever has an offer made: one at a time, as each makes arrays of all weights."""
        loop = asyncio.get_running_loop()
        if self._making is None or self._making[1] is not loop:
            self._making = asyncio.Lock(), loop
        return self._making[0]

    async def _made(
        self, key: _Key, brings: Callable[[Wanted], JointPart], wanted: Wanted, by: str
    ) -> tuple[JointPart, JointOffered]:
        part = await asyncio.to_thread(brings, wanted)
        if part.program != wanted.program or part.tells != wanted.tells:
            raise CapabilityError(f"{by}'s model takes part in something else")
        self._setting(wanted, part).require()
        _require_room(part)
        if part.tells != "label" and part.allowance is None:
            raise CapabilityError(
                f"{by} tells no more than a label of a joint computation: its owner may allow some "
                "answers that say more (`allowance`)"
            )
        part = replace(part, owned=await asyncio.to_thread(_once, part.owned, self._held()))
        shape = msgspec.json.encode(part.shape, order="sorted").decode()
        named = (part.program, shape, part.weights, part.labels, part.tells, part.bits)
        digest = hashlib.sha256(msgspec.json.encode((named, part.field, wanted))).hexdigest()
        told = JointOffered(
            offer=digest,
            program=part.program,
            shape=shape,
            field=part.field,
            bits=part.bits,
            labels=part.labels,
            once=part.once,
            each=part.each,
        )
        self._offers[key] = part, told
        while len(self._offers) > 1 and self._too_many():
            self._offers.popitem(last=False)
        return part, told

    def _held(self) -> list[Array]:
        """The weights that are here, each once."""
        parts = [part for part, _ in self._offers.values()]
        parts += [run.part for run in self._runs.values()]
        return list({id(array): array for part in parts for array in part.owned}.values())

    def _too_many(self) -> bool:
        arrays = {id(a): a.nbytes for part, _ in self._offers.values() for a in part.owned}
        return len(self._offers) > _OFFERS or sum(arrays.values()) > _OFFERED

    async def open(
        self, client: str, model: TextModel, message: OpenJoint, *, by: str
    ) -> JointOpened:
        """Start this side of a run.

        Raises:
            RejectedError: the offer is another now, or the way to the data owner cannot be.
            EngineError: there are as many runs as there may be, or the two would run different things.
        """
        self._require_way(client, message)
        if message.run in self._runs or message.run in self._opening:
            raise RejectedError("there is a run of that name: draw another one")
        self._require_room(client)
        opening = self._opening[message.run] = _Opening(client)
        try:
            return await self._opened(opening, model, message, by=by)
        finally:
            del self._opening[message.run]

    async def _opened(
        self, opening: _Opening, model: TextModel, message: OpenJoint, *, by: str
    ) -> JointOpened:
        part, told = await self.offer(model, message.wanted, by=by)
        if told.offer != message.offer:
            raise RejectedError("what is offered is another now: ask again")
        program = Program(part.program, told.sizes())
        setting = self._setting(message.wanted, part)
        opening.require()
        helper = await self._helper() if setting.parties == 3 else None
        opening.require()
        names = {DATA_OWNER: opening.client, HELPER: self._network.helper if self._network else ""}
        side = opening.side = JointSide(
            LM_OWNER, program, setting, self._listens, names=names, deadlines=self._deadlines
        )
        await side.start()
        try:
            opening.require()
            if side.agreed != message.agreed:
                raise EngineError(
                    "the two sides have not the same versions of the engine, or the same programs; "
                    "install the same Cosilo at both, and run `cosilo engines install spu`"
                )
            side.meet(message.run, (message.at.host, message.at.port), helper)
        except BaseException:
            await side.close()
            raise
        run = self._runs[message.run] = _Run(opening.client, part, side, setting.parties)
        self._wait(message.run, run)
        return JointOpened(
            run=message.run,
            agreed=side.agreed,
            at=Address(*side.at[DATA_OWNER]),
            helper=Address(*helper) if helper and self._network is None else None,
        )

    async def compute(self, client: str, message: Joint) -> JointSpent:
        """Do this side's part of one computation.

        Raises:
            EngineError: there is no such run (any more), it failed, or something else comes next.
            BudgetExceededError: the client was told all that it may be; nothing is computed.
        """
        run = self._runs.get(message.run)
        if run is None or run.client != client or not run.side.alive:
            raise EngineError("the LM's owner has no such run (any more): open another one")
        number = message.number + message.again
        if run.turn.locked() or number != run.next or message.parties != run.parties:
            raise EngineError("this is not what the run comes to next")
        part = run.part
        most = LATE if message.again else part.each if run.next else part.once
        if message.tells != part.tells or message.most > most:
            raise RejectedError("a run of this offer does something else")
        async with run.turn:
            if run.timer is not None:
                run.timer.cancel()
            try:
                step = await self._computed(client, run, message)
            finally:
                if self._runs.get(message.run) is run:
                    self._wait(message.run, run)
        passed = since(run.told, step.passed)
        run.told = step.passed
        links = tuple(JointLink(*pair, *count) for pair, count in sorted(passed.items()))
        return JointSpent(links=links, took=step.cpu_seconds)

    async def end(self, client: str, name: str) -> None:
        """End a run of the client's."""
        opening = self._opening.get(name)
        if opening is not None and opening.client == client:
            await opening.end()
        run = self._runs.get(name)
        if run is not None and run.client == client:
            await self._end(name)

    async def forget(self, client: str) -> None:
        """End all runs of a client, and those that are being opened."""
        for opening in [each for each in self._opening.values() if each.client == client]:
            await opening.end()
        for name in [name for name, run in self._runs.items() if run.client == client]:
            await self._end(name)

    async def close(self) -> None:
        """End all runs, and those that are being opened."""
        for opening in list(self._opening.values()):
            await opening.end()
        for name in list(self._runs):
            await self._end(name)
        await asyncio.gather(*self._closing, return_exceptions=True)
        trial, self._trial = self._trial, None
        if trial is not None and trial[2] is asyncio.get_running_loop():
            await asyncio.gather(trial[1], return_exceptions=True)
            await trial[0].close()

    async def _computed(self, client: str, run: _Run, message: Joint) -> SideStep:
        part = run.part
        if run.next and part.tells != "label" and not message.again:
            assert part.allowance is not None
            await asyncio.to_thread(part.allowance.take, client)
        run.next += not message.again
        try:
            return await self._step(run, message)
        except BaseException as error:
            if self._runs.get(message.run) is run:
                del self._runs[message.run]
            await run.side.close()
            if isinstance(error, EngineError):
                error.worked = None  # shares may have crossed
            raise

    async def _step(self, run: _Run, message: Joint) -> SideStep:
        part = run.part
        if message.again:
            return SideStep((), await run.side.count(), 0.0)
        if message.number == 0:
            return await run.side.step(0, message.most, owned=part.owned)
        brought = None
        if part.brings is not None:
            brought = await asyncio.to_thread(part.brings, part.owned, message.clear)
        elif message.clear:
            raise RejectedError("a run of this offer is told nothing in clear")
        return await run.side.step(message.number, message.most, brought=brought)

    def _setting(self, wanted: Wanted, part: JointPart) -> Setting:
        trial = self._network is None
        return Setting(wanted.protocol, part.field, part.bits, wanted.insecure and trial)

    def _require_way(self, client: str, message: OpenJoint) -> None:
        if message.tls != (self._network is not None):
            raise RejectedError(
                "one side has a network file with certificates for joint runs, and the other has not; "
                "without one they are a trial on one machine"
            )
        try:
            self._listens.reached((message.at.host, message.at.port), client)
        except EngineError as error:
            raise RejectedError(str(error)) from None

    def _require_room(self, client: str) -> None:
        for name, run in list(self._runs.items()):
            if not run.side.alive:
                self._later(name)
        held = [run.client for run in self._runs.values() if run.side.alive]
        held += [opening.client for opening in self._opening.values()]
        if held.count(client) >= self._each or len(held) >= self._most:
            raise EngineError(
                f"as many joint runs are open as may be, {self._each} of a client and {self._most} in "
                "all; close one, or wait until one is idle"
            )

    async def _helper(self) -> Where:
        """Where the third party is asked; on one machine, one of our own."""
        if self._network is not None:
            if self._network.helper_address is None:
                raise CapabilityError(
                    "a run of three parties needs a helper: helper_at = 'HOST:PORT' in the network file"
                )
            return self._network.helper_address
        loop = asyncio.get_running_loop()
        if self._trial is None or self._trial[2] is not loop:
            helper = Helper(
                self._listens, most=self._most, idle_s=self._idle_s, deadlines=self._deadlines
            )
            self._trial = helper, asyncio.ensure_future(helper.open()), loop
        try:
            return "127.0.0.1", await asyncio.shield(self._trial[1])
        except OSError as error:
            self._trial = None
            raise EngineError(f"no helper can listen here: {error.strerror}") from None

    def _wait(self, name: str, run: _Run) -> None:
        if run.timer is not None:
            run.timer.cancel()
        loop = asyncio.get_running_loop()
        run.timer = loop.call_later(self._idle_s, self._later, name)

    def _later(self, name: str) -> None:
        task = asyncio.ensure_future(self._end(name))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _end(self, name: str) -> None:
        run = self._runs.pop(name, None)
        if run is None:
            return
        if run.timer is not None:
            run.timer.cancel()
        with suppress(EngineError):
            await run.side.close()


def _require_room(part: JointPart) -> None:
    """Refuse a head whose logits could leave the ring; layers are proved where they are calibrated.

    Raises:
        ConfigError: they could.
    """
    if part.program == "head":
        weights, bias = part.owned
        bound = ranges.linear("a logit", weights, bias, ranges.LARGEST_INPUT)
        ranges.require_room([bound], ranges.Fixed(part.field, part.bits))


def _once(arrays: Sequence[Array], held: Sequence[Array]) -> tuple[Array, ...]:
    """`arrays`, those of `held` in place of equal ones: other lengths of text have the same weights."""

    def known(array: Array) -> Array:
        same = (kept for kept in held if kept.dtype == array.dtype and np.array_equal(kept, array))
        return next(same, array)

    return tuple(map(known, arrays))


def _brings(model: TextModel) -> Callable[[Wanted], JointPart] | None:
    """How it is asked what it brings; None where it takes part in nothing."""
    if has_plain_llama(model):
        return partial(part_of, model)
    return model.takes_part if takes_part(model) else None


_kept: WeakKeyDictionary[object, JointRuns] = WeakKeyDictionary()


def begun(model: TextModel) -> JointRuns | None:
    """The runs of a model, where there were any."""
    return _kept.get(model) if _brings(model) is not None else None


def runs_of(model: TextModel) -> JointRuns:
    """The runs of a model whose owner has no network file: one table for all clients, on this machine.
    They end when the model is closed.

    Raises:
        CapabilityError: it takes no part in any.
    """
    if _brings(model) is None:
        raise CapabilityError(f"{model.name!r} takes no part in joint computations")
    found = _kept.get(model)
    if found is None:
        found = _kept[model] = JointRuns(deadlines=_TRIAL)
        if (on_close := getattr(model, "on_close", None)) is not None:
            on_close(found.close)
    return found
