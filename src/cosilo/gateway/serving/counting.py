"""What is counted of a request that is over, and the lines that it leaves in the logs."""

from __future__ import annotations

import logging
import os
import traceback

import msgspec

from cosilo.errors import CosiloError
from cosilo.gateway.metrics import Metrics
from cosilo.gateway.serving.exchange import CLIENT_LEFT, Exchange

log = logging.getLogger("cosilo.gateway")


def count(metrics: Metrics, x: Exchange, seconds: float) -> None:
    """Add the request to `metrics`; `seconds` is what it took."""
    point = x.point.name if x.point is not None else ""
    metrics.add("cosilo_requests_total", point=point, endpoint=x.endpoint, status=str(status_of(x)))
    if x.point is not None and x.tab is not None:
        if x.served.by:
            metrics.add("cosilo_answers_total", point=point, by=x.served.by)
        if x.tab.lm_calls:
            crossed, spent = x.crossed, x.spent
            amounts = (
                x.tab.lm_calls, crossed.bytes_up, crossed.bytes_down, spent.tokens_in,
                spent.tokens_out, spent.usd,
            )  # fmt: skip
            for at, amount in zip(metrics.of_crossings(point), amounts, strict=True):
                metrics.bump(at, amount)
        if x.crossed.disputes:
            metrics.add("cosilo_disputes_total", x.crossed.disputes, point=point)
        if x.served.fallback:
            metrics.add("cosilo_fallbacks_total", point=point, to=x.served.route)
        for kind, count in x.tab.kinds.items():
            metrics.add("cosilo_entities_total", count, point=point, kind=kind)
        for kind, count in x.withheld.items():
            metrics.add("cosilo_withheld_total", count, point=point, kind=kind)
        if x.left:
            metrics.add("cosilo_cancelled_total", point=point)
        metrics.observe("cosilo_request_seconds", seconds, point=point)


def line(x: Exchange, seconds: float) -> bytes:
    """The request in the access log: ids, status and times, and no text of it."""
    return msgspec.json.encode({
        "at": round(x.started, 3), "request": x.id, "endpoint": x.endpoint,
        "point": x.point.name if x.point is not None else "",
        "key": x.key.id if x.key else "", "status": status_of(x),
        "by": x.served.by, "stream": x.stream, "ms": round(seconds * 1000, 1),
    }) + b"\n"  # fmt: skip


def status_of(x: Exchange) -> int:
    return CLIENT_LEFT if x.left else x.status


def log_failure(x: Exchange, error: Exception) -> None:
    """Where it failed, without the exception's own text when its words are not ours: they may quote."""
    if isinstance(error, CosiloError):
        log.warning("request %s: %s: %s", x.id, type(error).__name__, error.logged)
        return
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    where = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames[::-1])
    log.error("request %s: %s at %s", x.id, type(error).__name__, where)
