"""What is really paid for, and the budget that holds for all of it.

The boundary's meter says what a strategy costs; an answer that was paid for before counts there again,
as it should. Here every message is counted that reaches the LM's owner for the first time. It is
booked before it is sent on, in a book that outlives the process, so that the budget also holds across
restarts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

from cosilo.boundary.messages import Ask, Completion, Message, encode
from cosilo.boundary.meter import Budget, Meter, Price, Totals
from cosilo.boundary.transports.base import Handles
from cosilo.types import Delta, assemble, closing


class Book(Protocol):
    """Where what is paid is booked, to be found again by later processes."""

    def paid(self) -> Totals:
        """Everything that is booked; what was never settled at the most it can have cost."""

    def pay(self, most: Totals) -> int:
        """Book a message that is about to be sent at the most it can cost; the booking's number.

        Raises:
            BudgetExceededError: there is no more to be had; nothing is booked.
        """

    def settle(self, number: int, cost: Totals, seconds: float) -> None:
        """Replace the booking by what the message did cost, and how long it took."""


class BusyTime:
    """Seconds in which at least one piece of work was under way; entered once for each piece."""

    def __init__(self) -> None:
        self._under_way = 0
        self._since = self._before = 0.0

    def __enter__(self) -> None:
        if not self._under_way:
            self._since = perf_counter()
        self._under_way += 1

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._before += perf_counter() - self._since

    @property
    def seconds(self) -> float:
        return self._before + (perf_counter() - self._since if self._under_way else 0.0)


@dataclass
class _Booking:
    """One message under way.

    Attributes:
        cost: what is booked for it in the end; set once its reply, or its loss, is known.
    """

    size: int
    cost: Totals


class Purse:
    """What is paid in all, booked in `book` and kept inside `budget`, whomever it is paid to.

    Attributes:
        calls: how often an LM was run, by messages of this process.
        busy: how long any of them was under way.
    """

    def __init__(self, book: Book, budget: Budget) -> None:
        self.book = book
        self.calls = 0
        self.busy = BusyTime()
        self.meter = Meter(budget)
        self.meter.totals = book.paid()

    @property
    def totals(self) -> Totals:
        """Everything that was paid, by earlier processes too."""
        return self.meter.totals

    def promise(self, usd: float) -> None:
        """Spend at most `usd` from now on, whatever more the budget allows: what was confirmed as
        the most a run can cost is the most it can cost."""
        most = (self.totals.usd + usd) * (1 + 1e-9)  # sums of the same amounts, in another order
        given = self.meter.budget.usd
        self.meter.limit(
            replace(self.meter.budget, usd=most if given is None else min(given, most))
        )


class Paid:
    """`inner`, each message to it paid from `purse` at `price`."""

    def __init__(self, inner: Handles, purse: Purse, price: Price) -> None:
        self.inner = inner
        self.purse = purse
        self.price = price
        self._meter = Meter(price=price, parent=purse.meter)

    async def handle(self, message: Message) -> Message:
        """The owner's reply.

        Raises:
            BudgetExceededError: it might cost more than is left; nothing was asked.
        """
        with self._booked(message) as booking:
            reply = await self.inner.handle(message)
            booking.cost = self._answered(message, booking, reply)
        return reply

    async def handle_stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        """The owner's reply in pieces; of one that is left early or breaks off, what came is paid.

        Raises:
            what `handle` does.
        """
        received: list[Delta] = []
        with self._booked(ask) as booking:
            try:
                async with closing(self.inner.handle_stream(ask)) as deltas:
                    async for delta in deltas:
                        received.append(delta)
                        yield delta
            except BaseException as error:
                attempts = getattr(error, "worked", None) or 1
                if received:
                    booking.cost = self._said(ask, booking, received, attempts)
                raise
            booking.cost = self._said(ask, booking, received, 1)

    @contextmanager
    def _booked(self, message: Message) -> Iterator[_Booking]:
        """Book the most that `message` can cost, and in the end what it did."""
        size = len(encode(message))
        most = self._meter.reserve(message, size)
        booking, started, number = _Booking(size, Totals()), perf_counter(), None
        try:
            number = self.purse.book.pay(most)
            self.purse.calls += message.runs()
            booking.cost = most
            with self.purse.busy:
                yield booking
        except BaseException as error:
            if booking.cost is most:
                booking.cost = self._meter.lost(message, size, error)
            raise
        finally:
            self._meter.settle(most, booking.cost)
            if number is not None:
                self.purse.book.settle(number, booking.cost, perf_counter() - started)

    def _answered(self, message: Message, booking: _Booking, reply: Message) -> Totals:
        return self._meter.cost(message, booking.size, reply, len(encode(reply)))

    def _said(self, ask: Ask, booking: _Booking, said: list[Delta], attempts: int) -> Totals:
        whole = Completion(generation=assemble(said, attempts=attempts))
        return self._answered(ask, booking, whole)
