"""What each client may take of the LM: in all, and on one day of UTC.

Reserve, then settle, as the data owner's meter does: a request first sets aside the most it can take,
and is refused where that would pass a limit, before the model works; afterwards what it did take
replaces it. What was set aside when the host died counts as taken until the request is answered.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

import msgspec
from msgspec.structs import astuple

from cosilo.errors import BudgetExceededError, ConfigError


class Taken(msgspec.Struct, frozen=True):
    """What requests took: messages, tokens, money, what they drew of the model beside text (see
    `Drawn`), and prompts that this client had not sent before (counted where they are limited)."""

    messages: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0
    logits: int = 0
    states: int = 0
    gradients: int = 0
    prompts: int = 0

    def __add__(self, other: Taken) -> Taken:
        return Taken(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: Taken) -> Taken:
        return Taken(*map(operator.sub, astuple(self), astuple(other)))


NAMES = Taken.__struct_fields__
SHOWN = ("logits", "states", "gradients")


@dataclass(frozen=True, kw_only=True)
class ClientLimits:
    """Upper limits, named as in `Taken`; None means unlimited."""

    messages: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    usd: float | None = None
    logits: int | None = None
    states: int | None = None
    gradients: int | None = None
    prompts: int | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            limit = getattr(self, item.name)
            if limit is not None and not 0 <= limit < math.inf:
                raise ValueError(f"{item.name} = {limit!r} is no limit from 0 on")

    @property
    def stated(self) -> list[tuple[str, float]]:
        found = ((item.name, getattr(self, item.name)) for item in fields(self))
        return [(name, limit) for name, limit in found if limit is not None]


class ClientAccount:
    """What one client took, and may take.

    Args:
        client: its name, for what it is told when it is refused.
        total, day: limits in all and for one day of UTC.
        before: what it took in all.
        today: what it took on the day that `clock` shows.
        held: what is set aside for requests that a former process did not answer.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        client: str,
        total: ClientLimits,
        day: ClientLimits,
        *,
        before: Taken,
        today: Taken,
        held: Taken,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.client = client
        self.taken = before
        self._clock = clock
        self._day = day_of(clock())
        self._today = today
        self._held = held
        self.limit(total, day)

    def limit(self, total: ClientLimits, day: ClientLimits) -> None:
        """Take other limits from now on."""
        self._total, self._daily = total.stated, day.stated

    def limits(self, *names: str) -> bool:
        """Whether any of these is limited."""
        return any(name in names for name, _ in (*self._total, *self._daily))

    def hold(self, most: Taken) -> None:
        """Set `most` aside.

        Raises:
            BudgetExceededError: a limit would be passed; nothing is set aside, and nothing worked on.
        """
        self._turn()
        for limits, so_far, when in (
            (self._total, self.taken, "in all"),
            (self._daily, self._today, "a day"),
        ):
            for name, limit in limits:
                before, more = getattr(so_far + self._held, name), getattr(most, name)
                if before + more > limit:
                    raise BudgetExceededError(
                        f"client {self.client!r} may take {limit:g} {name} {when}; {before:g} are "
                        f"taken or set aside, and this request may take {more:g}. The model was not "
                        "asked"
                    )
        self._held += most

    def fits(self, most: Taken) -> bool:
        """Whether `hold` would set `most` aside."""
        try:
            self.hold(most)
        except BudgetExceededError:
            return False
        self._held -= most
        return True

    def settle(self, held: Taken, cost: Taken) -> None:
        """Replace what was set aside by what was taken."""
        self._turn()
        self._held -= held
        self.taken += cost
        self._today += cost

    def day(self) -> str:
        """The day that what is settled now counts for."""
        self._turn()
        return self._day

    def _turn(self) -> None:
        today = day_of(self._clock())
        if today > self._day:  # a clock that is put back gives nobody a second day
            self._day, self._today = today, Taken()


def day_of(at: float) -> str:
    """The day of UTC at `at` seconds since 1970."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def taken(data: bytes) -> Taken:
    """What `msgspec.msgpack` encoded.

    Raises:
        ConfigError: the bytes are something else.
    """
    try:
        return msgspec.msgpack.decode(data, type=Taken)
    except msgspec.DecodeError:
        raise ConfigError("what a client took cannot be read") from None
