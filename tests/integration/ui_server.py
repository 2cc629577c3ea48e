"""`/ui` over a store filled with made-up requests, for a browser: `python ui_server.py FOLDER`.

Prints the port, then the keys of an admin and of somebody else.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn

from cosilo.gateway.accounts.accounts import Limits, RequestFacts, Spend
from cosilo.gateway.metrics import Metrics
from cosilo.gateway.record.store import open_store
from cosilo.gateway.serving.breaker import Breaker
from cosilo.gateway.ui import Page
from cosilo.gateway.ui.data import Front, ObjectiveAxis, PointMark

NASTY = "<img src=x onerror=alert(1)> & ward"

MARKS = (
    ("small", 0.0, 0.71, True), ("large", 1.9, 0.855, False), ("cascade calls=0.2", 0.38, 0.81, True),
    ("cascade calls=0.4", 0.77, 0.842, True), ("router calls=0.4", 0.8, 0.815, False),
    ("private", 1.12, 0.858, True), ("supericl", 2.2, 0.868, True), ("distil_labels", 0.1, 0.765, True),
)  # fmt: skip

FRONT = Front(
    x=ObjectiveAxis("usd_per_1k", "$ per 1,000 requests", "min"),
    y=ObjectiveAxis("accuracy", "", "max"),
    points=[PointMark(*mark) for mark in MARKS],
)


def gateway_over(store: Any) -> Any:
    """As much of a gateway as the page looks at."""
    metrics = Metrics()
    tripped = Breaker("spare")
    for _ in range(5):
        tripped.failed(tripped.admit())
    metrics.set("cosilo_breaker_open", 1, upstream="spare")
    upstreams = {
        name: SimpleNamespace(name=name, breaker=breaker)
        for name, breaker in (("gpt-large", Breaker("gpt-large")), ("spare", tripped))
    }
    routes = [SimpleNamespace(upstreams=(u,), name=u.name) for u in upstreams.values()]
    points = {
        name: SimpleNamespace(
            model=f"cosilo/{name}",
            name=name, strategy=strategy, routes=routes, defences=(), sends=name != "small",
            serving=SimpleNamespace(fallback="small" if name == "private" else "refuse"),
        )
        for name, strategy in (("private", "cascade"), ("small", "small"))
    }  # fmt: skip
    setup = SimpleNamespace(points=points, upstreams=upstreams)
    return SimpleNamespace(store=store, metrics=metrics, setup=setup)


async def fill(store: Any, *, count: int = 240) -> tuple[str, str]:
    """Requests of the last day, by two keys; their bearers."""
    draw = random.Random(7)
    admin = await store.create_key("operations", admin=True)
    other = await store.create_key(
        NASTY, limits=Limits(usd=0.05, tokens=200_000, entities=400, epsilon=8, period="day")
    )
    retired = await store.create_key("pilot 2025")
    await store.revoke_key(retired.key.id)
    now = time.time()
    for i in range(count):
        key = admin.key if draw.random() < 0.4 else other.key
        at = now - 86000 * (1 - i / count)
        alone = draw.random() < 0.62
        bad = draw.random() < 0.03
        held = await store.accounts.reserve(key, Spend(requests=1), request=f"r{i}")
        kinds = {} if alone else {
            kind: draw.randint(1, 4)
            for kind in ("PERSON", "EMAIL_ADDRESS", "LOCATION", "IBAN_CODE", "PHONE_NUMBER")
            if draw.random() < 0.3
        }  # fmt: skip
        facts = RequestFacts(
            request=f"r{i}", point="private" if draw.random() < 0.8 else "small",
            strategy="cascade", endpoint="chat", status=502 if bad else 200,
            outcome="error" if bad else "cancelled" if draw.random() < 0.02 else "ok",
            by="small" if alone else "large", stream=draw.random() < 0.3,
            lm_calls=0 if alone else 1, upstream="" if alone else "gpt-large",
            sent_to="" if alone else "gpt-large at api.example.org",
            fallback=draw.random() < 0.02, bytes_up=0 if alone else draw.randint(200, 5000),
            bytes_down=draw.randint(50, 2000), kinds=kinds, at=at,
            seconds=draw.lognormvariate(-2.5 if alone else 0.2, 0.6),
        )  # fmt: skip
        spent = Spend(requests=1) if alone else Spend(
            usd=draw.uniform(1e-4, 8e-4), tokens_in=draw.randint(50, 900),
            tokens_out=draw.randint(20, 300), requests=1, entities=sum(kinds.values()),
        )  # fmt: skip
        await store.accounts.settle(held, spent, request=facts)
    return admin.bearer, other.bearer


async def main(folder: Path) -> None:
    store = await open_store(str(folder))
    bearers = await fill(store)
    page = Page(gateway_over(store), FRONT)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(self.servers[0].sockets[0].getsockname()[1], *bearers, flush=True)

    config = uvicorn.Config(page, host="127.0.0.1", port=0, lifespan="off", log_level="warning")
    await Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
