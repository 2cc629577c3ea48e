"""What the crossings cost so far, and the budget they must stay inside.

Reserve, then settle: a crossing first reserves the most it can cost, which raises while nothing has
been sent; afterwards the reservation is replaced by what it did cost. There is no `await` between
the check and the reservation, so no interleaving of concurrent crossings can pass the budget.

What the LM's owner says it used is a claim. It is booked as far as it can be true: more than that is
not, and counts as a dispute; where nothing is claimed, or an attempt was lost that the LM may have
worked on, the most it can have cost is booked.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import msgspec

from cosilo.boundary.messages import Beside, Message, encode
from cosilo.errors import BudgetExceededError, PrivacyError, RequestBudgetError

log = logging.getLogger("cosilo.boundary")


class Totals(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Counts of what crossed. `epsilon` adds up by basic composition; `disputes` are the replies whose
    owner claimed more tokens than can be, or no number of them."""

    messages: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0
    epsilon: float = 0.0
    disputes: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            messages=self.messages + other.messages,
            bytes_up=self.bytes_up + other.bytes_up,
            bytes_down=self.bytes_down + other.bytes_down,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            usd=self.usd + other.usd,
            epsilon=self.epsilon + other.epsilon,
            disputes=self.disputes + other.disputes,
        )

    def __sub__(self, other: Totals) -> Totals:
        return Totals(
            messages=self.messages - other.messages,
            bytes_up=self.bytes_up - other.bytes_up,
            bytes_down=self.bytes_down - other.bytes_down,
            tokens_in=self.tokens_in - other.tokens_in,
            tokens_out=self.tokens_out - other.tokens_out,
            usd=self.usd - other.usd,
            epsilon=self.epsilon - other.epsilon,
            disputes=self.disputes - other.disputes,
        )


NOTHING = Totals()
NONE_BESIDE = Beside()


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Upper limits, named as in `Totals`; None means unlimited."""

    messages: int | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    usd: float | None = None
    epsilon: float | None = None

    def __post_init__(self) -> None:
        for name, limit in _limits(self):
            if not 0 <= limit < math.inf:
                raise ValueError(f"{name} = {limit!r} is no limit from 0 on")


@dataclass(frozen=True)
class Link:
    """The network that latency is stated for."""

    rtt_ms: float = 40.0
    mbit_per_s: float = 50.0


class Attempt(NamedTuple):
    """The most that one attempt at a request can take.

    Attributes:
        tokens_in, tokens_out: of the prompt and of the reply.
        bytes_up, bytes_down: encoded, of the request and of the reply; 0 where bytes cost nothing.
        beside: bytes that cross beside them, both ways.
    """

    tokens_in: int
    tokens_out: int
    bytes_up: int = 0
    bytes_down: int = 0
    beside: int = 0


class Spent(NamedTuple):
    """Tokens and money of a crossing."""

    tokens_in: int
    tokens_out: int
    usd: float


class Bill(NamedTuple):
    """What a reply is booked at.

    Attributes:
        answer: (prompt, completion) tokens of the attempt that was answered.
        spent: of all attempts together.
        disputed: the LM's owner claimed more than can be, or no number.
    """

    answer: tuple[int, int]
    spent: Spent
    disputed: bool


@dataclass(frozen=True, slots=True)
class Price:
    """What an LM's owner bills, and for how much of it.

    Attributes:
        usd_per_m_in, usd_per_m_out: US dollars per million tokens of the prompt and of the reply.
        reasoning: tokens that the LM may think of before each reply, billed like the reply's and beyond
            what was asked for.
        attempts: how often a request may be sent until it is answered; each may be worked on.
        usd_per_m_cached: per million tokens of the prompt that the LM had read before, as its owner
            says; None where they cost what the others do.
        usd_per_hour: of the seconds that a request is worked on, as for a machine rented by the hour.
            Requests that are answered side by side count in full, each by itself.
        longest_s: seconds that one attempt may take at most. Where seconds cost money, a crossing that
            takes longer than all its attempts may is cut off, so that this is a bound.
        usd_per_gb: per 10⁹ bytes of encoded messages, both ways.

    Raises:
        ValueError: a price below 0, tokens read before that cost more than others, or seconds that cost
            money without a bound on them.
    """

    usd_per_m_in: float = 0.0
    usd_per_m_out: float = 0.0
    reasoning: int = 0
    attempts: int = 1
    usd_per_m_cached: float | None = None
    usd_per_hour: float = 0.0
    longest_s: float = 0.0
    usd_per_gb: float = 0.0

    def __post_init__(self) -> None:
        for name in ("usd_per_m_in", "usd_per_m_out", "usd_per_hour", "usd_per_gb", "longest_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)!r} is no number from 0 on")
        cached = self.usd_per_m_cached
        if cached is not None and not 0 <= cached <= self.usd_per_m_in:
            raise ValueError(f"usd_per_m_cached = {cached!r} is not between 0 and usd_per_m_in")
        if self.usd_per_hour and not self.longest_s:
            raise ValueError("usd_per_hour needs a bound on the seconds that a request may take")

    @property
    def most_seconds(self) -> float:
        """How long a crossing may take where seconds cost money."""
        return self.attempts * self.longest_s

    def once(self, request: Message, size: int | None = None) -> Attempt:
        """The most that one attempt at `request` is billed for.

        Args:
            size: bytes of the request, where they are known; else it is encoded if bytes cost money.
        """
        tokens_in, tokens_out = request.tokens_bound()
        if tokens_out:
            tokens_out += self.reasoning
        if not self.usd_per_gb:
            return Attempt(tokens_in, tokens_out)
        up = len(encode(request)) if size is None else size
        down = request.reply_bound(tokens_out)
        return Attempt(tokens_in, tokens_out, up, down, request.beside().bytes)

    def bound(self, request: Message, size: int | None = None) -> Spent:
        """The most that all attempts at `request` together are billed for; `size` as for `once`."""
        return self.times(self.attempts, self.once(request, size))

    def lost(self, request: Message, worked: int | None, size: int | None = None) -> Spent:
        """What was spent on `request` when no reply came: the most that `worked` attempts can be billed
        for; that of all attempts where nobody knows how many were worked on (None)."""
        times = self.attempts if worked is None else min(worked, self.attempts)
        return self.times(times, self.once(request, size))

    def times(self, count: int, most: Attempt) -> Spent:
        """What `count` attempts cost that each took the `most`."""
        tokens_in, tokens_out = count * most.tokens_in, count * most.tokens_out
        seconds = count * self.longest_s
        size = count * (most.bytes_up + most.bytes_down + most.beside)
        return Spent(
            tokens_in, tokens_out, self.usd(tokens_in, tokens_out, seconds=seconds, size=size)
        )

    def bill(self, most: Attempt, reply: Message, size: int | None = None) -> Bill:
        """What `reply` is booked at: what it claims, as far as that can be true.

        Args:
            most: of one attempt, as `once` says.
            size: bytes of the reply, as for `once`.

        A claim that is missing, and one that cannot be true, is taken as the most that can be: of the
        prompt its bound, of the reply a token for each byte that came, and what it may have thought; of
        tokens read before, none.
        """
        claimed_in, claimed_out = tokens_in, tokens_out = reply.usage()
        cached = 0 if self.usd_per_m_cached is None else reply.cached()
        read_before = 0 <= cached <= max(0, claimed_in)
        if not (0 < claimed_in <= most.tokens_in and read_before):
            tokens_in, cached = most.tokens_in, 0
        if not 0 < claimed_out <= most.tokens_out:
            written = reply.written()
            seen = (
                min(most.tokens_out, written + self.reasoning) if written or not claimed_in else 0
            )
            tokens_out = seen if claimed_out <= 0 else most.tokens_out
        sent = reply.sent()
        lost = min(max(1, sent), self.attempts) - 1
        possible = (
            0 <= claimed_in <= most.tokens_in
            and 0 <= claimed_out <= most.tokens_out
            and read_before
            and sent == lost + 1
        )
        all_in, all_out = tokens_in + lost * most.tokens_in, tokens_out + lost * most.tokens_out
        seconds, crossed = 0.0, 0
        if self.usd_per_hour:
            took = (reply.seconds() or self.longest_s) + lost * self.longest_s
            seconds = min(took, self.most_seconds)
        if self.usd_per_gb:
            down = len(encode(reply)) if size is None else size
            crossed = most.bytes_up + down + reply.beside().bytes
            crossed += lost * (most.bytes_up + most.bytes_down + most.beside)
        usd = self.usd(all_in, all_out, cached=cached, seconds=seconds, size=crossed)
        return Bill((tokens_in, tokens_out), Spent(all_in, all_out, usd), not possible)

    def usd(
        self,
        tokens_in: int,
        tokens_out: int,
        *,
        cached: int = 0,
        seconds: float = 0.0,
        size: int = 0,
    ) -> float:
        """US dollars for so many tokens, seconds and bytes.

        Args:
            cached: of `tokens_in`, those that were read before.
        """
        usd = (tokens_in * self.usd_per_m_in + tokens_out * self.usd_per_m_out) / 1e6
        if cached and self.usd_per_m_cached is not None:
            usd -= cached * (self.usd_per_m_in - self.usd_per_m_cached) / 1e6
        if self.usd_per_hour:
            usd += seconds * self.usd_per_hour / 3600
        if self.usd_per_gb:
            usd += size * self.usd_per_gb / 1e9
        return usd


class Meter:
    """Totals under a budget.

    Args:
        budget: limits for everything this meter sees.
        price: what the LM's tokens cost.
        parent: a meter that is charged as well; both budgets must hold.
        within: one more such meter, that others than `parent` are charged to.
        request: what it sees is one task item or gateway request.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        price: Price | None = None,
        parent: Meter | None = None,
        within: Meter | None = None,
        request: bool = False,
    ) -> None:
        self.budget = budget or UNLIMITED
        self.price: Price = price or (parent.price if parent else Price())
        self.parent = parent
        self.within = within
        self.totals = NOTHING  # settled crossings
        self.reserved = NOTHING  # crossings under way
        self._limits = [] if budget is None else _limits(budget)
        self._whole = parent is None and not request
        self._exceeded = RequestBudgetError if request else BudgetExceededError
        self._of = "budget of one request" if request else "budget"

    def limit(self, budget: Budget) -> None:
        """Hold to `budget` from now on."""
        self.budget = budget
        self._limits = _limits(budget)

    def reserve(self, request: Message, size: int) -> Totals:
        """Set aside the most `request` (encoded in `size` bytes) can cost.

        Raises:
            BudgetExceededError: a limit would be passed; nothing is reserved.
            PrivacyError: its ε is negative or no number, so no budget could hold.
        """
        if not 0 <= request.epsilon < math.inf:
            raise PrivacyError(f"ε = {request.epsilon} is no privacy cost, so nothing was sent")
        spent, beside = self.price.bound(request, size), request.beside()
        most = Totals(
            messages=1,
            bytes_up=size + beside.up,
            bytes_down=request.reply_bound(spent.tokens_out // self.price.attempts) + beside.down,
            tokens_in=spent.tokens_in,
            tokens_out=spent.tokens_out,
            usd=spent.usd,
            epsilon=request.epsilon,
        )
        self.hold(most)
        return most

    def settle(self, reservation: Totals, cost: Totals) -> None:
        """Replace `reservation` by what the crossing did `cost`."""
        self.reserved -= reservation
        if cost.disputes and not self.totals.disputes and self._whole:
            log.warning(
                "the large model's owner claims more tokens than a request can have used, or no "
                "number of them; booked is the most it can be, and further claims are counted. If the "
                "model thinks before it answers, set `reasoning` for it"
            )
        self.totals += cost
        if self.parent:
            self.parent.settle(reservation, cost)
        if self.within:
            self.within.settle(reservation, cost)

    def once(self, reservation: Totals, request: Message) -> Attempt:
        """The most of one of the attempts in `reservation`, which is for `request`."""
        attempts, beside = self.price.attempts, request.beside()
        return Attempt(
            reservation.tokens_in // attempts,
            reservation.tokens_out // attempts,
            reservation.bytes_up - beside.up,
            reservation.bytes_down - beside.down,
            beside.bytes,
        )

    def cost(self, request: Message, size: int, reply: Message | None, reply_size: int) -> Totals:
        """What a finished crossing cost; `reply` is None when it was not answered and not worked on."""
        if reply is None:
            return self._booked(request, size, Spent(0, 0, 0.0))
        bill = self.price.bill(self.price.once(request, size), reply, reply_size)
        return self.billed(request, size, bill, reply_size, reply.beside())

    def billed(
        self, request: Message, size: int, bill: Bill, reply_size: int, beside: Beside = NONE_BESIDE
    ) -> Totals:
        """What a crossing cost that was answered, in `reply_size` bytes, with what `bill` says and so
        many bytes beside it."""
        return self._booked(
            request, size + beside.up, bill.spent, reply_size + beside.down, int(bill.disputed)
        )

    def lost(self, request: Message, size: int, error: BaseException) -> Totals:
        """What a crossing cost that ended in `error`: what the LM may have worked all the same. Where
        something crosses beside it, all that could have: the error may be the other party's words."""
        beside = request.beside()
        worked: int | None = None if beside.bytes else getattr(error, "worked", None)
        spent = self.price.lost(request, worked, size)
        return self._booked(request, size + beside.up, spent, beside.down)

    def _booked(
        self, request: Message, size: int, spent: Spent, bytes_down: int = 0, disputes: int = 0
    ) -> Totals:
        return Totals(
            messages=1,
            bytes_up=size,
            bytes_down=bytes_down,
            tokens_in=spent.tokens_in,
            tokens_out=spent.tokens_out,
            usd=spent.usd,
            epsilon=request.epsilon,
            disputes=disputes,
        )

    def hold(self, most: Totals) -> None:
        """Set `most` aside, to be settled later.

        Raises:
            BudgetExceededError: a limit would be passed; nothing is set aside.
        """
        reserved = self.reserved + most
        if self._limits:
            after = self.totals + reserved
            for name, limit in self._limits:
                would = getattr(after, name)
                if would > limit:
                    raise self._exceeded(
                        f"{name} would reach {would:g}, over the {self._of}, {limit:g}; "
                        "nothing was sent"
                    )
        if self.parent:
            self.parent.hold(most)
        if self.within:
            try:
                self.within.hold(most)
            except BudgetExceededError:
                if self.parent:
                    self.parent.settle(most, NOTHING)
                raise
        self.reserved = reserved


def _limits(budget: Budget) -> list[tuple[str, float]]:
    found = ((f.name, getattr(budget, f.name)) for f in fields(Budget))
    return [(name, limit) for name, limit in found if limit is not None]


UNLIMITED = Budget()
