"""The only road between the parties.

    send ─▶ guard ─▶ … ─▶ guard ─▶ [declared? ─▶ reserve ─▶ record] ─▶ transport
                                                                          │
    reply ◀─ guard ◀─ … ◀─ guard ◀──────────── [record ◀─ settle] ◀───────┘

Guards wrap one another like middleware. The bracketed steps are innermost and belong to
`Boundary`, so no guard can skip them and the ledger holds exactly what the other party saw.
`stream` is the same crossing in pieces: the reply is recorded whole, once it has ended or was cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Protocol, TypeVar, cast

from msgspec.structs import replace

from cosilo.boundary.messages import (
    Ask,
    Completion,
    Message,
    Request,
    encode,
)
from cosilo.boundary.meter import Bill, Budget, Meter, Price, Totals
from cosilo.boundary.record.ledger import Ledger, MemoryLedger
from cosilo.boundary.transports.base import Transport
from cosilo.boundary.transports.far_end import Arrived, reply_in
from cosilo.errors import (
    BoundaryError,
    CosiloError,
    PrivacyError,
    UndeclaredMessageError,
    UnexpectedReplyError,
    UnreachableError,
)
from cosilo.privacy.mechanisms import Booking
from cosilo.types import Delta, assemble, closing

LEFT: ContextVar[Callable[[], None] | None] = ContextVar("left", default=None)
"""Called when a message of this context has been checked, reserved and recorded, and leaves: for what
both sides do while it is answered, which must not begin before."""

Handler = Callable[[Message], Awaitable[Message]]
StreamHandler = Callable[[Ask], AsyncIterator[Delta]]
R = TypeVar("R", bound=Message)


class Guard(Protocol):
    """Cross-cutting work on a crossing: redact, restore, refuse.

    `request` names the task item or gateway request that the message belongs to.
    """

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message: ...
    def guard_stream(
        self, ask: Ask, forward: StreamHandler, *, request: str
    ) -> AsyncIterator[Delta]: ...


class Channel(Protocol):
    """What a strategy may use of the other party."""

    async def send(self, request: Request[R]) -> R: ...
    def stream(self, ask: Ask) -> AsyncIterator[Delta]:
        """The reply to `ask` in pieces; closing the iterator cancels and settles the crossing."""

    def bind(
        self, request: str, *, budget: Budget | None = None, within: Meter | None = None
    ) -> Channel:
        """The same channel, with every crossing marked as part of `request`.

        `budget` limits this request alone, inside the channel's own budget. `within` is charged, too,
        and its budget holds: of a request that several parties are asked for, all of it.
        """

    @property
    def totals(self) -> Totals:
        """What has crossed through this channel (a bound one: through it alone)."""


class Boundary:
    """The road to one LM owner.

    Args:
        transport: carries a message to the other party and its reply back.
        declared: the message classes the strategy said it would send; any other is refused.
        guards: outermost first.
        meter: counts and limits; a fresh one without limits by default.
        ledger: records; in memory by default.
        request: what crossings are bound to until `bind` says otherwise.
        account: books what messages spent of the owner's records, and refuses what passes its budget.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        declared: frozenset[type[Message]],
        guards: Sequence[Guard] = (),
        meter: Meter | None = None,
        ledger: Ledger | None = None,
        request: str = "",
        account: Booking | None = None,
    ) -> None:
        self.declared = declared
        self.meter = meter or Meter()
        self.ledger = ledger if ledger is not None else MemoryLedger()
        self.request = request
        self._transport = transport
        self._guards = tuple(guards)
        self._account = account

    @property
    def totals(self) -> Totals:
        return self.meter.totals

    def bind(
        self, request: str, *, budget: Budget | None = None, within: Meter | None = None
    ) -> Boundary:
        return Boundary(
            self._transport,
            declared=self.declared,
            guards=self._guards,
            meter=Meter(budget, parent=self.meter, within=within, request=True),
            ledger=self.ledger,
            request=request,
            account=self._account,
        )

    async def send(self, request: Request[R]) -> R:
        """Carry `request` across and its reply back.

        Raises:
            UndeclaredMessageError: the strategy did not say it would send this.
            BudgetExceededError: it might cost more than is left; nothing was sent.
            PrivacyError: a guard was in doubt; nothing was sent.
            ModelError: the other party did not answer.
        """
        reply = await self._guarded(request, 0)
        if not isinstance(reply, request.reply):
            raise UnexpectedReplyError(
                f"{type(request).__name__} was answered with {type(reply).__name__}, "
                f"not {request.reply.__name__}"
            )
        return cast(R, reply)

    async def stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        doubt: BoundaryError | None = None
        async with closing(self._guarded_stream(ask, 0)) as deltas:
            try:
                async for delta in deltas:
                    yield delta
            except (CosiloError, GeneratorExit):
                raise
            except Exception as error:
                doubt = _doubt(error)
        if doubt is not None:
            raise doubt

    async def _guarded(self, message: Message, depth: int) -> Message:
        try:
            if depth == len(self._guards):
                return await self._cross(message)
            forward = partial(self._guarded, depth=depth + 1)
            return await self._guards[depth].guard(message, forward, request=self.request)
        except CosiloError:
            raise
        except Exception as error:
            doubt = _doubt(error)
        raise doubt  # out here, so that the original is not kept as its context

    def _guarded_stream(self, ask: Ask, depth: int) -> AsyncIterator[Delta]:
        if depth == len(self._guards):
            return self._cross_stream(ask)

        def forward(inner: Ask) -> AsyncIterator[Delta]:
            return self._guarded_stream(inner, depth + 1)

        return self._guards[depth].guard_stream(ask, forward, request=self.request)

    async def _cross(self, message: Message) -> Message:
        payload, reservation, number = await self._depart(message)
        cost = reservation
        try:
            if (left := LEFT.get()) is not None:
                left()
            try:
                carried, price = self._transport.carry(payload), self.meter.price
                answer = await (_within(carried, price) if price.usd_per_hour else carried)
                reply = reply_in(answer, message, quoted=self._transport.remote)
            except BaseException as error:
                cost = self.meter.lost(message, len(payload), error)
                raise
            bill = self.meter.price.bill(self.meter.once(reservation, message), reply)
            cost = self.meter.billed(message, len(payload), bill, len(answer), reply.beside())
            await self.ledger.append(self.request, "down", reply, answer, number)
        finally:
            self.meter.settle(reservation, cost)
        return _restated(reply, bill)

    async def _cross_stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        payload, reservation, number = await self._depart(ask)
        received: list[Delta] = []
        arrived = Arrived(quoted=self._transport.remote)
        cost, attempts = reservation, 1
        whole: Completion | None = None
        try:
            arriving, price = self._transport.carry_stream(payload), self.meter.price
            if price.usd_per_hour:
                arriving = _pieces_within(arriving, price)
            async with closing(arriving) as pieces:
                async for data in pieces:
                    delta = arrived.take(data)
                    received.append(delta)
                    whole = None
                    if delta.finish_reason is not None:
                        whole = Completion(generation=assemble(received))
                        bill = self.meter.price.bill(self.meter.once(reservation, ask), whole)
                        delta = _ending(delta, bill)
                    yield delta
        except BaseException as error:
            cost = self.meter.lost(ask, len(payload), error)
            attempts = getattr(error, "worked", None) or 1
            raise
        finally:
            try:
                if received:  # of a reply begun, what came is known
                    if whole is None:
                        whole = Completion(generation=assemble(received, attempts=attempts))
                        bill = self.meter.price.bill(self.meter.once(reservation, ask), whole)
                    answer = encode(whole)
                    cost = self.meter.billed(ask, len(payload), bill, len(answer))
                    await self.ledger.append(self.request, "down", whole, answer, number)
            finally:
                self.meter.settle(reservation, cost)

    async def _depart(self, message: Message) -> tuple[bytes, Totals, int]:
        """Check, reserve and record `message`: its encoding, what is reserved, its number in the
        ledger. What it spent of the records is booked before.
        """
        if type(message) not in self.declared:
            names = ", ".join(sorted(t.__name__ for t in self.declared)) or "nothing"
            raise UndeclaredMessageError(
                f"{type(message).__name__} was not declared by the strategy (declared: {names})"
            )
        if self._account is None or not (message.release or message.epsilon):
            return await self._recorded(message)
        async with self._account.spending(message.release, message.epsilon):
            return await self._recorded(message)

    async def _recorded(self, message: Message) -> tuple[bytes, Totals, int]:
        payload = encode(message)
        reservation = self.meter.reserve(message, len(payload))
        try:
            number = await self.ledger.append(self.request, "up", message, payload)
        except asyncio.CancelledError:
            # It is put on record all the same, so it counts as a message; nothing is billed for it.
            self.meter.settle(reservation, self.meter.cost(message, len(payload), None, 0))
            raise
        except BaseException:
            self.meter.settle(reservation, Totals())
            raise
        return payload, reservation, number


async def _within(work: Awaitable[bytes], price: Price) -> bytes:
    try:
        async with asyncio.timeout(price.most_seconds):
            return await work
    except TimeoutError:
        raise _late(price) from None


async def _pieces_within(
    arriving: AsyncIterator[bytes], price: Price
) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    end = loop.time() + price.most_seconds
    async with closing(arriving) as pieces:
        while loop.time() < end:
            try:
                async with asyncio.timeout_at(end):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                break
            yield piece
        raise _late(price)


def _late(price: Price) -> UnreachableError:
    return UnreachableError(
        f"no whole reply came within {price.most_seconds:g} s, the longest that is paid for",
        worked=price.attempts,
    )


def _restated(reply: Message, bill: Bill) -> Message:
    """`reply` with the tokens it is booked at, where it claims others: what it claimed is on record."""
    return reply if reply.usage() == bill.answer else reply.restated(*bill.answer)


def _ending(delta: Delta, bill: Bill) -> Delta:
    """The last piece of a reply, with the tokens that the whole is booked at."""
    if (delta.prompt_tokens, delta.completion_tokens) == bill.answer:
        return delta
    tokens_in, tokens_out = bill.answer
    return replace(delta, prompt_tokens=tokens_in, completion_tokens=tokens_out)


def _doubt(error: Exception) -> BoundaryError:
    # The original text may quote what it failed on, so only the class name is passed on.
    return PrivacyError(f"a crossing failed ({type(error).__name__}), so nothing more was sent")
