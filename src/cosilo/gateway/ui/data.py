"""The JSON of `/ui/data`: all figures that the page draws, and no text of any request."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from cosilo.gateway.record.store_records import GatewayStore, RequestRow, Slice, Summary

if TYPE_CHECKING:
    from cosilo.gateway.accounts.accounts import Key
    from cosilo.gateway.accounts.keys import KeyState
    from cosilo.gateway.web.api import Gateway

SPANS: Mapping[str, float] = {
    "1h": 3600.0, "24h": 86400.0, "7d": 7 * 86400.0, "30d": 30 * 86400.0,
}  # fmt: skip

RECENT = 50


class ObjectiveAxis(msgspec.Struct, frozen=True):
    """One objective: what it is called, its unit, and which end is the better one."""

    name: str
    unit: str
    better: Literal["min", "max"]


class PointMark(msgspec.Struct, frozen=True):
    """One measured operating point. `front`: no other point is better on both axes."""

    name: str
    x: float
    y: float
    front: bool


class Front(msgspec.Struct, frozen=True):
    """The operating points of a run, on two of their objectives."""

    x: ObjectiveAxis
    y: ObjectiveAxis
    points: Sequence[PointMark]


class _Upstream(msgspec.Struct):
    name: str
    state: str
    workers_open: int


class _Served(msgspec.Struct):
    name: str
    strategy: str
    upstreams: Sequence[str]
    defences: Sequence[str]
    fallback: str


class _KeyShown(msgspec.Struct):
    id: str
    name: str
    state: str
    admin: bool
    period: str
    budgets: Sequence[_Budget]
    usd_total: float
    requests_total: int
    local_only: bool


class _Budget(msgspec.Struct):
    kind: str
    used: float
    held: float
    limit: float


class _Crossing(msgspec.Struct):
    request: str
    at: float
    key: str
    point: str
    by: str
    outcome: str
    status: int
    lm_calls: int
    upstream: str
    fallback: bool
    stream: bool
    bytes_up: int
    bytes_down: int
    tokens: int
    usd: float
    seconds: float
    kinds: Mapping[str, int]
    processed: str


class _Data(msgspec.Struct):
    now: float
    span: str
    who: str
    admin: bool
    total: Slice
    hours: Sequence[Slice]
    points: Sequence[Slice]
    kinds: Mapping[str, int]
    recent: Sequence[_Crossing]
    keys: Sequence[_KeyShown]
    upstreams: Sequence[_Upstream]
    served: Sequence[_Served]
    front: Front | None


async def collect(
    gateway: Gateway, store: GatewayStore, key: Key, front: Front | None, span: str
) -> bytes:
    """The JSON for `key`, which sees everything when it is an admin's."""
    if span not in SPANS:
        span = "24h"
    now = time.time()
    own = None if key.admin else key.id
    summary: Summary = await store.summary(now - SPANS[span], key=own, recent=RECENT)
    states = {state.key.id: state for state in await store.list_keys()}
    shown = [s for s in states.values() if key.admin or s.key.id == key.id]
    names = {id: state.key.name for id, state in states.items()}
    return msgspec.json.encode(
        _Data(
            now=now,
            span=span,
            who=key.name,
            admin=key.admin,
            total=summary.total,
            hours=summary.hours,
            points=summary.points,
            kinds=summary.kinds,
            recent=[_crossing(row, names) for row in summary.recent],
            keys=[_key(state, now) for state in shown],
            upstreams=_upstreams(gateway),
            served=_served(gateway, key),
            front=front if key.admin else None,
        )
    )


def _crossing(row: RequestRow, names: Mapping[str, str]) -> _Crossing:
    return _Crossing(
        request=row.request, at=row.at, key=names.get(row.key, row.key), point=row.point,
        by=row.by, outcome=row.outcome, status=row.status, lm_calls=row.lm_calls,
        upstream=row.upstream, fallback=row.fallback, stream=row.stream, bytes_up=row.bytes_up,
        bytes_down=row.bytes_down, tokens=row.spent.tokens, usd=row.spent.usd, seconds=row.seconds,
        kinds=row.kinds, processed=row.processed,
    )  # fmt: skip


def _key(state: KeyState, now: float) -> _KeyShown:
    limits, used, held = state.key.limits, state.used, state.held
    budgets = [
        _Budget(kind, float(spent), float(kept), float(limit))
        for kind, spent, kept, limit in (
            ("usd", used.usd, held.usd, limits.usd),
            ("tokens", used.tokens, held.tokens, limits.tokens),
            ("entities", used.entities, held.entities, limits.entities),
            ("epsilon", used.epsilon, held.epsilon, limits.epsilon),
        )
        if limit is not None
    ]
    return _KeyShown(
        id=state.key.id, name=state.key.name, state=state.state(now), admin=state.key.admin,
        period=limits.period, budgets=budgets, usd_total=state.total.usd,
        requests_total=state.total.requests, local_only=state.key.local_only,
    )  # fmt: skip


def _upstreams(gateway: Gateway) -> list[_Upstream]:
    """Each large model's breaker: in this worker, and in how many workers it is open."""
    totals = gateway.metrics.totals()
    return [
        _Upstream(
            upstream.name,
            upstream.breaker.state,
            int(totals.get(f'cosilo_breaker_open{{upstream="{upstream.name}"}}', 0)),
        )
        for upstream in gateway.setup.upstreams.values()
    ]


def _served(gateway: Gateway, key: Key) -> list[_Served]:
    return [
        _Served(
            name=point.name,
            strategy=point.strategy,
            # A strategy that sends nothing has an upstream from its plan, and never asks it.
            upstreams=[r.name for r in point.routes if r.upstreams and point.sends],
            defences=[type(defence).__name__ for defence in point.defences],
            fallback=point.serving.fallback,
        )
        for point in gateway.setup.points.values()
        if key.may_use(point.name, point.model)
    ]
