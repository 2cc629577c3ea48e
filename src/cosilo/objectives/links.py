"""How long preparing takes over other networks, from the record of a run that was made here.

    as it ran   ▲ ── their work ── ▼ ── own work ── ▲ ── their work ── ▼      times of the entries
    elsewhere   ▲▪▪── their work ──▪▪▼ ── own work ── ▲▪▪── their work ──▪▪▼  ▪▪ the link

Both sides' work and who waits for whom are taken as they were; to each message is added what TCP makes
of the link: half a round trip each way, the bytes at the link's rate, slow start (ten segments at
first, twice as many with each round trip, fewer again after a pause: RFC 6928, RFC 5681 and Linux's
defaults), and round trips for new connections with TLS 1.3. What the run's own network took counts as
the other side's work, so the record should be one of a run on one machine or in one building.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cosilo.boundary.messages.base import classes
from cosilo.boundary.meter import Link
from cosilo.boundary.record.ledger import Entry

LINKS: Mapping[str, Link] = {
    "LAN": Link(rtt_ms=0.5, mbit_per_s=1000),
    "100 Mbit/s at 40 ms": Link(rtt_ms=40, mbit_per_s=100),
    "20 Mbit/s at 100 ms": Link(rtt_ms=100, mbit_per_s=20),
}
"""What is stated where a plan states nothing else; milliseconds there and back."""

SEGMENT = 1448
"""Bytes that a packet of 1500 carries."""

FIRST = 10 * SEGMENT
"""Bytes under way at first on a new connection."""

KEPT_S = 15.0
"""Seconds after which a client gives up a connection that nothing crosses."""

_RECORDS = 1 + 22 / 16384  # what TLS adds to a byte
_HEADERS = 400  # bytes of HTTP's around a message, about
_RESTS_S = 0.2  # with a round trip, the pause after which TCP halves what it dares to send at once
_GREETING = 3  # round trips: TCP, TLS, and what the host speaks
_CONNECTING = 2  # TCP and TLS


@dataclass(frozen=True)
class OverLinks:
    """Seconds of preparing, from the first message to the last reply.

    Attributes:
        turn: what it is counted by: "round", "step".
        turns: how many of these it had.
        ran: seconds that it took as it ran.
        seconds: link's name → seconds that it is predicted to take over that one.
    """

    turn: str
    turns: int
    ran: float
    seconds: Mapping[str, float]

    def each(self, name: str) -> float:
        """Predicted seconds of a turn over the link called `name`."""
        return self.seconds[name] / self.turns


def over_links(entries: Iterable[Entry], links: Mapping[str, Link]) -> OverLinks | None:
    """What the record of preparing says of other links; None where no turns are counted in it.

    Args:
        entries: of one attempt to prepare, to and from one other side, in their order.
    """
    turn, turns = "", 0
    first = last = None
    ways = {name: _Road(link) for name, link in links.items()}
    kinds = classes()
    for entry in entries:
        if entry.direction == "up" and entry.kind in kinds and kinds[entry.kind].turn:
            turn, turns = kinds[entry.kind].turn, turns + 1
        first = entry.at if first is None else first
        last = entry.at
        for way in ways.values():
            way.crossed(entry)
    if first is None or last is None or not turns:
        return None
    return OverLinks(turn, turns, last - first, {name: way.now for name, way in ways.items()})


@dataclass
class _Way:
    """One direction of a link.

    Attributes:
        free: when what was put on it has left; seconds since the first message.
        window: bytes that TCP sends before it hears that they came.
    """

    link: Link
    free: float = 0.0
    window: float = FIRST

    def carried(self, size: int, at: float) -> float:
        """When the last of so many bytes comes that are put on it at `at`."""
        rtt = self.link.rtt_ms / 1000
        start = max(at, self.free)
        rests = int((start - self.free) / (rtt + _RESTS_S))
        self.window = max(FIRST, self.window / 2 ** min(rests, 60))
        rate = self.link.mbit_per_s * 1e6 / 8 * SEGMENT / 1500
        left, leaves = size * _RECORDS + _HEADERS, start
        while self.window < min(left, rate * rtt):
            leaves += rtt
            left -= self.window
            self.window *= 2
        self.free = leaves + left / rate
        self.window += min(left, self.window) if left > self.window / 2 else 0
        return self.free + rtt / 2

    def anew(self) -> None:
        self.window = FIRST


@dataclass
class _Road:
    """A record's messages, as they cross over `link`.

    Attributes:
        now: when the last reply came, in seconds since the first message left.
    """

    link: Link
    now: float = 0.0
    _heard: float | None = None  # when the last reply came, as it ran
    _asked: dict[int, tuple[float, float]] = field(default_factory=dict)
    _open: int = 0  # connections
    _up: _Way = field(init=False)
    _down: _Way = field(init=False)

    def __post_init__(self) -> None:
        self._up, self._down = _Way(self.link), _Way(self.link)

    def crossed(self, entry: Entry) -> None:
        if entry.direction == "up":
            heard = entry.at if self._heard is None else self._heard
            self._heard = heard
            leaves = self.now + max(0.0, entry.at - heard)
            leaves += self._connecting(leaves) * self.link.rtt_ms / 1000
            self._asked[entry.number] = entry.at, self._up.carried(entry.size, leaves)
            return
        number = entry.answers
        if (
            number is None or number not in self._asked
        ):  # an older record, where replies come in order
            number = next(iter(self._asked), None)
            if number is None:
                return
        at, came = self._asked.pop(number)
        reply = self._down.carried(entry.size, came + max(0.0, entry.at - at))
        self._heard = entry.at
        self.now = max(self.now, reply)

    def _connecting(self, at: float) -> int:
        """Round trips until a message that is to leave at `at` has a connection."""
        if self._open and at - max(self._up.free, self._down.free) > KEPT_S:
            self._open = 0
            self._up.anew()
            self._down.anew()
        elif len(self._asked) < self._open:
            return 0
        first = not self._up.free
        # A new connection is greeted over one of its own, and both are kept; the very first is
        # greeted over itself.
        self._open += 1 if first else 2
        return _GREETING if first else _GREETING + _CONNECTING
