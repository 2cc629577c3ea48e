"""The ASGI application: what it answers, what it charges, what it never says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cosilo.boundary.meter import Budget, Price
from cosilo.boundary.record.ledger import Ledger, MemoryLedger
from cosilo.defences.base import Defence, defences
from cosilo.errors import ConfigError, RejectedError, StoreError, UnreachableError
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
from cosilo.gateway.serving.upstreams import DEADLINE, Absent, Upstream
from cosilo.gateway.web.api import Gateway
from cosilo.gateway.web.http import Bodies
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.session import DefenceConfig, PointConfig
from cosilo.types import Chat, Delta, Generation, Sampling, Turn, user

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

    def ledger(self, point: str) -> Ledger:
        return self.ledgers.setdefault(point, MemoryLedger(point))

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
        blocks = self.body.decode().split("\n\n")
        return [json.loads(b[6:]) for b in blocks if b.startswith("data: {")]

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
    price: Price = Price(1.0, 2.0),
    exposes: Access = Access.LOGPROBS,
    breaker: BreakerConfig | None = None,
    limits: Limits | None = None,
    budget: Budget | None = None,
    sampling: Sampling = Sampling(max_tokens=64),
    system: str = "",
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
    tabs: dict[str, Tab] = {}
    recipe = Recipe(
        config=PointConfig("x", strategy, options or {}, around),
        owner=DataOwner(small or Absent("small"), embedder=embedder),
        upstreams=tuple(upstreams),
        sampling=sampling,
        serving=serving or Serving(),
        budget=budget,
        system=system,
    )
    point = await open_recipe(recipe, upstreams, tabs=tabs, ledger=books.ledger("x"))
    gateway = Gateway(
        Setup({point.model: point}, upstreams),
        books,
        metrics=Metrics(),
        bodies=Bodies(10_000, 20_000, 0.2),
        tabs=tabs,
        **settings,
    )
    return House(gateway, books, upstreams)


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


async def test_a_chat_is_answered_and_the_headers_say_how() -> None:
    h = await house()
    reply = await h.chat("hello you")
    assert reply.status == 200
    assert reply.json["choices"][0]["message"]["content"] == "Hello to you."
    assert reply.json["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    up, down = (e for e in h.books.ledgers["x"].entries())
    assert {k: v for k, v in reply.headers.items() if k.startswith("x-cosilo")} == {
        "x-cosilo-request-id": up.request,
        "x-cosilo-strategy": "large",
        "x-cosilo-by": "large",
        "x-cosilo-lm-called": "true",
        "x-cosilo-bytes-up": str(up.size),
        "x-cosilo-bytes-down": str(down.size),
        "x-cosilo-entities": "0",
        "x-cosilo-usd": "0.000008",
    }
    [(_, spent, facts)] = h.books.settled
    assert spent == Spend(usd=8e-6, tokens_in=2, tokens_out=3, requests=1)
    assert (facts.request, facts.outcome, facts.status, facts.lm_calls) == (
        up.request,
        "ok",
        200,
        1,
    )
    assert h.books.open == {}


async def test_a_stream_says_and_costs_the_same() -> None:
    h = await house()
    whole = await h.chat("hello you")
    reply = await h.chat("hello you", stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text == "Hello to you."
    assert reply.body.endswith(b"data: [DONE]\n\n")
    last = reply.events[-1]
    assert last["usage"] == whole.json["usage"]
    assert last["cosilo"]["usd"] == whole.headers["x-cosilo-usd"]
    assert last["cosilo"]["by"] == "large"
    assert h.books.settled[0][1] == h.books.settled[1][1]
    assert [e["choices"][0]["finish_reason"] for e in reply.events[:-1]] == [None] * 4 + ["stop"]


async def test_without_include_usage_no_event_has_usage() -> None:
    h = await house()
    reply = await h.chat(stream=True)
    assert all("usage" not in e for e in reply.events)
    assert b": cosilo {" in reply.body


async def test_n_answers_are_n_asks_with_their_own_seeds() -> None:
    seeds = []

    class Model(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            seeds.append(sampling.seed)
            return await super().generate(chat, sampling)

    h = await house(large=[Model({"hello": "Hi."})])
    reply = await h.chat(n=3, seed=5)
    assert [c["index"] for c in reply.json["choices"]] == [0, 1, 2]
    assert sorted(seeds) == [5, 6, 7]
    assert reply.json["usage"]["completion_tokens"] == 3
    [(reservation, spent, facts)] = h.books.settled
    assert facts.lm_calls == 3
    assert spent.tokens_out == 3
    assert reservation.most.tokens_out == 3 * 64
    streamed = await h.chat(n=2, stream=True)
    found = {i: "" for i in range(2)}
    for event in streamed.events:
        for choice in event["choices"]:
            found[choice["index"]] += choice["delta"].get("content") or ""
    assert found == {0: "Hi.", 1: "Hi."}


async def test_what_the_client_sets_reaches_the_model_and_the_rest_is_the_points() -> None:
    seen = []

    class Model(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            seen.append(sampling)
            return await super().generate(chat, sampling)

    h = await house(
        large=[Model()], sampling=Sampling(max_tokens=7, temperature=0.25, choices=("a", "b"))
    )
    await h.chat(temperature=1, stop=["x"])
    assert seen == [Sampling(max_tokens=7, temperature=1.0, stop=("x",), choices=("a", "b"))]


async def test_a_conversation_without_a_system_turn_begins_with_the_points() -> None:
    model = ScriptedModel()
    h = await house(large=[model], system="Reply with a label.")
    own = [{"role": "developer", "content": "Mine."}, {"role": "user", "content": "hello"}]
    await h.chat()
    await h.chat(messages=own)
    await h.send("/v1/completions", {"model": "cosilo/x", "prompt": "hello"})
    ours = (Turn("system", "Reply with a label."), Turn("user", "hello"))
    assert model.seen == [ours, (Turn("system", "Mine."), Turn("user", "hello")), ours]
    plain = ScriptedModel()
    await (await house(large=[plain])).chat()
    assert plain.seen == [user("hello")]


async def test_logprobs_are_shown_when_asked_for() -> None:
    h = await house(large=[ScriptedModel({"hello": "a b"}, confidence=0.25)])
    reply = await h.chat(logprobs=True)
    content = reply.json["choices"][0]["logprobs"]["content"]
    assert [t["token"] for t in content] == ["a", " b"]
    streamed = await h.chat(logprobs=True, stream=True)
    shown = [e["choices"][0]["logprobs"] for e in streamed.events]
    assert [x["content"][0]["token"] for x in shown if x] == ["a", " b"]
    assert (await h.chat()).json["choices"][0]["logprobs"] is None
    closed = await house(exposes=Access.TEXT)
    refused = await closed.chat(logprobs=True)
    assert (refused.status, refused.error["param"]) == (400, "logprobs")
    assert closed.books.settled == []


async def test_the_older_api() -> None:
    h = await house()
    body = {"model": "cosilo/x", "prompt": ["hello", "hello"], "n": 2}
    reply = await h.send("/v1/completions", body)
    assert [c["text"] for c in reply.json["choices"]] == ["Hello to you."] * 4
    assert reply.json["object"] == "text_completion"
    streamed = await h.send(
        "/v1/completions", {"model": "cosilo/x", "prompt": "hello", "stream": True}
    )
    assert "".join(e["choices"][0]["text"] for e in streamed.events) == "Hello to you."
    assert streamed.events[-1]["choices"][0]["finish_reason"] == "stop"


async def test_embeddings_come_from_the_owner_and_cost_no_tokens() -> None:
    import numpy as np

    class Embedder:
        def embed(self, texts: Any) -> Any:
            return np.array([[len(t), 0.5] for t in texts], dtype=np.float32)

    h = await house(embedder=Embedder())
    reply = await h.send("/v1/embeddings", {"model": "cosilo/x", "input": ["a", "abc"]})
    assert [d["embedding"] for d in reply.json["data"]] == [[1.0, 0.5], [3.0, 0.5]]
    assert reply.headers["x-cosilo-lm-called"] == "false"
    packed = await h.send(
        "/v1/embeddings", {"model": "cosilo/x", "input": "abc", "encoding_format": "base64"}
    )
    import base64

    row = np.frombuffer(base64.b64decode(packed.json["data"][0]["embedding"]), dtype="<f4")
    assert row.tolist() == [3.0, 0.5]
    assert h.books.used == Spend(requests=2)
    none = await (await house()).send("/v1/embeddings", {"model": "cosilo/x", "input": "a"})
    assert (none.status, none.error["code"]) == (400, "not_supported_by_point")


async def test_models_are_those_the_key_may_use() -> None:
    h = await house()
    h.books.keys["other"] = Key(id="k2", name="o", points=("y",))
    assert [m["id"] for m in (await h.send("/v1/models")).json["data"]] == ["cosilo/x"]
    assert (await h.send("/v1/models", key="other")).json["data"] == []
    assert (await h.send("/v1/models/cosilo/x")).json["id"] == "cosilo/x"
    assert (await h.send("/v1/models/cosilo/z")).status == 404
    assert (await h.send("/v1/models", key=None)).status == 401
    denied = await h.chat(key="other")
    assert (denied.status, denied.error["code"]) == (403, "model_not_allowed")


@pytest.mark.parametrize("key", [None, "", "bad", "good ood", "a" * 10_000])
async def test_without_a_good_key_nothing_is_read(key: str | None) -> None:
    h = await house()
    reply = await h.chat(key=key)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.error["type"] == "invalid_request_error"
    assert h.books.settled == []


async def test_an_unknown_model_is_told_the_nearest() -> None:
    reply = await (await house()).chat(model="cosilo/y")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert "did you mean 'cosilo/x'" in reply.error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("POST", "/metrics", 405), ("DELETE", "/v1/models", 405),
     ("GET", "/", 404), ("POST", "/v1/images", 404), ("GET", "/ui", 404)],
)  # fmt: skip
async def test_other_methods_and_paths(method: str, path: str, status: int) -> None:
    reply = await (await house()).send(path, method=method)
    assert reply.status == status
    assert set(reply.error) == {"message", "type", "param", "code"}


async def test_bodies_have_a_limit_each_and_together() -> None:
    h = await house()
    too_large = await h.send("/v1/chat/completions", b"x" * 10_001)
    assert (too_large.status, too_large.error["code"]) == (413, "body_too_large")
    stated = await h.send("/v1/chat/completions", b"{}", headers=[(b"content-length", b"10001")])
    assert stated.status == 413
    in_pieces = await h.send("/v1/chat/completions", pieces=[b"x" * 6000, b"x" * 6000])
    assert in_pieces.status == 413
    h.gateway.bodies.held = 15_000
    crowded = await h.send("/v1/chat/completions", b"x" * 6000)
    assert (crowded.status, crowded.headers["retry-after"]) == (503, "1")
    assert h.gateway.bodies.held == 15_000
    zipped = await h.send("/v1/chat/completions", b"{}", headers=[(b"content-encoding", b"gzip")])
    assert zipped.status == 415


@pytest.mark.parametrize("pieces", [0, 1, 3])
async def test_a_body_that_does_not_come_is_not_waited_for_and_takes_no_place(pieces: int) -> None:
    h = await house(most_at_once=1)
    waiting: list[Any] = [{"type": "http.request", "body": b"{", "more_body": True}] * pieces
    begun = asyncio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        if waiting:
            return waiting.pop()
        begun.set()
        await asyncio.Event().wait()

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions",
        "headers": [(b"authorization", b"Bearer good")],
    }  # fmt: skip
    slow = asyncio.create_task(h.gateway(scope, receive, send))
    await begun.wait()
    assert h.gateway.setup.in_flight == 0
    assert (await h.chat()).status == 200  # though only one may be answered at once
    await slow
    assert sent[0]["status"] == 408
    assert h.gateway.bodies.held == 0


# Money.


async def test_a_budget_that_is_out_stops_the_request_before_anything_leaves() -> None:
    model = ScriptedModel()
    h = await house(large=[model], limits=Limits(usd=1e-6))
    for stream in (False, True):
        reply = await h.chat(stream=stream)
        assert (reply.status, reply.error["code"]) == (429, "insufficient_quota")
        assert reply.error["param"] == "usd"
        assert reply.headers["x-should-retry"] == "false"
    assert model.seen == []
    assert list(h.books.ledgers["x"].entries()) == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_over_the_points_own_budget_is_refused_and_others_are_not(
    stream: bool,
) -> None:
    large = ScriptedModel({"hello": "Hello to you."})
    h = await house(large=[large], budget=Budget(tokens_in=200))
    assert (await h.chat("hello", stream=stream)).status == 200
    reply = await h.chat("hello " * 100, stream=stream)
    assert reply.status == 400
    assert reply.error["code"] == "request_over_budget"
    assert len(large.seen) == 1
    assert (await h.chat("hello", stream=stream)).status == 200


class Claiming(ScriptedModel):
    """Says that it used what `usage` says."""

    usage = (20, 900_000_000)
    attempts = 1

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        prompt, completion = self.usage
        return Generation(
            "ok", prompt_tokens=prompt, completion_tokens=completion, attempts=self.attempts
        )

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        yield Delta("ok")
        prompt, completion = self.usage
        yield Delta(
            finish_reason="stop", prompt_tokens=prompt, completion_tokens=completion,
            attempts=self.attempts,
        )  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("usage", "booked", "disputed"),
    [
        ((20, 30), (20, 30), False),
        ((20, 900_000_000), (20, 64 + 6), True),
        ((-5, -1_000_000), (141, 2 + 6), True),
        ((10**9, 30), (141, 30), True),
        ((0, 0), (141, 2 + 6), False),
    ],
)
async def test_no_claim_of_an_upstream_passes_what_was_set_aside(
    usage: tuple[int, int],
    booked: tuple[int, int],
    disputed: bool,
    stream: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Claiming()
    model.usage = usage
    h = await house(large=[model], price=Price(1.0, 2.0, reasoning=6))
    reply = await h.chat(
        SECRET[:5], stream=stream, stream_options={"include_usage": True} if stream else None
    )
    assert reply.status == 200
    [(held, spent, facts)] = h.books.settled
    assert (spent.tokens_in, spent.tokens_out) == booked
    assert spent.usd <= held.most.usd
    assert facts.disputes == disputed
    told = reply.events[-1] if stream else reply.json
    assert told["usage"]["prompt_tokens"] == booked[0]
    assert told["usage"]["completion_tokens"] == booked[1]
    flag = told["cosilo"].get("disputed") if stream else reply.headers.get("x-cosilo-disputed")
    assert flag == ("true" if disputed else None)
    text = h.gateway.metrics.exposition()
    assert ('cosilo_disputes_total{point="x"} 1' in text) == disputed
    assert ("claimed more tokens" in caplog.text) == disputed
    assert SECRET[:5] not in caplog.text


async def test_retries_are_set_aside_and_only_what_was_worked_on_is_spent() -> None:
    model = Claiming()
    model.usage, model.attempts = (20, 30), 2
    h = await house(large=[model], price=Price(1.0, 2.0, attempts=5))
    assert (await h.chat()).status == 200
    [(held, spent, _)] = h.books.settled
    assert (held.most.tokens_in, held.most.tokens_out) == (5 * 141, 5 * 64)
    assert (spent.tokens_in, spent.tokens_out) == (20 + 141, 30 + 64)
    poor = await house(
        large=[model], price=Price(1.0, 2.0, attempts=5), limits=Limits(tokens=2 * 205)
    )
    assert (await poor.chat()).status == 429


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "tokens"),
    [
        (UnreachableError("no reply within 120 s", worked=1), 205),
        (RejectedError("it is no JSON", worked=1), 205),
        (UnreachableError("HTTP 503", worked=0), 0),
        (RejectedError("HTTP 400"), 0),
    ],
)
async def test_an_upstream_that_worked_in_vain_is_paid(
    error: Exception, tokens: int, stream: bool
) -> None:
    h = await house(large=[Failing(fail=error)])
    assert (await h.chat(stream=stream)).status == 502
    [(_, spent, _)] = h.books.settled
    assert spent.tokens == tokens
    assert (spent.usd > 0) == (tokens > 0)


async def test_a_rate_limit_says_when_to_come_back() -> None:
    h = await house(limits=Limits(requests_per_minute=1))
    assert (await h.chat()).status == 200
    reply = await h.chat()
    assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
    assert 12 <= int(reply.headers["retry-after"]) <= 13
    assert "x-should-retry" not in reply.headers


async def test_a_race_on_one_key_never_overspends() -> None:
    h = await house(sampling=Sampling(max_tokens=3))
    one = await h.chat("hello")
    cost = float(one.headers["x-cosilo-usd"])
    [(reservation, _, _)] = h.books.settled
    h.books.keys["good"] = replace_key(h.books.keys["good"], Limits(usd=cost * 50))
    replies = await asyncio.gather(*(h.chat("hello", stream=bool(i % 2)) for i in range(200)))
    good = [r for r in replies if r.status == 200]
    assert {r.status for r in replies} == {200, 429}
    assert h.books.used.usd <= cost * 50
    assert h.books.used.usd > cost * 50 - 2 * reservation.most.usd
    assert h.books.used.usd == pytest.approx(cost * (len(good) + 1))
    assert h.books.open == {}


async def test_a_strategy_that_crosses_more_sets_more_aside() -> None:
    """The reservation covers one crossing of the client's chat; supericl's examples are longer."""
    long = "word " * 400
    h = await house(
        strategy="cascade", options={"threshold": 1.0}, small=ScriptedModel(confidence=0.5),
        around=(DefenceConfig("longer", "lengthen", {"by": long}),),
    )  # fmt: skip
    reply = await h.chat("hello")
    assert reply.status == 200
    assert len(h.books.settled) == 2
    first, more = (r.most for r, _, _ in h.books.settled)
    assert more.tokens_in >= len(long) // 2
    assert first.tokens_out == 64
    assert h.books.open == {}
    assert [s.requests for _, s, _ in h.books.settled] == [1, 0]
    h.books.keys["good"] = replace_key(
        h.books.keys["good"], Limits(tokens=h.books.used.tokens + 300)
    )
    before = len(list(h.books.ledgers["x"].entries()))
    assert (await h.chat("hello")).status == 429
    assert len(list(h.books.ledgers["x"].entries())) == before
    assert h.books.open == {}


class Lengthen(Defence):
    def __init__(self, by: str) -> None:
        self.by = by

    async def guard(self, message: Any, forward: Any, *, request: str) -> Any:
        import msgspec

        longer = (*message.chat, Turn("user", self.by))
        return await forward(msgspec.structs.replace(message, chat=longer))


class Hides(Defence):
    """Claims to hide two values a request, or fails as a detector would."""

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail

    def counts(self, request: str) -> dict[str, int]:
        return {"PERSON": 1, "EMAIL": 1}

    async def guard(self, message: Any, forward: Any, *, request: str) -> Any:
        if self.fail:
            raise RuntimeError(SECRET)
        return await forward(message)


defences.register("lengthen")(Lengthen)
defences.register("hides")(Hides)


async def test_entities_are_counted_told_and_limited() -> None:
    h = await house(around=(DefenceConfig("hides", "hides"),))
    reply = await h.chat()
    assert reply.headers["x-cosilo-entities"] == "2"
    facts = h.books.settled[-1][2]
    assert h.books.used.entities == 2
    assert facts.kinds == {"PERSON": 1, "EMAIL": 1}
    h.books.keys["good"] = replace_key(h.books.keys["good"], Limits(entities=3))
    for stream in (False, True):
        refused = await h.chat(stream=stream)
        assert (refused.status, refused.error["param"]) == (429, "entities")
    assert len(list(h.books.ledgers["x"].entries())) == 2
    assert h.books.used.entities == 2


async def test_a_failing_detector_answers_503_and_nothing_leaves(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = ScriptedModel()
    for fallback in ("refuse", "small"):
        h = await house(
            large=[model, model], small=ScriptedModel(),
            around=(DefenceConfig("hides", "hides", {"fail": True}),),
            serving=Serving(fallback=fallback), access_log=True,  # type: ignore[arg-type]
        )  # fmt: skip
        for stream in (False, True):
            reply = await h.chat(SECRET, stream=stream)
            assert (reply.status, reply.error["code"]) == (503, "privacy_guard_failed")
            assert SECRET not in reply.body.decode()
        assert list(h.books.ledgers["x"].entries()) == []
        assert h.books.used == Spend(requests=2)
    assert model.seen == []
    out, err = capfd.readouterr()
    assert '"status":503' in err
    for text in (out, err, caplog.text, h.gateway.metrics.exposition()):
        assert "Ada" not in text


# Failure.


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnreachableError("the large model is down"), 502, "upstream_unreachable"),
        (RejectedError("it answered 400"), 502, "upstream_rejected"),
        (StoreError("disk full"), 503, "store_unavailable"),
        (RuntimeError(SECRET), 503, "privacy_guard_failed"),  # on the road it counts as doubt
    ],
)
async def test_failures_have_their_status_and_quote_nothing(
    error: Exception, status: int, code: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    h = await house(large=[Failing(fail=error)])
    reply = await h.chat(SECRET, stream=stream)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert "Ada" not in reply.body.decode() + caplog.text
    assert h.books.open == {}
    [(_, _, facts)] = h.books.settled
    assert (facts.outcome, facts.status) == ("error", status)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_nobody_expected_is_told_by_its_kind_only(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    h = await house(strategy="small", large=[], small=Failing(fail=RuntimeError(SECRET)))
    reply = await h.chat(SECRET, stream=stream)
    assert (reply.status, reply.error["code"]) == (500, "internal_error")
    assert "RuntimeError" in reply.error["message"]
    assert ".py:" in caplog.text
    assert "Ada" not in reply.body.decode() + caplog.text


@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_upstream_answers_then_the_small_model(stream: bool) -> None:
    down = Failing(fail=UnreachableError("down", worked=0))
    h = await house(large=[down, ScriptedModel({"hello": "second"})], small=ScriptedModel())
    reply = await h.chat(stream=stream)
    assert reply.headers["x-cosilo-fallback"] == "lm1"
    assert "second" in (reply.text if stream else reply.json["choices"][0]["message"]["content"])
    assert h.books.settled[0][2].upstream == "lm1"
    alone = await house(
        large=[down], small=ScriptedModel({"hello": "by myself"}), serving=Serving(fallback="small")
    )
    reply = await alone.chat(stream=stream)
    assert reply.headers["x-cosilo-fallback"] == "small"
    assert "by myself" in (reply.text if stream else reply.json["choices"][0]["message"]["content"])
    [(_, spent, facts)] = alone.books.settled
    assert (facts.by, facts.fallback, spent.usd) == ("small", True, 0.0)


async def test_a_stream_that_breaks_after_its_first_piece_ends_with_an_error() -> None:
    cut = Failing(fail=UnreachableError("cut"))
    cut.after = 3
    h = await house(
        large=[cut, ScriptedModel()], small=ScriptedModel(), serving=Serving(fallback="small")
    )
    reply = await h.chat(stream=True)
    assert reply.status == 200
    assert reply.text == "piece piece piece "
    assert reply.events[-1]["error"]["code"] == "upstream_unreachable"
    assert b"[DONE]" not in reply.body
    [(_, spent, facts)] = h.books.settled
    assert facts.outcome == "error"
    assert spent.tokens_out > 0  # what had come is billed


@pytest.mark.parametrize(("stream", "after"), [(False, 0), (True, 0), (True, 2)])
async def test_an_upstream_that_hangs_is_given_up_and_billed(stream: bool, after: int) -> None:
    model = hanging(after)
    serving = Serving(timeout_seconds=0.05, idle_seconds=0.05)
    h = await house(large=[model], serving=serving)
    reply = await h.chat(stream=stream)
    assert model.cancelled
    if after:
        assert reply.events[-1]["error"]["code"] == "upstream_timeout"
    else:
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
    [(reservation, spent, facts)] = h.books.settled
    assert facts.outcome == "error"
    assert 0 < spent.usd <= reservation.most.usd
    assert h.books.open == {}


@pytest.mark.parametrize(("stream", "after"), [(False, 0), (True, 0), (True, 2)])
async def test_a_client_that_leaves_cancels_the_call_and_settles_it(
    stream: bool, after: int
) -> None:
    model = hanging(after)
    h = await house(large=[model])
    request = asyncio.create_task(h.chat(stream=stream, leave=model.started))
    await request
    assert model.cancelled
    [(reservation, spent, facts)] = h.books.settled
    assert (facts.outcome, facts.status) == ("cancelled", 499)
    assert 0 < spent.usd <= reservation.most.usd
    assert h.books.open == {}
    assert h.gateway.setup.in_flight == 0
    assert h.upstreams["lm0"].breaker.state == "closed"
    assert h.gateway.metrics.totals()['cosilo_cancelled_total{point="x"}'] == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_that_closes_while_being_written_to_is_a_client_that_left(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    h = await house()
    body = json.dumps({
        "model": "cosilo/x", "stream": stream, "messages": [{"role": "user", "content": SECRET}],
    }).encode()  # fmt: skip
    events: list[Any] = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        if events:
            return events.pop()
        await asyncio.Event().wait()

    async def send(event: Any) -> None:
        raise RuntimeError("unable to perform operation; the handler is closed")

    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions",
        "headers": [(b"authorization", b"Bearer good")],
    }  # fmt: skip
    await h.gateway(scope, receive, send)
    assert h.books.open == {}
    assert h.books.used.tokens_out > 0
    assert caplog.text == ""
    name = 'cosilo_requests_total{point="x",endpoint="chat",status="499"}'
    assert h.gateway.metrics.totals()[name] == 1


async def test_failures_open_the_breaker_and_then_nothing_is_sent() -> None:
    down = Failing(fail=UnreachableError("down"))
    h = await house(large=[down], breaker=BreakerConfig(consecutive=3, cooldown=60, longest=60))
    for _ in range(3):
        assert (await h.chat()).status == 502
    asked = len(down.seen)
    crossed = len(list(h.books.ledgers["x"].entries()))
    for stream in (False, True):
        reply = await h.chat(stream=stream)
        assert (reply.status, reply.error["code"]) == (503, "upstream_unavailable")
        assert int(reply.headers["retry-after"]) > 40
    assert len(down.seen) == asked
    assert len(list(h.books.ledgers["x"].entries())) == crossed
    ready = await h.send("/readyz", key=None)
    assert ready.json["upstreams"] == {"lm0": "open"}


async def test_timeouts_open_the_breaker_and_clients_that_leave_do_not() -> None:
    breaker = BreakerConfig(consecutive=2, cooldown=60, longest=60)
    late = await house(large=[hanging()], serving=Serving(timeout_seconds=0.02), breaker=breaker)
    for stream in (False, True):
        await late.chat(stream=stream)
    assert late.upstreams["lm0"].breaker.state == "open"


async def test_a_confident_small_model_answers_while_the_large_one_is_down() -> None:
    h = await house(
        strategy="cascade", options={"threshold": 0.5}, small=ScriptedModel({"hello": "mine"}),
        large=[Failing(fail=UnreachableError("down"))],
    )  # fmt: skip
    reply = await h.chat()
    assert (reply.status, reply.headers["x-cosilo-by"]) == (200, "small")
    assert reply.headers["x-cosilo-lm-called"] == "false"
    assert reply.headers["x-cosilo-usd"] == "0"


async def test_a_store_that_fails_sends_nothing() -> None:
    model = ScriptedModel()
    h = await house(large=[model])
    h.books.broken = True
    reply = await h.chat()
    assert (reply.status, reply.error["code"]) == (503, "store_unavailable")
    assert model.seen == []
    assert (await h.send("/readyz", key=None)).status == 503
    assert (await h.send("/healthz", key=None)).status == 200


async def test_more_requests_at_once_than_set_are_told_to_come_back() -> None:
    model = hanging()
    h = await house(large=[model], most_at_once=1)
    leave = asyncio.Event()
    waiting = asyncio.create_task(h.chat(leave=leave))
    await model.started.wait()
    reply = await h.chat()
    assert (reply.status, reply.error["code"]) == (503, "overloaded")
    leave.set()
    await waiting


async def test_requests_under_way_finish_on_the_configuration_they_began_with() -> None:
    gate, under_way = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedModel):
        closed = False

        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            under_way.set()
            await gate.wait()
            return await super().generate(chat, sampling)

        async def close(self) -> None:
            self.closed = True

    before = Slow({"hello": "old"})
    h = await house(large=[before])
    other = await house(large=[ScriptedModel({"hello": "new"})])
    waiting = asyncio.create_task(h.chat())
    await under_way.wait()
    await h.gateway.adopt(other.gateway.setup)
    fresh = await h.chat()
    assert fresh.json["choices"][0]["message"]["content"] == "new"
    assert not before.closed
    gate.set()
    assert (await waiting).json["choices"][0]["message"]["content"] == "old"
    await h.gateway.close()
    assert before.closed


async def test_metrics_count_and_hold_no_text() -> None:
    h = await house()
    await h.chat("hello " + SECRET)
    await h.chat(model="cosilo/" + SECRET)
    await h.chat(key=SECRET)
    text = (await h.send("/metrics", key=None)).body.decode()
    assert 'cosilo_requests_total{point="x",endpoint="chat",status="200"} 1' in text
    assert 'cosilo_requests_total{point="",endpoint="chat",status="404"} 1' in text
    assert 'cosilo_refused_total{reason="invalid_api_key"} 1' in text
    assert "Ada" not in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"large": []},
        {"serving": Serving(fallback="small")},
        {"strategy": "small", "large": []},
    ],
)
async def test_points_that_cannot_work_are_refused_when_opened(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="point 'x'"):
        await house(**wrong)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_finished_request_keeps_nothing_alive(stream: bool) -> None:
    """A deadline left behind would hold the task, and with it the client's text."""
    h = await house()
    assert (await h.chat("hello you", stream=stream)).status == 200
    assert DEADLINE.get() is None
