"""The money and tokens that one request has set aside, and how much of them its messages have used.

The most one crossing can cost is set aside before the request starts. A strategy may cross more
often, or send more than the client did, so the guard here stands innermost, sees each message as it
will leave, and sets more aside when the request has not enough: nothing leaves that is not covered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cosilo.boundary.channel import Channel, Handler, StreamHandler
from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.boundary.meter import Attempt, Price, Spent, Totals
from cosilo.defences.base import Defence
from cosilo.errors import CosiloError, LocalOnlyError, UndeclaredMessageError
from cosilo.gateway.accounts.accounts import Accounts, Key, RequestFacts, Reservation, Spend
from cosilo.types import Delta, assemble, closing


@dataclass
class Tab:
    """One request's account: what is reserved for it, what its messages cost, and its settlement.

    Attributes:
        user: who the client says is asking; empty where it does not say.
        committed: what crossings have cost or can still cost; never above what is reserved.
        local_only: no message of the request may leave.
        sent_to: the large models that something was sent to.
    """

    accounts: Accounts
    key: Key
    request: str
    user: bytes = b""
    reserved: Spend = field(default_factory=Spend)
    committed: Spend = field(default_factory=Spend)
    reservations: list[Reservation] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    kinds: Mapping[str, int] = field(default_factory=dict)
    lm_calls: int = 0
    local_only: bool = False
    sent_to: dict[str, None] = field(default_factory=dict)

    @property
    def processed(self) -> str:
        """Where the request was processed, as far as it has come."""
        return ", ".join(("home", *self.sent_to))

    @property
    def caller(self) -> bytes:
        """Who asks: one of the client's users where it tells them apart, else the client."""
        return self.key.id.encode() + b"\0" + self.user

    async def reserve(self, most: Spend) -> None:
        """Set `most` aside on top of what is set aside.

        Raises:
            OverBudgetError: a limit of the key would be passed.
        """
        self.reservations.append(await self.accounts.reserve(self.key, most, request=self.request))
        self.reserved += most

    async def commit(self, most: Spend) -> None:
        """Promise `most` to a crossing, setting aside what is missing.

        Raises:
            OverBudgetError: a limit of the key would be passed; the crossing must not happen.
        """
        # Before any await: another crossing of this request may be waiting.
        self.committed = wanted = self.committed + most
        has = self.reserved
        if (
            wanted.usd <= has.usd
            and wanted.tokens_in <= has.tokens_in
            and wanted.tokens_out <= has.tokens_out
            and wanted.entities <= has.entities
            and wanted.epsilon <= has.epsilon
        ):
            return
        missing = Spend(
            usd=max(0.0, wanted.usd - has.usd),
            tokens_in=max(0, wanted.tokens_in - has.tokens_in),
            tokens_out=max(0, wanted.tokens_out - has.tokens_out),
            entities=max(0, wanted.entities - has.entities),
            epsilon=max(0.0, wanted.epsilon - has.epsilon),
        )
        self.reserved += missing
        more = asyncio.ensure_future(self.accounts.reserve(self.key, missing, request=self.request))
        try:
            self.reservations.append(await asyncio.shield(more))
        except asyncio.CancelledError:
            # What is set aside all the same must be settled, so it has to be known.
            with contextlib.suppress(CosiloError):
                self.reservations.append(await more)
            raise
        except BaseException:
            self.reserved = less(self.reserved, missing)
            self.committed = less(self.committed, most)
            raise

    @property
    def totals(self) -> Totals:
        """What crossed for this request, over all attempts."""
        if len(self.channels) == 1:
            return self.channels[0].totals
        return sum((c.totals for c in self.channels), Totals())

    def spent(self, crossed: Totals) -> Spend:
        """What the request cost, given all that crossed for it."""
        return Spend(
            usd=crossed.usd,
            tokens_in=crossed.tokens_in,
            tokens_out=crossed.tokens_out,
            requests=1,
            entities=sum(self.kinds.values()),
            epsilon=crossed.epsilon,
        )

    async def settle(self, spent: Spend, facts: RequestFacts) -> None:
        """Replace all that was set aside by what was spent."""
        for reservation in self.reservations:
            await self.accounts.settle(reservation, spent, request=facts)
            spent = Spend()


def less(a: Spend, b: Spend) -> Spend:
    return Spend(
        usd=a.usd - b.usd,
        tokens_in=a.tokens_in - b.tokens_in,
        tokens_out=a.tokens_out - b.tokens_out,
        requests=a.requests - b.requests,
        entities=a.entities - b.entities,
        epsilon=a.epsilon - b.epsilon,
    )


@runtime_checkable
class Counts(Protocol):
    """A defence that knows how many private values it hid in a request's messages, by kind."""

    def counts(self, request: str) -> Mapping[str, int]: ...


@runtime_checkable
class Withholds(Protocol):
    """A defence that knows how many placeholders it left in a request's answers, by kind, because they
    stood where no value may come back.
    """

    def withheld(self, request: str) -> Mapping[str, int]: ...


@runtime_checkable
class Personal(Protocol):
    """A defence whose placeholders depend on who asks, so that two callers never share one."""

    def bind(self, caller: Callable[[str], bytes]) -> None:
        """Give the defence a function from a request's id to who asked it (empty when nobody is
        known).
        """


class Till(Defence):
    """The innermost guard: no message leaves before its cost is set aside, and none of a request that
    may not leave.

    Args:
        tabs: the open tabs by request; nothing that belongs to none of them leaves.
        price: what this upstream's tokens cost.
        defences: those around it; the ones that count what they hide are asked.
        place: whom the messages go to, and where.
    """

    def __init__(
        self,
        tabs: dict[str, Tab],
        price: Price,
        defences: Sequence[Defence] = (),
        *,
        place: str = "",
    ) -> None:
        self._tabs = tabs
        self._price = price
        self._place = place
        self._counters = tuple(d for d in defences if isinstance(d, Counts))

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
        tab = self._tab(request)
        once = self._price.once(message)
        most = await self._charge(tab, message, once)
        try:
            reply = await forward(message)
        except CosiloError as error:
            self._settle(tab, most, self._price.lost(message, error.worked))
            raise
        self._settle(tab, most, self._price.bill(once, reply).spent)
        return reply

    async def guard_stream(
        self, ask: Ask, forward: StreamHandler, *, request: str
    ) -> AsyncIterator[Delta]:
        tab = self._tab(request)
        once = self._price.once(ask)
        most = await self._charge(tab, ask, once)
        last: Delta | None = None
        try:
            async with closing(forward(ask)) as pieces:
                async for piece in pieces:
                    last = piece
                    yield piece
        except CosiloError as error:
            if last is None:
                self._settle(tab, most, self._price.lost(ask, error.worked))
            raise
        if last is not None and last.finish_reason is not None:
            reply = Completion(generation=assemble([last]))
            # Of what came, only the last piece is known here: its bytes count as their bound.
            self._settle(tab, most, self._price.bill(once, reply, once.bytes_down).spent)

    def _tab(self, request: str) -> Tab:
        try:
            return self._tabs[request]
        except KeyError:
            raise UndeclaredMessageError(
                "a message belongs to no request that is open here, so nothing was sent"
            ) from None

    async def _charge(self, tab: Tab, message: Message, once: Attempt) -> Spend:
        """Set aside the most `message` can cost, whose attempts take `once` each; returns that.

        Raises:
            LocalOnlyError: nothing of the request may leave.
        """
        if tab.local_only:
            raise LocalOnlyError(
                "this request may not leave for a large model, so nothing was sent"
            )
        kinds = tab.kinds
        if self._counters:
            found: Counter[str] = Counter()
            for counter in self._counters:
                found.update(counter.counts(tab.request))
            kinds = found
        bound = self._price.times(self._price.attempts, once)
        most = Spend(
            usd=bound.usd,
            tokens_in=bound.tokens_in,
            tokens_out=bound.tokens_out,
            # The defences count for the whole request, so only what is new is added.
            entities=max(0, sum(kinds.values()) - sum(tab.kinds.values())),
            epsilon=message.epsilon,
        )
        await tab.commit(most)
        tab.kinds = kinds
        tab.lm_calls += 1
        tab.sent_to[self._place] = None
        return most

    def _settle(self, tab: Tab, most: Spend, used: Spent) -> None:
        """Give back what of `most` a crossing did not use of tokens and money."""
        cost = Spend(
            usd=used.usd,
            tokens_in=used.tokens_in,
            tokens_out=used.tokens_out,
            entities=most.entities,
            epsilon=most.epsilon,
        )
        tab.committed += less(cost, most)
