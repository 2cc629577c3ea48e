"""A circuit breaker: an upstream that fails again and again is left alone for a while.

    closed ──(too many failures)──▶ open ──(cool-down over)──▶ half-open ──(a probe succeeds)──▶ closed
                                      ▲                            │
                                      └──────(the probe fails)─────┘

While it is open, requests fail at once and nothing is sent. The pattern is Nygard's ("Release It!",
2007); cool-downs double with each failed probe and are jittered, so that many workers do not come
back at the same moment.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cosilo.gateway.refusals import BreakerOpenError

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, kw_only=True)
class BreakerConfig:
    """When an upstream is left alone, and for how long.

    Attributes:
        consecutive: this many failures in a row open the breaker.
        rate: so does this share of failures among the last `window` calls, once there are that many.
        cooldown: seconds it stays open the first time; doubled after each failed probe.
        longest: seconds it stays open at most.
    """

    consecutive: int = 5
    rate: float = 0.5
    window: int = 20
    cooldown: float = 5.0
    longest: float = 60.0

    def __post_init__(self) -> None:
        if self.consecutive < 1 or self.window < 1:
            raise ValueError("consecutive and window must be at least 1")
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate = {self.rate!r} is not above 0 and at most 1")
        if not 0 < self.cooldown <= self.longest < math.inf:
            raise ValueError("cooldown must be above 0 and at most longest, and that a number")


class Breaker:
    """One upstream's health.

    `admit` gives a number for the call, and is followed by exactly one of `succeeded`, `failed` or
    `released` with it. A call that was let through before the breaker last opened says nothing about
    the upstream as it is now, and changes nothing when it ends.

    Args:
        name: the upstream's, for the error.
        clock: seconds, never going backwards.
        jitter: a factor for each cool-down, around 1.
    """

    def __init__(
        self,
        name: str,
        config: BreakerConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2),
    ) -> None:
        self.name = name
        self.config = config or BreakerConfig()
        self._clock = clock
        self._jitter = jitter
        self._outcomes: deque[bool] = deque(maxlen=self.config.window)
        self._row = 0
        self._trips = 0
        self._open_until: float | None = None
        self._probing = False
        self._period = (
            0  # the number of calls let through now; another after each opening and probe
        )

    @property
    def state(self) -> State:
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half-open"

    @property
    def willing(self) -> bool:
        """Whether `admit` would let a call through now."""
        state = self.state
        return state == "closed" or (state == "half-open" and not self._probing)

    def admit(self) -> int:
        """The number of a call that is let through; to be given to `succeeded`, `failed` or
        `released`.

        Raises:
            BreakerOpenError: the upstream is being left alone; nothing was sent.
        """
        state = self.state
        if state == "half-open" and not self._probing:
            self._probing = True
            self._period += 1
        elif state != "closed":
            left = (self._open_until or 0.0) - self._clock()
            raise BreakerOpenError(self.name, max(left, 1.0))
        return self._period

    def succeeded(self, call: int) -> None:
        if call != self._period:
            return
        if self._probing:
            self._open_until = None
            self._probing = False
            self._trips = 0
            self._outcomes.clear()
        self._row = 0
        self._outcomes.append(True)

    def failed(self, call: int) -> None:
        if call != self._period:
            return
        self._row += 1
        self._outcomes.append(False)
        full = len(self._outcomes) == self.config.window
        bad = self._outcomes.count(False) / len(self._outcomes)
        if (
            self._probing
            or self._row >= self.config.consecutive
            or (full and bad >= self.config.rate)
        ):
            self._trip()

    def released(self, call: int) -> None:
        """The call ended in a way that says nothing about the upstream (the client left)."""
        if call == self._period:
            self._probing = False

    def _trip(self) -> None:
        wait = min(self.config.cooldown * 2.0**self._trips, self.config.longest)
        self._open_until = self._clock() + wait * self._jitter()
        self._trips += 1
        self._period += 1
        self._row = 0
        self._probing = False
        self._outcomes.clear()
