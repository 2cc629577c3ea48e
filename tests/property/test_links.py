"""When the last byte of a message comes: a sum over messages, and a TCP that is played byte by byte."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cosilo.boundary.meter import Link
from cosilo.objectives.links import _Way

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from links import BURST, Direction, Window


@given(
    rtt_ms=st.sampled_from([1.0, 20.0, 40.0, 100.0, 250.0]),
    mbit_per_s=st.sampled_from([1.0, 20.0, 100.0, 1000.0]),
    sizes=st.lists(st.integers(1, 3_000_000), min_size=1, max_size=4),
    pauses=st.lists(st.floats(0.0, 5.0), min_size=4, max_size=4),
)
def test_a_sum_is_near_what_is_played(
    rtt_ms: float, mbit_per_s: float, sizes: list[int], pauses: list[float]
) -> None:
    rtt = rtt_ms / 1000
    way, link = (
        _Way(Link(rtt_ms=rtt_ms, mbit_per_s=mbit_per_s)),
        Direction(rtt, mbit_per_s * 1e6 / 8),
    )
    window = Window(rtt)
    at = 0.0
    for size, pause in zip(sizes, pauses, strict=False):
        summed = way.carried(size, at)
        left = int(size * (1 + 22 / 16384) + 400)
        now = at
        while left > 0:
            piece = min(BURST, left)
            now = link.leaves(piece, window.admits(piece, now))
            window.left(piece, now)
            left -= piece
        played = now + rtt / 2
        assert abs(summed - played) <= 0.06 * (played - at) + 1.1 * rtt + 0.002
        at = max(summed, played) + pause
