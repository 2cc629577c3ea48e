"""One request on its way through the gateway, and what is said about it afterwards."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cosilo.boundary.meter import Totals
from cosilo.gateway.accounts.accounts import Key, RequestFacts, Spend
from cosilo.gateway.refusals import Refusal
from cosilo.gateway.serving.answering import Served
from cosilo.gateway.serving.points import ServedPoint
from cosilo.gateway.serving.tabs import Tab, Withholds
from cosilo.gateway.serving.upstreams import Upstream

Outcome = Literal["ok", "cancelled", "error"]

CLIENT_LEFT = 499  # nginx's number for it; no client ever sees it


@dataclass
class Setup:
    """The points and upstreams that one reading of the configuration opened.

    After the configuration is read again, requests that began with this one still finish on it.
    """

    points: Mapping[str, ServedPoint]
    upstreams: Mapping[str, Upstream]
    in_flight: int = 0
    retired: bool = False
    folder: Path | None = None  # what was prepared for it, deleted with it

    async def close(self) -> None:
        for point in self.points.values():
            await point.close()
        models = [u.model for u in self.upstreams.values()]
        models += [r.session.owner.model for p in self.points.values() for r in p.routes]
        for model in {id(m): m for m in models}.values():
            await model.close()
        for defence in {id(d): d for p in self.points.values() for d in p.defences}.values():
            await defence.close()
        if self.folder is not None:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


@dataclass
class Exchange:
    """One request on its way through."""

    endpoint: str
    id: str
    started: float
    setup: Setup
    clock: float
    key: Key | None = None
    point: ServedPoint | None = None
    tab: Tab | None = None
    served: Served = field(default_factory=Served)
    stream: bool = False
    local_only: bool = False
    begun: bool = False
    error_event: Callable[[Refusal], bytes] | None = None  # how a stream says that it cannot go on
    status: int = 0
    left: bool = False
    outcome: Outcome = "ok"
    crossed: Totals = field(default_factory=Totals)  # known once it is over, as is `spent`
    spent: Spend = field(default_factory=Spend)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Response headers that say how the request was answered, as far as it is known by now."""
        found = [("x-cosilo-request-id", self.id)]
        if self.point is None or self.tab is None:
            return found
        found.append(("x-cosilo-strategy", self.point.strategy))
        if self.served.by:
            found.append(("x-cosilo-by", self.served.by))
        if self.served.fallback:
            found.append(("x-cosilo-fallback", self.served.route))
        if self.served.dropped:
            found.append(("x-cosilo-dropped", ", ".join(self.served.dropped)))
        if self.served.suspect:
            found.append(("x-cosilo-suspect", "true"))
        if self.served.abstained:
            found.append(("x-cosilo-abstained", "true"))
        found.append(("x-cosilo-lm-called", "true" if self.tab.lm_calls else "false"))
        found.append(("x-cosilo-processed", self.tab.processed))
        if not self.stream:
            if withheld := self.withheld:
                told = ", ".join(f"{kind}={n}" for kind, n in sorted(withheld.items()))
                found.append(("x-cosilo-withheld", told))
            found += [(f"x-cosilo-{k}", str(v)) for k, v in self._spending().items()]
        return found

    @property
    def withheld(self) -> Mapping[str, int]:
        """How many placeholders of each kind were left in the answers: see `Withholds`."""
        assert self.point is not None
        if not self.point.defences:
            return {}
        found: Counter[str] = Counter()
        for defence in self.point.defences:
            if isinstance(defence, Withholds):
                found.update(defence.withheld(self.id))
        return found

    @property
    def facts(self) -> dict[str, object]:
        """What `headers` tells, as fields for the end of a stream, when all of it is known."""
        assert self.tab is not None
        assert self.point is not None
        return {
            "request_id": self.id,
            "strategy": self.point.strategy,
            "by": self.served.by,
            "fallback": self.served.fallback,
            "lm_called": bool(self.tab.lm_calls),
            "processed": self.tab.processed,
            **({"dropped": list(self.served.dropped)} if self.served.dropped else {}),
            **({"withheld": dict(withheld)} if (withheld := self.withheld) else {}),
            **{k.replace("-", "_"): v for k, v in self._spending().items()},
        }

    def record(self, seconds: float) -> RequestFacts:
        """The request's entry in the record of finished requests, after `seconds` of answering."""
        assert self.tab is not None
        assert self.point is not None
        return RequestFacts(
            request=self.id,
            point=self.point.name,
            strategy=self.point.strategy,
            endpoint=self.endpoint,
            outcome=self.outcome,
            status=self.status,
            by=self.served.by,
            stream=self.stream,
            lm_calls=self.tab.lm_calls,
            upstream=self.served.route,
            fallback=self.served.fallback,
            bytes_up=self.crossed.bytes_up,
            bytes_down=self.crossed.bytes_down,
            kinds=dict(self.tab.kinds),
            disputes=self.crossed.disputes,
            at=self.started,
            seconds=seconds,
            sent_to=", ".join(self.tab.sent_to),
            withheld=self.withheld,
        )

    def _spending(self) -> dict[str, object]:
        disputed = {"disputed": "true"} if self.crossed.disputes else {}
        return {
            "bytes-up": self.crossed.bytes_up,
            "bytes-down": self.crossed.bytes_down,
            "entities": self.spent.entities,
            "usd": f"{self.spent.usd:.9f}".rstrip("0").rstrip(".") or "0",
            **disputed,
        }
