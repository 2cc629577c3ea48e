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
    point, tab = x.point.name if x.point is not None else "", x.tab
    status, by = status_of(x), x.served.by if tab is not None else ""
    lm_calls = tab.lm_calls if tab is not None else 0
    places = metrics.kept.get((point, x.endpoint, status, by, lm_calls > 0))
    if places is None:
        places = _places(metrics, point, x.endpoint, status, by, lm_calls > 0)
    crossed, spent = x.crossed, x.spent
    metrics.bump(
        places,
        (
            1.0, 1.0, lm_calls, crossed.bytes_up, crossed.bytes_down, spent.tokens_in,
            spent.tokens_out, spent.usd,
        ),
    )  # fmt: skip
    if x.point is not None and tab is not None:
        if x.crossed.disputes:
            metrics.add("cosilo_disputes_total", x.crossed.disputes, point=point)
        if x.served.fallback:
            metrics.add("cosilo_fallbacks_total", point=point, to=x.served.route)
        for kind, count in tab.kinds.items():
            metrics.add("cosilo_entities_total", count, point=point, kind=kind)
        for kind, count in x.withheld.items():
            metrics.add("cosilo_withheld_total", count, point=point, kind=kind)
        if x.left:
            metrics.add("cosilo_cancelled_total", point=point)
        metrics.observe("cosilo_request_seconds", seconds, point=point)


def _places(
    metrics: Metrics, point: str, endpoint: str, status: int, by: str, crossed: bool
) -> tuple[int, ...]:
    """Where a request like this is counted: as a request, as an answer if it had one, and what of it
    crossed."""
    request = metrics.place(
        "cosilo_requests_total", point=point, endpoint=endpoint, status=str(status)
    )
    answer = metrics.place("cosilo_answers_total", point=point, by=by) if by else 0
    found = [metrics.place(name, point=point) if crossed else 0 for name in _CROSSED]
    places = metrics.kept[point, endpoint, status, by, crossed] = (request, answer, *found)
    return places


_CROSSED = (
    "cosilo_lm_calls_total", "cosilo_bytes_up_total", "cosilo_bytes_down_total",
    "cosilo_tokens_in_total", "cosilo_tokens_out_total", "cosilo_usd_total",
)  # fmt: skip


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
