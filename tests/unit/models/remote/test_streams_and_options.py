"""Streams of an OpenAI-compatible server, and the options of the client."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosilo.errors import ConfigError, RejectedError, UnreachableError
from cosilo.models.base import models
from cosilo.models.remote.openai_compatible import OpenAIModel
from cosilo.types import ToolCall, assemble, user
from wire import (
    DONE,
    GREEDY,
    KEY,
    SECRET,
    SSE_HEAD,
    STREAM,
    USAGE,
    Wire,
    apart,
    ask,
    data,
    delta,
    model,
    ok,
    tell,
)


async def test_a_stream() -> None:
    pieces, wire = await tell([SSE_HEAD, STREAM])
    assert [p.text for p in pieces] == ["Hello ä漢🙂.", ""], "what comes together is passed on so"
    last = pieces[-1]
    assert (last.finish_reason, last.prompt_tokens, last.completion_tokens) == ("stop", 11, 3)
    assert last.attempts == 1
    assert wire.requests[0]["stream"] is True
    assert wire.requests[0]["stream_options"] == {"include_usage": True}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=6, unique=True))
def test_a_stream_cut_anywhere_says_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    steps: list[Any] = [SSE_HEAD]
    for a, b in pairwise(edges):
        steps += [STREAM[a:b], 0.0]
    pieces, _ = asyncio.run(tell(steps))
    assert "".join(p.text for p in pieces) == "Hello ä漢🙂."
    assert (pieces[-1].finish_reason, pieces[-1].completion_tokens) == ("stop", 3)


@pytest.mark.parametrize(
    "tail",
    [b"", DONE, USAGE, b"data: [DONE]", delta("stop")[:-4], b"\xff\n\n"],
)
async def test_a_stream_without_its_end_is_an_error_not_a_short_answer(tail: bytes) -> None:
    with pytest.raises((UnreachableError, RejectedError)) as caught:
        await tell([SSE_HEAD, delta(content=SECRET), tail])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("tail", [b"", b"\n", DONE[:-1], USAGE[:-2]])
async def test_a_stream_may_end_without_done(tail: bytes) -> None:
    pieces, _ = await tell([SSE_HEAD, delta(content="x"), delta("stop"), tail])
    assert assemble(pieces).text == "x"
    assert pieces[-1].finish_reason == "stop"


async def test_a_stream_that_fails_before_its_first_piece_is_asked_for_again() -> None:
    error = data({"error": {"message": SECRET, "code": 503, "type": "overloaded"}})
    pieces, _ = await tell([SSE_HEAD, error], [SSE_HEAD], [SSE_HEAD, STREAM])
    assert assemble(pieces).text == "Hello ä漢🙂."
    assert pieces[-1].attempts == 3
    text = "in the middle of the reply"
    with pytest.raises(UnreachableError, match=text) as caught:
        await tell([SSE_HEAD, delta(content="x"), error], [SSE_HEAD, STREAM])
    assert SECRET not in str(caught.value)
    with pytest.raises(RejectedError):
        await tell([SSE_HEAD, data({"error": {"message": SECRET, "type": "bad"}})])


async def test_tool_calls_in_a_stream() -> None:
    calls = [
        delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
        delta("tool_calls"),
    ]
    pieces, _ = await tell([SSE_HEAD, *calls, DONE])
    said = assemble(pieces)
    assert said.tool_calls == (ToolCall("c", "f", '{"a": 1}'),)
    assert said.finish_reason == "tool_calls"


async def test_a_server_that_does_not_stream() -> None:
    pieces, _ = await tell(ok("Hello."))
    assert len(pieces) == 1
    assert (pieces[0].text, pieces[0].finish_reason) == ("Hello.", "stop")


async def test_what_comes_apart_is_passed_on_apart() -> None:
    pieces, _ = await tell(
        apart(SSE_HEAD, delta(content="a"), delta(content="b") + delta(content="c"), delta("stop"))
    )
    assert [p.text for p in pieces] == ["a", "bc", ""]


async def test_what_came_before_a_broken_event_is_given_first() -> None:
    wire = Wire([SSE_HEAD, delta(content="a") + delta(content="b") + b"data: {\n\n"])
    async with wire.serve() as url:
        client = model(url)
        pieces = client.stream(user("q"), GREEDY)
        assert (await anext(pieces)).text == "ab"
        with pytest.raises(RejectedError):
            await anext(pieces)
        await client.close()


async def test_a_stream_that_is_left_leaves_the_server() -> None:
    wire = Wire([SSE_HEAD, delta(content="x"), "hang"])
    async with wire.serve() as url:
        client = model(url, concurrency=1)
        pieces = client.stream(user("q"), GREEDY)
        assert (await anext(pieces)).text == "x"
        (pool,) = client._pools.values()
        assert pool.slots.locked()
        await pieces.aclose()  # type: ignore[attr-defined]
        assert not pool.slots.locked(), "the request is given up before aclose returns"
        await asyncio.wait_for(wire.left.wait(), 5)
        wire.answers = [ok()]
        assert (await client.generate(user("q"), GREEDY)).text == "Hello."
        await client.close()


async def test_a_call_that_is_cancelled_leaves_the_server() -> None:
    wire = Wire(["hang"])
    async with wire.serve() as url:
        client = model(url)
        asked = asyncio.create_task(client.generate(user("q"), GREEDY))
        while not wire.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await asyncio.wait_for(wire.left.wait(), 5)
        await client.close()


def test_one_client_serves_one_loop_after_another() -> None:
    client: OpenAIModel | None = None

    async def once() -> str:
        nonlocal client
        wire = Wire(ok())
        async with wire.serve() as url:
            client = client or model(url)
            client.base_url = url
            return (await client.generate(user("q"), GREEDY)).text

    assert asyncio.run(once()) == asyncio.run(once()) == "Hello."
    assert client is not None
    asyncio.run(client.close())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": "ftp://x"}, "http://"),
        ({"base_url": "localhost:80"}, "http://"),
        ({"base_url": f"http://u:{KEY}@x/v1"}, "api_key_env"),
        ({"base_url": f"http://x/v1?key={KEY}"}, "path"),
        ({"api_key_env": KEY}, "not a key itself"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "'NOT_SET_ANYWHERE'"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout_s": 0.0}, "timeouts"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        models.create("openai", **{"base_url": "http://x/v1", "model": "m", **options})
    assert KEY not in str(caught.value)


async def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    wire = Wire(ok())
    async with wire.serve() as url:
        client = models.create("openai", base_url=url + "/", model="m", api_key_env="MY_KEY")
        await client.generate(user("q"), GREEDY)
        await client.close()
    assert f"Bearer {KEY}\r\n" in wire.headers[0]
    assert KEY not in repr(vars(client)["base_url"]) + client.name + client.identity  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://lm.example.org/v1", True),
        ("http://10.0.0.7:8000/v1", True),
        ("https://lm.example.org/v1", False),
        ("http://localhost:1/v1", False),
        ("http://127.0.0.9:1/v1", False),
        ("http://[::1]:1/v1", False),
    ],
)
def test_prompts_that_others_on_the_way_could_read_are_warned_of(
    url: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    OpenAIModel(url, "far", api_key="sk-secret")
    assert ("can read along" in caplog.text) == told
    assert "sk-secret" not in caplog.text


async def test_a_reasoning_model_gets_its_allowance_and_other_recordings() -> None:
    _, wire = await ask(ok(), reasoning=2000)
    assert wire.requests[0]["max_tokens"] == 2000 + GREEDY.max_tokens
    assert model("http://x/v1", reasoning=2000).identity != model("http://x/v1").identity
    with pytest.raises(ConfigError, match="reasoning must be 0 or more"):
        model("http://x/v1", reasoning=-1)
