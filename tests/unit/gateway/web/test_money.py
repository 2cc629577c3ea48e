"""What a request may cost: set aside before anything leaves, and only what was worked on is spent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cosilo.boundary.meter import Budget, Price
from cosilo.defences.base import Defence, defences
from cosilo.errors import RejectedError, UnreachableError
from cosilo.gateway.accounts.accounts import (
    Limits,
    Spend,
)
from cosilo.gateway.serving.points import Serving
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat, Delta, Generation, Sampling, Turn
from house import SECRET, Failing, house, replace_key


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
