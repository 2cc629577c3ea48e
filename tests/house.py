"""A gateway in this process, whose upstreams and books a test can see and break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cosilo.boundary.meter import Budget, Price
from cosilo.boundary.record.ledger import Ledger, MemoryLedger
from cosilo.errors import StoreError
from cosilo.gateway.accounts.accounts import (
    Key,
    Limits,
    OverBudgetError,
    RequestFacts,
    Reservation,
    Spend,
)
from cosilo.gateway.metrics import Metrics
from cosilo.gateway.serving.breaker import Breaker, BreakerConfig
from cosilo.gateway.serving.exchange import Setup
from cosilo.gateway.serving.points import Recipe, Serving, open_recipe
from cosilo.gateway.serving.tabs import Tab
from cosilo.gateway.serving.upstreams import Absent, Upstream
from cosilo.gateway.web.api import Gateway
from cosilo.gateway.web.http import Bodies
from cosilo.models.base import Access, Shows
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.session import DefenceConfig, PointConfig
from cosilo.types import Chat, Delta, Generation, Sampling

SECRET = "Ada Lovelace, born 10 December 1815"


@dataclass
class Books:
    """Accounts in memory that hold every limit, and keep all they were told."""

    keys: dict[str, Key] = field(default_factory=lambda: {"good": Key(id="k1", name="test")})
    open: dict[str, Reservation] = field(default_factory=dict)
    settled: list[tuple[Reservation, Spend, RequestFacts]] = field(default_factory=list)
    most_held: Spend = field(default_factory=Spend)
    used: Spend = field(default_factory=Spend)
    broken: bool = False
    ledgers: dict[str, MemoryLedger] = field(default_factory=dict)

    @property
    def accounts(self) -> Books:
        return self

    def ledger(self, point: str, upstream: str = "") -> Ledger:
        chain = f"{point}/peers/{upstream}" if upstream else point
        return self.ledgers.setdefault(chain, MemoryLedger(chain))

    async def check(self) -> None:
        if self.broken:
            raise StoreError("disk full")

    async def close(self) -> None: ...

    async def authenticate(self, bearer: str) -> Key | None:
        return self.keys.get(bearer)

    async def reserve(self, key: Key, most: Spend, *, request: str) -> Reservation:
        await self.check()
        after = sum((r.most for r in self.open.values()), self.used) + most
        limits = key.limits
        for kind, would, limit in (
            ("usd", after.usd, limits.usd),
            ("tokens", after.tokens, limits.tokens),
            ("entities", after.entities, limits.entities),
        ):
            if limit is not None and would > limit:
                raise OverBudgetError(kind, limit)  # type: ignore[arg-type]
        if limits.requests_per_minute is not None and after.requests > limits.requests_per_minute:
            raise OverBudgetError("requests", limits.requests_per_minute, 12.0)
        made = Reservation(id=f"{request}-{len(self.settled)}-{len(self.open)}", key=key.id,
                           request=request, most=most)  # fmt: skip
        self.open[made.id] = made
        return made

    async def settle(
        self, reservation: Reservation, spent: Spend, *, request: RequestFacts
    ) -> None:
        await self.check()
        assert self.open.pop(reservation.id, None) is not None, "settled twice"
        self.used += spent
        self.settled.append((reservation, spent, request))


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.json["error"])

    @property
    def events(self) -> list[Any]:
        """The data of each server-sent event that holds JSON."""
        lines = self.body.decode().split("\n")
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    @property
    def text(self) -> str:
        return "".join(
            c["delta"].get("content") or ""
            for e in self.events
            if "choices" in e
            for c in e["choices"]
        )


@dataclass
class House:
    """A gateway over points made for a test."""

    gateway: Gateway
    books: Books
    upstreams: dict[str, Upstream]

    async def send(
        self,
        path: str,
        body: Any = None,
        *,
        key: str | None = "good",
        method: str | None = None,
        leave: asyncio.Event | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
        pieces: list[bytes] | None = None,
    ) -> Reply:
        """One request; the client leaves once `leave` is set."""
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        waiting = list(pieces if pieces is not None else [raw])
        sent: list[Any] = []

        async def receive() -> Any:
            if waiting:
                piece = waiting.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(waiting)}
            await (leave or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(event: Any) -> None:
            sent.append(event)

        found = list(headers or [])
        if key is not None:
            found.append((b"authorization", b"Bearer " + key.encode()))
        scope = {
            "type": "http", "method": method or ("GET" if body is None and not pieces else "POST"),
            "path": path, "headers": found, "query_string": b"",
        }  # fmt: skip
        await self.gateway(scope, receive, send)
        start = next((e for e in sent if e["type"] == "http.response.start"), None)
        if start is None:
            return Reply(0, {}, b"")
        return Reply(
            start["status"],
            {k.decode(): v.decode() for k, v in start["headers"]},
            b"".join(e["body"] for e in sent if e["type"] == "http.response.body"),
        )

    async def chat(self, text: str = "hello", *, model: str = "cosilo/x", **fields: Any) -> Reply:
        """A chat request; `key` and `leave` go to `send`."""
        options: dict[str, Any] = {k: fields.pop(k) for k in ("key", "leave") if k in fields}
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return await self.send("/v1/chat/completions", body, **options)


async def house(
    *,
    large: list[Any] | None = None,
    small: Any = None,
    strategy: str = "large",
    options: dict[str, Any] | None = None,
    around: tuple[DefenceConfig, ...] = (),
    serving: Serving | None = None,
    embedder: Any = None,
    remote_embedder: Any = None,
    price: Price = Price(1.0, 2.0),
    exposes: Shows = Access.LOGPROBS.shows,
    breaker: BreakerConfig | None = None,
    limits: Limits | None = None,
    budget: Budget | None = None,
    sampling: Sampling = Sampling(max_tokens=64),
    system: str = "",
    tabs: dict[str, Tab] | None = None,
    **settings: Any,
) -> House:
    books = Books()
    if limits is not None:
        books.keys["good"] = replace_key(books.keys["good"], limits)
    large = [ScriptedModel({"hello": "Hello to you."})] if large is None else large
    upstreams = {
        f"lm{i}": Upstream(f"lm{i}", m, exposes, price, Breaker(f"lm{i}", breaker))
        for i, m in enumerate(large)
    }
    named = tuple(upstreams)
    if remote_embedder is not None:
        upstreams["emb"] = Upstream(
            "emb", remote_embedder, Access.TEXT.shows, price, Breaker("emb", breaker)
        )
    tabs = {} if tabs is None else tabs
    recipe = Recipe(
        config=PointConfig("x", strategy, options or {}, around),
        owner=DataOwner(small or Absent("small"), embedder=embedder),
        upstreams=named,
        embedder="emb" if remote_embedder is not None else "",
        sampling=sampling,
        serving=serving or Serving(),
        budget=budget,
        system=system,
    )
    point = await open_recipe(
        recipe, upstreams, tabs=tabs, ledger=books.ledger("x"), beside=partial(books.ledger, "x")
    )
    gateway = Gateway(
        Setup({point.model: point}, upstreams),
        books,
        metrics=Metrics(),
        bodies=Bodies(10_000, 20_000, 0.2),
        tabs=tabs,
        **settings,
    )
    return House(gateway, books, upstreams)


def open_tab(request: str = "") -> Tab:
    """The tab of a request that nothing limits: without one no message leaves."""
    return Tab(Books(), Key(id="k1", name="test"), request)


def replace_key(key: Key, limits: Limits) -> Key:
    return Key(id=key.id, name=key.name, limits=limits)


class Failing(ScriptedModel):
    """Fails with `fail` once it has streamed `after` pieces (or at once, when not streamed)."""

    after = 0

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        for _ in range(self.after):
            yield Delta("piece ")
        assert self.fail is not None
        raise self.fail


class Hanging(ScriptedModel):
    """Says nothing, or `after` pieces and then nothing; knows whether it was cancelled."""

    after = 0
    cancelled = False
    started: asyncio.Event

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        await self._hang()
        raise AssertionError

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        for _ in range(self.after):
            yield Delta("piece ")
        await self._hang()

    async def _hang(self) -> None:
        try:
            self.started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def hanging(after: int = 0) -> Hanging:
    model = Hanging()
    model.after = after
    model.started = asyncio.Event()
    return model
