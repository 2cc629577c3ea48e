"""The ASGI application: what it answers, what it charges, what it never says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cosilo.gateway.accounts.accounts import (
    Key,
    Spend,
)
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.types import Chat, Generation, Sampling, Turn, user
from house import house


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
        "x-cosilo-processed": "home, lm0 in this process",
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
    closed = await house(exposes=Access.TEXT.shows)
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
