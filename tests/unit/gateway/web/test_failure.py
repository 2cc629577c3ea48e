"""Upstreams, stores and clients that fail: each has its status, and no error quotes what was said."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cosilo.errors import ConfigError, RejectedError, StoreError, UnreachableError
from cosilo.gateway.serving.breaker import BreakerConfig
from cosilo.gateway.serving.points import Serving
from cosilo.gateway.serving.upstreams import DEADLINE
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.types import Chat, Generation, Sampling
from house import SECRET, Failing, hanging, house


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
async def test_words_of_a_party_in_other_hands_go_to_who_asked_and_into_no_log(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = RejectedError(f"no answer to {SECRET!r}")
    error.quoted = True
    reply = await (await house(large=[Failing(fail=error)])).chat(SECRET, stream=stream)
    assert "Ada" in reply.error["message"]
    assert "RejectedError: (words of the other party)" in caplog.text
    assert "Ada" not in caplog.text


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
    other = await house(large=[ScriptedModel({"hello": "new"})], tabs=h.gateway.tabs)
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
