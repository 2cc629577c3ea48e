"""What one item took and what preparing took, from the record of a run."""

from __future__ import annotations

import numpy as np

from cosilo.boundary.meter import Totals
from cosilo.objectives.base import Run
from cosilo.objectives.efficiency import latency_ms
from cosilo.objectives.reading import NOTHING, reading
from cosilo.report.data import Cost


def cost(run: Run) -> Cost | None:
    """The means over the run's items; None when it has none."""
    if not run.items:
        return None
    found = reading(run)
    each = [(item, found.traffic.get(item.example.id, NOTHING)) for item in run.items]
    latency = np.array([latency_ms(item, crossed) for item, crossed in each]) / 1000
    n = len(each)
    local = sum(item.seconds for item, _ in each) / n
    lm = sum(crossed.waiting_for_lm for _, crossed in each) / n
    spent = found.prepared
    return Cost(
        items=n,
        calls=sum(crossed.messages for _, crossed in each) / n,
        tokens_in=sum(crossed.tokens_in for _, crossed in each) / n,
        tokens_out=sum(crossed.tokens_out for _, crossed in each) / n,
        usd=sum(crossed.usd for _, crossed in each) / n,
        local_seconds=local,
        network_seconds=max(0.0, float(latency.mean()) - local - lm),
        lm_seconds=lm,
        p50_seconds=float(np.quantile(latency, 0.5)),
        p95_seconds=float(np.quantile(latency, 0.95)),
        cpu_seconds=sum(item.cpu_seconds for item, _ in each) / n,
        peak_memory=run.peak_memory,
        prepare=Totals(
            messages=spent.messages,
            bytes_up=spent.bytes_up,
            bytes_down=spent.bytes_down,
            tokens_in=spent.tokens_in,
            tokens_out=spent.tokens_out,
            usd=spent.usd,
            epsilon=spent.epsilon,
        ),
        prepare_seconds=spent.seconds,
    )
