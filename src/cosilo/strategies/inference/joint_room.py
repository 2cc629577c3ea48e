"""A joint computation as a strategy uses it: asked for once, opened when it is needed, and again after
a fault.

    JointRoom.of(session, wanted) ──▶ room.offer          what the LM's owner brings
    room.compute(session.lm, arrays) ──▶ Computed         one crossing `Joint`, both engines meanwhile
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from cosilo.boundary.channel import LEFT, Channel
from cosilo.boundary.messages import (
    AskJoint,
    CloseJoint,
    Joint,
    JointOffered,
    JointOpened,
    JointSpent,
    Message,
    OpenJoint,
)
from cosilo.boundary.messages.bounds import TURN
from cosilo.boundary.messages.joint import Address
from cosilo.clock import charge
from cosilo.engines.base import DATA_OWNER, HELPER, LM_OWNER, Array, Program, Setting
from cosilo.engines.spu.helper import LOOPBACK, Listens, Passed, Where, since
from cosilo.engines.spu.run import Deadlines
from cosilo.engines.spu.side import JointSide, SideStep
from cosilo.errors import CosiloError, EngineError, UnexpectedReplyError, UnreachableError
from cosilo.models.joint import Wanted
from cosilo.parties.joint import LATE
from cosilo.parties.network import JointNetwork
from cosilo.strategies.base import Expected, Forecast, Session
from cosilo.strategies.cards import Card

SENDS: frozenset[type[Message]] = frozenset({AskJoint, OpenJoint, Joint, CloseJoint})
"""What a strategy that computes so declares."""

_SMALL = 1 << 13  # bytes of a message and its reply, beside an offer
_OFFER = 1 << 17

_WAITS_S = tuple(0.02 * 2**n for n in range(7))
_PARTING_S = 5.0  # for the other side to say what went wrong, or that it has ended its side
_TRIAL = Listens()


def joint_forecast(once: int, each: int, tokens: int = 0) -> Forecast:
    """What a strategy sends that computes so, with the bytes of sharing weights and of an answer."""
    reads = (TURN + tokens,)
    return (
        Expected("once", AskJoint, reads=(TURN,), writes=(), size=_OFFER),
        Expected("once", OpenJoint, reads=(TURN,), writes=(), size=_SMALL),
        Expected("once", Joint, reads=(TURN,), writes=(), size=_SMALL + once),
        Expected("once", CloseJoint, reads=(TURN,), writes=(), size=_SMALL),
        Expected("answers", Joint, reads=reads, writes=(), size=_SMALL + each),
    )


def run_for_each(once: int, each: int) -> Forecast:
    """The same of one whose every answer may open a run, and end the one before."""
    *first, answers = joint_forecast(once, each)
    return (
        *first,
        *(replace(expected, about="answers") for expected in first),
        replace(answers, reads=("question", TURN)),
    )


def joint_card(by: str, title: str, room: JointRoom) -> Card:
    """What opening a run took, setup apart from what answers will take."""
    facts: dict[str, float | str] = {
        "engine": "spu",
        "protocol": room.wanted.protocol,
        "tells": room.wanted.tells,
        "MB a link may take for an answer": room.offer.each / 1e6,
    }
    if room.setup is not None:
        facts |= {
            "MB of shares of the weights, all parties": room.setup.bytes / 1e6,
            "messages of sharing them": room.setup.messages,
            "CPU seconds of sharing them, here": room.setup.cpu_here,
            "CPU seconds of sharing them, there": room.setup.cpu_there,
        }
    if room.offer.left is not None:
        facts["answers left"] = room.offer.left
    warning = ""
    if room.wanted.insecure:
        warning = (
            f"insecure = true: under {room.wanted.protocol!r} one of the two owners can read "
            "everything; nothing is hidden, and only costs can be compared"
        )
    elif not room.apart:
        warning = (
            "a trial on one machine, which holds the shares of all parties: costs are real, secrecy is "
            "not"
        )
    return Card(by=by, title=title, facts=facts, warning=warning)


@dataclass(frozen=True)
class Computed:
    """One computation, as the data owner knows it.

    Attributes:
        outputs: what it is told.
        passed: bytes and frames from party to party, as all ends counted them.
        cpu_here, cpu_there: CPU seconds of the data owner's engine, and of the LM owner's, as it says.
    """

    outputs: tuple[Array, ...]
    passed: Passed
    cpu_here: float
    cpu_there: float

    @property
    def bytes(self) -> int:
        """Payload that all parties sent."""
        return sum(size for size, _ in self.passed.values())

    @property
    def messages(self) -> int:
        """Frames that the data owner sent and was sent: no fewer than rounds."""
        return sum(n for pair, (_, n) in self.passed.items() if DATA_OWNER in pair)


@dataclass(eq=False)
class _Open:
    """A run.

    Attributes:
        there: the LM owner's side of it is open, or may be.
    """

    name: str
    side: JointSide
    there: bool = False
    next: int = 0
    said: Passed = field(default_factory=dict)  # by the LM's owner, in all
    agreed: Passed = field(default_factory=dict)  # when the last computation was taken


class JointRoom:
    """What the LM's owner takes part in, and a run of it.

    Args:
        wanted: what is computed.
        offer: what the LM's owner brings.
        network: how engines reach each other; over loopback, in a trial on one machine, when None.
        deadlines: how long things may take.
        place: waited for before a run is opened, with the channel of whoever needs it: until there may
            be one more.

    Attributes:
        setup: what opening the run took, and sharing the weights, last time.
        opened: how often a run was.
        apart: its parties are on machines of their own.
    """

    def __init__(
        self,
        wanted: Wanted,
        offer: JointOffered,
        network: JointNetwork | None = None,
        *,
        deadlines: Deadlines | None = None,
        place: Callable[[JointRoom, Channel], Awaitable[None]] | None = None,
    ) -> None:
        self.wanted, self.offer = wanted, offer
        self.setup: Computed | None = None
        self.opened = 0
        self.apart = network is not None
        self._network = network
        self._listens = network.listens if network else _TRIAL
        self._deadlines = deadlines or Deadlines()
        self._place = place
        self._setting = Setting(wanted.protocol, offer.field, offer.bits, wanted.insecure)
        self._setting.require()
        self._open: _Open | None = None
        self._turn = asyncio.Lock()

    @classmethod
    async def of(
        cls,
        session: Session,
        wanted: Wanted,
        network: JointNetwork | None = None,
        *,
        deadlines: Deadlines | None = None,
        place: Callable[[JointRoom, Channel], Awaitable[None]] | None = None,
    ) -> JointRoom:
        """Ask the LM's owner what it takes part in.

        Raises:
            CapabilityError: in nothing like that.
        """
        Setting(wanted.protocol, insecure=wanted.insecure).require()
        offer = await session.lm.send(AskJoint(wanted=wanted))
        return cls(wanted, offer, network, deadlines=deadlines, place=place)

    @property
    def side(self) -> JointSide | None:
        """This side of the run that is open."""
        return self._open.side if self._open is not None else None

    @property
    def busy(self) -> bool:
        """Whether something is computed, or a run opened."""
        return self._turn.locked()

    async def ready(self, channel: Channel) -> None:
        """Open a run and share the weights, unless one is open.

        Raises:
            CosiloError: it cannot be.
        """
        async with self._turn:
            await self._ready(channel)

    async def compute(
        self,
        channel: Channel,
        arrays: Sequence[Array],
        clear: Sequence[int] = (),
        text: str = "",
    ) -> Computed:
        """Compute on `arrays`, one computation at a time.

        Args:
            channel: of the request that it is for.
            clear: tokens that the LM's owner is told in clear, from the beginning of the text.
            text: what they stand for.

        Raises:
            EngineError: a party failed; nothing is claimed, and the next one opens a new run.
            CosiloError: the LM's owner refused, or no budget is left.
        """
        async with self._turn:
            await self._ready(channel)
            opened = self._open
            assert opened is not None
            return await self._step(channel, opened, self.offer.each, arrays, tuple(clear), text)

    async def close(self) -> None:
        """End this side of the run; the other one notices."""
        opened, self._open = self._open, None
        if opened is not None:
            await opened.side.close()

    async def end(self, channel: Channel | None) -> None:
        """End both sides of the run, once nothing is computed in it: the LM's owner has room for
        another at once. Without a channel to it this side alone; the other one notices."""
        async with self._turn:
            if self._open is not None:
                await self._part(channel, self._open)

    async def _part(self, channel: Channel | None, opened: _Open) -> None:
        """End both sides of a run, whatever became of it. The other one would notice that its links
        break, where it has some; this is sooner."""
        there, opened.there = opened.there, False
        if self._open is opened:
            self._open = None
        await opened.side.close()
        if there and channel is not None:
            with suppress(CosiloError, TimeoutError):
                async with asyncio.timeout(_PARTING_S):
                    await channel.send(CloseJoint(run=opened.name))

    async def _ready(self, channel: Channel) -> None:
        if self._open is not None and self._open.side.alive:
            return
        if self._open is not None:
            await self._part(channel, self._open)
        if self._place is not None:
            await self._place(self, channel)
        sizes = self.offer.sizes()
        names = {LM_OWNER: "", HELPER: ""}
        if self._network is not None:
            names = {LM_OWNER: self._network.lm_owner, HELPER: self._network.helper}
        side = JointSide(
            DATA_OWNER,
            Program(self.offer.program, sizes),
            self._setting,
            self._listens,
            names=names,
            deadlines=self._deadlines,
        )
        opened = _Open(secrets.token_hex(16), side)
        try:
            await side.start()
            asked = OpenJoint(
                offer=self.offer.offer,
                wanted=self.wanted,
                run=opened.name,
                agreed=side.agreed,
                at=Address(*side.at[LM_OWNER]),
                tls=self._network is not None,
            )
            opened.there = True
            try:
                there = await channel.send(asked)
            except CosiloError as error:  # whoever refuses opens nothing
                opened.there = isinstance(error, UnexpectedReplyError | UnreachableError)
                raise
            self._require_here(there)
            side.meet(asked.run, (there.at.host, there.at.port), self._helper(there.helper))
            self.setup = await self._step(channel, opened, self.offer.once)
        except BaseException:
            await self._part(channel, opened)
            raise
        self._open = opened
        self.opened += 1

    def _require_here(self, there: JointOpened) -> None:
        """Refuse addresses elsewhere in a trial: engines connect to them without a certificate.

        Raises:
            UnexpectedReplyError: there is one.
        """
        named = (there.at,) if there.helper is None else (there.at, there.helper)
        if self._network is None and any(each.host not in LOOPBACK for each in named):
            raise UnexpectedReplyError(
                "without a network file a joint run stays on one machine, and the LM's owner names an "
                "address elsewhere: nothing was connected to"
            )

    def _helper(self, told: Address | None) -> Where | None:
        """Where the third party is asked: on one machine wherever the LM's owner runs it; elsewhere it
        is for each side to know."""
        if self._setting.parties == 2:
            return None
        if self._network is not None:
            return self._network.helper_address
        return (told.host, told.port) if told is not None else None

    async def _step(
        self,
        channel: Channel,
        opened: _Open,
        most: int,
        given: Sequence[Array] | None = None,
        clear: tuple[int, ...] = (),
        text: str = "",
    ) -> Computed:
        message = Joint(
            run=opened.name,
            number=opened.next,
            tells=self.wanted.tells,
            parties=self._setting.parties,
            most=most,
            clear=clear,
            text=text,
        )
        opened.next += 1
        try:
            reply, step = await _both(
                channel, message, opened.side.step(message.number, most, given=given)
            )
            passed = await self._settled(channel, opened, message, reply, step.passed)
        except BaseException:
            await self._part(channel, opened)
            raise
        charge(step.cpu_seconds)
        before, opened.agreed = opened.agreed, passed
        return Computed(step.outputs, since(before, passed), step.cpu_seconds, reply.took)

    @staticmethod
    async def _settled(
        channel: Channel, opened: _Open, message: Joint, reply: JointSpent, counted: Passed
    ) -> Passed:
        """What has crossed so far, once both sides count the same: asked again where they do not, since
        engines acknowledge some of what they are sent a little later.

        Raises:
            UnexpectedReplyError: they still do not.
        """
        for wait_s in (*_WAITS_S, None):
            for link in reply.links:
                pair = link.sender, link.receiver
                size, frames = opened.said.get(pair, (0, 0))
                opened.said[pair] = size + link.bytes, frames + link.messages
            wrong = [pair for pair in counted if counted[pair] != opened.said.get(pair)]
            if not wrong:
                return counted
            if wait_s is None:
                break
            await asyncio.sleep(wait_s)
            counted = await opened.side.count()
            late = msgspec.structs.replace(message, again=True, most=LATE, clear=(), text="")
            reply = await channel.send(late)
        (sender, receiver), (said, _) = wrong[0], opened.said.get(wrong[0], (0, 0))
        raise UnexpectedReplyError(
            f"from party {sender} to party {receiver} {counted[wrong[0]][0]:,} bytes passed the "
            f"proxies, and the LM's owner says {said:,}: what was computed is not taken"
        )


async def _both(channel: Channel, message: Joint, step: Any) -> tuple[JointSpent, SideStep]:
    """What the other side says, and this side's own step, which begins when the message has left.

    Raises:
        CosiloError: one of them failed.
    """
    gone = asyncio.Event()
    token = LEFT.set(gone.set)
    try:
        sending = asyncio.create_task(channel.send(message))
    finally:
        LEFT.reset(token)
    leaving = asyncio.create_task(gone.wait())
    own: asyncio.Task[SideStep] | None = None
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not gone.is_set():
            sending.result()
            raise EngineError("a computation was answered before it was asked for")
        own = asyncio.create_task(step)
        await asyncio.wait({sending, own}, return_when=asyncio.FIRST_EXCEPTION)
        if own.done() and own.exception() is not None and not sending.done():
            await asyncio.wait({sending}, timeout=_PARTING_S)
        if sending.done() and (refused := sending.exception()) is not None:
            # What the other side says is the reason, unless it only saw that this one had ended.
            if isinstance(refused, EngineError) and own.done() and (mine := own.exception()):
                raise mine
            raise refused
        step_done = await own
        return await sending, step_done
    finally:
        if own is None:
            step.close()
        tasks: list[asyncio.Task[Any]] = [t for t in (sending, leaving, own) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
