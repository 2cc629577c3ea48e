"""What a record says of other networks, beside sums by hand."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from cosilo.boundary.meter import Link
from cosilo.boundary.record.ledger import Entry
from cosilo.objectives.links import (
    FIRST,
    KEPT_S,
    LINKS,
    SEGMENT,
    OverLinks,
    over_links,
)

NEAR = Link(rtt_ms=0, mbit_per_s=1e9)
FAR = Link(rtt_ms=100, mbit_per_s=20)


def entry(
    number: int, at: float, size: int, answers: int | None = None, kind: str = "Contribute"
) -> Any:
    return Entry(
        chain="c", number=number, attempt=0, request="", direction="up" if answers is None else "down",
        kind=kind if answers is None else "Contributed", size=size, digest=b"", at=at, epsilon=0.0,
        payload=None, hash=b"", answers=answers,
    )  # fmt: skip


def over(*entries: Any, link: Link = FAR) -> float:
    found = over_links(entries, {"far": link})
    assert found is not None
    return found.seconds["far"]


def on_the_wire(size: int) -> float:
    return (size * (1 + 22 / 16384) + 400) * 1500 / SEGMENT * 8 / 20e6


def test_a_link_that_takes_no_time_changes_nothing() -> None:
    record = [entry(0, 10, 5000), entry(1, 12, 5000, 0), entry(2, 15, 9), entry(3, 15.5, 9, 2)]
    found = over_links(record, {"near": NEAR})
    assert found is not None
    assert found == OverLinks("round", 2, 5.5, found.seconds)
    assert found.seconds["near"] == pytest.approx(5.5, abs=1e-6)
    assert found.each("near") == pytest.approx(2.75, abs=1e-6)


def test_a_small_message_takes_the_greeting_and_a_round_trip_beside_the_work() -> None:
    took = over(entry(0, 0, 100), entry(1, 2, 100, 0))
    assert took == pytest.approx(0.3 + 0.1 + 2 + 2 * on_the_wire(100), abs=1e-4)


def test_a_large_message_starts_slowly() -> None:
    """Ten segments, then twenty and forty, are under way at once; from eighty on the link is full."""
    took = over(entry(0, 0, 2_000_000), entry(1, 0, 0, 0))
    left = 2_000_000 * (1 + 22 / 16384) + 400
    waited = 0.0
    window = FIRST
    while window < 20e6 / 8 * SEGMENT / 1500 * 0.1:
        waited, left, window = waited + 0.1, left - window, 2 * window
    assert waited == pytest.approx(0.5)
    assert took == pytest.approx(
        0.3 + 0.1 + waited + left * 1500 / SEGMENT * 8 / 20e6 + on_the_wire(0), abs=1e-3
    )


def test_a_connection_that_was_used_lately_is_faster_than_a_new_one() -> None:
    def second(after: float) -> float:
        first = [entry(0, 0, 100), entry(1, 0, 100, 0)]
        return over(*first, entry(2, after, 100), entry(3, after, 100, 2)) - over(*first) - after

    assert second(1.0) == pytest.approx(0.1, abs=1e-3)
    assert second(KEPT_S + 1) == pytest.approx(0.1 + 0.5, abs=1e-3)


def test_clients_keep_connections_as_long_as_is_said_here() -> None:
    async def seconds() -> float:
        connector = aiohttp.TCPConnector()
        try:
            return float(connector._keepalive_timeout)
        finally:
            await connector.close()

    import asyncio

    assert asyncio.run(seconds()) == KEPT_S


def test_messages_under_way_together_share_the_link_and_not_the_round_trip() -> None:
    alone = [entry(0, 0, 100_000), entry(1, 1, 100, 0)]
    both = [
        entry(0, 0, 100_000), entry(1, 0, 100_000), entry(2, 1, 100, 0), entry(3, 1, 100, 1),
    ]  # fmt: skip
    further = over(*both) - over(*alone)
    assert on_the_wire(100_000) < further < 2 * on_the_wire(100_000) + 0.5


def test_work_between_a_reply_and_the_next_message_is_kept() -> None:
    quick = [entry(0, 0, 10), entry(1, 1, 10, 0), entry(2, 1, 10), entry(3, 2, 10, 2)]
    slow = [entry(0, 0, 10), entry(1, 1, 10, 0), entry(2, 8, 10), entry(3, 9, 10, 2)]
    assert over(*slow) - over(*quick) == pytest.approx(7)


def test_where_nothing_is_counted_by_turns_nothing_is_said() -> None:
    record = [entry(0, 0, 100, kind="Ask"), entry(1, 1, 100, 0)]
    assert over_links(record, LINKS) is None
    assert over_links([], LINKS) is None


def test_a_message_that_was_never_answered_and_replies_of_older_records() -> None:
    lost = [entry(0, 0, 100), entry(1, 5, 100), entry(2, 6, 100, 1)]
    assert over(*lost) > 6
    older = [entry(0, 0, 100), entry(1, 2, 100, 7)]
    assert over(*older) == pytest.approx(over(entry(0, 0, 100), entry(1, 2, 100, 0)))
