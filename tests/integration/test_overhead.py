"""The engine's own cost per crossing, by the benchmark's own script, at a small number of them."""

from __future__ import annotations

from pathlib import Path

import overhead


async def test_a_crossing_costs_little_and_memory_does_not_grow(tmp_path: Path) -> None:
    measured = await overhead.measure(4000, tmp_path)
    # Three times the script's bar: it counts CPU time, but caches are shared with other tests.
    assert measured["cpu_ms_per_crossing"] < 3 * overhead.MAX_CPU_MS
    assert measured["growth_mb"] < overhead.MAX_GROWTH_MB
