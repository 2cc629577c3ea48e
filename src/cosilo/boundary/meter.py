"""What the crossings cost so far, and the budget they must stay inside.

Reserve, then settle: a crossing first reserves the most it can cost, which raises while nothing has
been sent; afterwards the reservation is replaced by what it did cost. There is no `await` between
the check and the reservation, so no interleaving of concurrent crossings can pass the budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import msgspec

from cosilo.boundary.messages import Message
from cosilo.errors import BudgetExceededError, PrivacyError, RequestBudgetError


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of what crossed. `epsilon` adds up by basic composition."""

    messages: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0
    epsilon: float = 0.0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            messages=self.messages + other.messages,
            bytes_up=self.bytes_up + other.bytes_up,
            bytes_down=self.bytes_down + other.bytes_down,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            usd=self.usd + other.usd,
            epsilon=self.epsilon + other.epsilon,
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
        )


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


@dataclass(frozen=True, slots=True)
class Price:
    """What an LM bills.

    Attributes:
        usd_per_m_in, usd_per_m_out: US dollars per million tokens of the prompt and of the reply.
        reasoning: tokens that it may think of before each reply, billed like the reply's and beyond
            what was asked for.
    """

    usd_per_m_in: float = 0.0
    usd_per_m_out: float = 0.0
    reasoning: int = 0

    def bound(self, request: Message) -> tuple[int, int]:
        """Upper bound on (prompt, completion) tokens that `request` can be billed for."""
        tokens_in, tokens_out = request.tokens_bound()
        return tokens_in, tokens_out + self.reasoning if tokens_out else 0

    def usd(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.usd_per_m_in + tokens_out * self.usd_per_m_out) / 1e6


class Meter:
    """Totals under a budget.

    Args:
        budget: limits for everything this meter sees.
        price: what the LM's tokens cost.
        parent: a meter that is charged as well; both budgets must hold.
        request: what it sees is one task item or gateway request.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        price: Price | None = None,
        parent: Meter | None = None,
        request: bool = False,
    ) -> None:
        self.budget = budget or Budget()
        self.price: Price = price or (parent.price if parent else Price())
        self.parent = parent
        self.totals = Totals()  # settled crossings
        self.reserved = Totals()  # crossings under way
        self._limits = [] if budget is None else _limits(budget)
        self._exceeded = RequestBudgetError if request else BudgetExceededError
        self._of = "budget of one request" if request else "budget"

    def reserve(self, request: Message, size: int) -> Totals:
        """Set aside the most `request` (encoded in `size` bytes) can cost.

        Raises:
            BudgetExceededError: a limit would be passed; nothing is reserved.
            PrivacyError: its ε is negative or no number, so no budget could hold.
        """
        if not 0 <= request.epsilon < math.inf:
            raise PrivacyError(f"ε = {request.epsilon} is no privacy cost, so nothing was sent")
        tokens_in, tokens_out = self.price.bound(request)
        most = Totals(
            messages=1,
            bytes_up=size,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            usd=self.price.usd(tokens_in, tokens_out),
            epsilon=request.epsilon,
        )
        self.hold(most)
        return most

    def settle(self, reservation: Totals, cost: Totals) -> None:
        """Replace `reservation` by what the crossing did `cost`."""
        self.reserved -= reservation
        self.totals += cost
        if self.parent:
            self.parent.settle(reservation, cost)

    def cost(self, request: Message, size: int, reply: Message | None, reply_size: int) -> Totals:
        """What a finished crossing cost; `reply` is None when none came.

        A reply that states no usage is booked at the request's bound for the prompt and at one
        token per two bytes for the reply: an unknown price must not look free.
        """
        tokens_in = tokens_out = 0
        if reply is not None:
            tokens_in, tokens_out = reply.usage()
            if not tokens_in and not tokens_out:
                tokens_in, bound = self.price.bound(request)
                tokens_out = min(bound, reply_size // 2)
        return Totals(
            messages=1,
            bytes_up=size,
            bytes_down=reply_size,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            usd=self.price.usd(tokens_in, tokens_out),
            epsilon=request.epsilon,
        )

    def hold(self, most: Totals) -> None:
        """Set `most` aside, to be settled later.

        Raises:
            BudgetExceededError: a limit would be passed; nothing is set aside.
        """
        if self._limits:
            after = self.totals + self.reserved + most
            for name, limit in self._limits:
                would = getattr(after, name)
                if would > limit:
                    raise self._exceeded(
                        f"{name} would reach {would:g}, over the {self._of}, {limit:g}; "
                        "nothing was sent"
                    )
        if self.parent:
            self.parent.hold(most)
        self.reserved += most


def _limits(budget: Budget) -> list[tuple[str, float]]:
    found = ((f.name, getattr(budget, f.name)) for f in fields(Budget))
    return [(name, limit) for name, limit in found if limit is not None]
