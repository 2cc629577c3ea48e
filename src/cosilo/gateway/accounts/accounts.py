"""Who may ask, what they may still spend, and what they did spend.

    authenticate ─▶ reserve the most it can cost ─▶ (the request runs) ─▶ settle what it did cost

The server is written against these protocols; `gateway.record.store` opens what implements them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from cosilo.boundary.record.ledger import Ledger
from cosilo.errors import BudgetExceededError

SpendKind = Literal["usd", "tokens", "requests", "entities", "epsilon"]
Period = Literal["total", "day", "month"]


class Spend(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one request took, or can take at most. All fields add up.

    `tokens_in` and `tokens_out` are the large model's; `entities` counts the private values that
    left in clear or as placeholders; `epsilon` composes by addition.
    """

    usd: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    requests: int = 0
    entities: int = 0
    epsilon: float = 0.0

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out

    def __add__(self, other: Spend) -> Spend:
        return Spend(
            usd=self.usd + other.usd,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            requests=self.requests + other.requests,
            entities=self.entities + other.entities,
            epsilon=self.epsilon + other.epsilon,
        )


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a key may spend in each `period`; None is no limit.

    Days and months are UTC's. `requests_per_minute` holds for any sixty seconds, whatever the
    period; `epsilon` for all time, as privacy once spent does not come back.
    """

    usd: float | None = None
    tokens: int | None = None
    requests_per_minute: int | None = None
    entities: int | None = None
    epsilon: float | None = None
    period: Period = "total"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as the server sees it: never the secret itself.

    `points` are the model names it may use; empty means all. `admin` may see the whole gateway.
    `local_only`: nothing of its requests leaves for a large model, whatever they and their points say.
    """

    id: str
    name: str
    limits: Limits = Limits()
    points: tuple[str, ...] = ()
    admin: bool = False
    local_only: bool = False

    def may_use(self, point: str, model: str) -> bool:
        """Whether it may use the point of the name `point`, which clients know as `model`."""
        return not self.points or point in self.points or model in self.points


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """Money and more set aside for `request`, until it is settled."""

    id: str
    key: str
    request: str
    most: Spend


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a finished request: counts only, no text.

    `outcome` is "ok", "cancelled" (the client left) or "error"; `kinds` counts the entities that
    left by kind; `disputes` counts the replies whose owner claimed more tokens than can be; `seconds`
    runs from the request's first byte to the answer's last; `sent_to` are the large models that
    something of it was sent to; `withheld` counts by kind the placeholders that were left in the
    answers, because they stood where no value may come back.
    """

    request: str
    point: str
    strategy: str
    endpoint: str
    outcome: Literal["ok", "cancelled", "error"]
    status: int
    by: str = ""
    stream: bool = False
    lm_calls: int = 0
    upstream: str = ""
    fallback: bool = False
    bytes_up: int = 0
    bytes_down: int = 0
    kinds: Mapping[str, int] = {}
    disputes: int = 0
    at: float = 0.0
    seconds: float = 0.0
    sent_to: str = ""
    withheld: Mapping[str, int] = {}


class OverBudgetError(BudgetExceededError):
    """A key's limit would be passed; nothing was sent.

    `kind` is what ran out, `limit` the key's limit, `retry_after` the seconds after which a rate
    limit has room again (None: waiting does not help).
    """

    def __init__(self, kind: SpendKind, limit: float, retry_after: float | None = None) -> None:
        wait = f"; room again in {retry_after:.0f} s" if retry_after is not None else ""
        super().__init__(f"this key's limit of {limit:g} {kind} would be passed{wait}")
        self.kind: SpendKind = kind
        self.limit = limit
        self.retry_after = retry_after


class Accounts(Protocol):
    """Keys and what they spend, shared by all workers."""

    async def authenticate(self, bearer: str) -> Key | None:
        """The key whose secret is `bearer`, in time that does not depend on how much matches.

        Raises:
            StoreError: the store cannot be read.
        """

    async def reserve(self, key: Key, most: Spend, *, request: str) -> Reservation:
        """Set `most` aside for `request` (an id that is never used twice).

        Raises:
            OverBudgetError: a limit would be passed; nothing is set aside.
            StoreError: it cannot be recorded; the request must then not run.
        """

    async def settle(
        self, reservation: Reservation, spent: Spend, *, request: RequestFacts
    ) -> None:
        """Replace the reservation by what was spent; doing it twice changes nothing.

        Called once for every reservation, also when the request failed or the client left; where a
        request has several, the first carries all that was spent. What a killed process left
        unsettled the store settles itself, at the most it can have cost.

        Raises:
            StoreError: it cannot be written now; the reservation stands, and this can be tried again.
        """


class AccountStore(Protocol):
    """One worker's way to everything that outlives it."""

    @property
    def accounts(self) -> Accounts: ...

    def ledger(self, point: str, upstream: str = "") -> Ledger:
        """Where crossings of `point` are recorded: this worker's chain; for one of several upstreams
        that are asked together, the worker's chain of that one."""

    async def check(self) -> None:
        """Whether a request could be recorded now.

        Raises:
            StoreError: it could not.
        """

    async def close(self) -> None: ...
