"""A server on loopback that is down, slow, wrong, cut off or fine; what the client makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosilo.boundary.messages import Completion, encode
from cosilo.errors import ConfigError, CosiloError, ModelError, RejectedError, UnreachableError
from cosilo.models.base import Access, TextModel, models, require
from cosilo.models.remote.openai_compatible import OpenAIModel, _retry_after
from cosilo.testing import ModelContract
from cosilo.types import Delta, Generation, Sampling, ToolCall, assemble, user

SECRET = "Ottilie Katzenstein"
KEY = "sk-very-secret-key"
GREEDY = Sampling()


class Wire:
    """An HTTP server that says, request by request, exactly the bytes it is told to.

    An answer is a list of steps: bytes to send, seconds to wait, "hang" until the client leaves, or
    "reset". When answers run out, the last one is repeated.
    """

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.paths: list[str] = []
        self.left = asyncio.Event()
        self.hangs = asyncio.Event()
        self.busy = 0
        self.most_busy = 0

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1])
            for line in head.split("\r\n")
            if line.lower().startswith("content-length")
        )
        self.requests.append(json.loads(await reader.readexactly(length)))
        self.headers.append(head)
        self.paths.append(head.split()[1])
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            for step in answer:
                if step == "hang":
                    self.hangs.set()
                    await reader.read()
                    self.left.set()
                elif step == "reset":
                    writer.transport.abort()
                elif isinstance(step, int | float):
                    await asyncio.sleep(step)
                else:
                    writer.write(step)
                    await writer.drain()
        finally:
            self.busy -= 1


def http(body: bytes, status: int = 200, kind: str = "application/json", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "Connection: close", "", ""]).encode() + body


def reply(text: str = "Hello.", **extra: Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 11, "completion_tokens": 3}
    return json.dumps({"choices": [{**choice, **extra}], "usage": usage}).encode()


def ok(text: str = "Hello.", **extra: Any) -> list[Any]:
    return [http(reply(text, **extra))]


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def data(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: Any) -> bytes:
    return data({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


USAGE = data({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}})
DONE = b"data: [DONE]\n\n"
STREAM = (
    delta(role="assistant", content="")
    + delta(content="Hel")
    + b": keep-alive\r\n\r\n"
    + delta(content="lo ä漢🙂.")
    + delta("stop")
    + USAGE
    + DONE
)


def model(url: str, **options: Any) -> OpenAIModel:
    return OpenAIModel(url, "m", **{"backoff_s": 0.0, "retries": 2, **options})


async def ask(
    *answers: list[Any], sampling: Sampling = GREEDY, **options: Any
) -> tuple[Generation, Wire]:
    wire = Wire(*answers)
    async with wire.serve() as url:
        client = model(url, **options)
        try:
            return await client.generate(user(SECRET), sampling), wire
        finally:
            await client.close()


async def tell(*answers: list[Any], **options: Any) -> tuple[list[Delta], Wire]:
    wire = Wire(*answers)
    async with wire.serve() as url:
        client = model(url, **options)
        try:
            return [d async for d in client.stream(user(SECRET), GREEDY)], wire
        finally:
            await client.close()


async def refused(kind: type[CosiloError], *answers: list[Any], **options: Any) -> tuple[str, Wire]:
    """The text of the error, which must quote neither prompt nor body nor key."""
    wire = Wire(*answers)
    async with wire.serve() as url:
        client = model(url, api_key=KEY, **options)
        for call in (_generate, _stream):
            wire.requests.clear()
            with pytest.raises(kind) as caught:
                await call(client)
            assert SECRET not in str(caught.value)
            assert KEY not in str(caught.value)
            assert caught.value.__cause__ is None
        await client.close()
    return str(caught.value), wire


async def _generate(client: OpenAIModel) -> None:
    await client.generate(user(SECRET), GREEDY)


async def _stream(client: OpenAIModel) -> None:
    async for _ in client.stream(user(SECRET), GREEDY):
        pass


class TestOpenAI(ModelContract):
    """The contract, with a server that lives as long as each of its loops."""

    def model(self) -> TextModel:
        return _Served()


class _Served:
    """An `OpenAIModel` whose server starts with its first call."""

    name = "served"
    access = Access.TEXT

    def __init__(self) -> None:
        self._context: Any = None
        self._client: OpenAIModel | None = None

    async def _open(self) -> OpenAIModel:
        if self._client is None:
            plain, streamed = reply("Hello."), SSE_HEAD + delta(content="Hello.") + delta("stop")

            class Both(Wire):
                async def _one(self, reader: Any, writer: Any) -> None:
                    self.answers = [[http(plain)], [streamed]]
                    await super()._one(reader, writer)

            self._context = Both([]).serve()
            self._client = model(await self._context.__aenter__())
        return self._client

    async def generate(self, chat: Any, sampling: Sampling) -> Generation:
        return await (await self._open()).generate(chat, sampling)

    async def stream(self, chat: Any, sampling: Sampling) -> AsyncIterator[Delta]:
        async for piece in (await self._open()).stream(chat, sampling):
            yield piece

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
            await client.close()
            await self._context.__aexit__(None, None, None)


async def test_a_reply_and_what_was_asked() -> None:
    said, wire = await ask(ok(), api_key=KEY, extra={"user": "u"}, omit=["seed"])
    assert (said.text, said.prompt_tokens, said.completion_tokens) == ("Hello.", 11, 3)
    assert (said.finish_reason, said.attempts) == ("stop", 1)
    assert said.seconds > 0
    (body,) = wire.requests
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": SECRET}],
        "max_tokens": 256,
        "temperature": 0.0,
        "top_p": 1.0,
        "user": "u",
    }
    assert wire.paths == ["/v1/chat/completions"]
    assert f"Authorization: Bearer {KEY}" in wire.headers[0]


async def test_tools_and_logprobs() -> None:
    tool = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    said, _ = await ask(ok("", message={"content": None, "tool_calls": [tool]}))
    assert said.tool_calls == (ToolCall("c", "f", '{"a": 1}'),)
    logprobs = {"content": [{"token": "Hi", "logprob": -0.5, "top_logprobs": []}]}
    said, wire = await ask(
        ok("Hi", logprobs=logprobs), logprobs=True, sampling=Sampling(top_logprobs=2)
    )
    assert said.tokens[0].logprob == -0.5
    assert (wire.requests[0]["logprobs"], wire.requests[0]["top_logprobs"]) == (True, 2)
    said, _ = await ask(ok("Hi", logprobs=logprobs))
    assert said.tokens == ()


async def test_without_usage_nothing_is_stated() -> None:
    body = json.dumps({"choices": [{"message": {"content": "x" * 40}}]}).encode()
    said, _ = await ask([http(body)])
    assert (said.prompt_tokens, said.completion_tokens) == (0, 0)


@pytest.mark.parametrize("count", [10**30, 2**64, 10**10, -5, 1e308, 0.5, "many", True, [], {}])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_usage_that_cannot_be_loses_no_answer_and_can_be_recorded(
    count: object, streamed: bool
) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count}
    if streamed:
        end = data({"choices": [], "usage": usage})
        pieces, _ = await tell([SSE_HEAD, delta("stop", content="Hello."), end, DONE])
        said = assemble(pieces)
    else:
        body = {**json.loads(reply()), "usage": usage}
        said, _ = await ask([http(json.dumps(body).encode())])
    assert said.text == "Hello."
    assert said.prompt_tokens == said.completion_tokens
    assert said.prompt_tokens in (-1, 10**9)
    assert encode(Completion(generation=said))


async def test_choices_are_mapped_where_clear() -> None:
    choices = Sampling(choices=("refund", "delivery"))
    assert (await ask(ok("It is a **Refund**."), sampling=choices))[0].text == "refund"
    assert (await ask(ok("hard to say"), sampling=choices))[0].text == "hard to say"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_what_is_worth_retrying_is_retried(status: int) -> None:
    said, wire = await ask([http(b"{}", status)], [http(b"<html>", status, "text/html")], ok())
    worked = 3 if status in (408, 500, 502) else 1  # the others say that nothing was begun
    assert (said.text, said.attempts, len(wire.requests)) == ("Hello.", worked, 3)
    text, wire = await refused(UnreachableError, [http(SECRET.encode(), status, "text/html")])
    assert f"HTTP {status}, text/html" in text
    assert "tried 3 times" in text
    assert len(wire.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_is_not_is_not(status: int) -> None:
    error = {"error": {"message": SECRET, "type": "invalid_request_error", "code": SECRET}}
    text, wire = await refused(RejectedError, [http(json.dumps(error).encode(), status)])
    assert f"HTTP {status}, application/json: invalid_request_error" in text
    assert len(wire.requests) == 1


async def test_no_money_left_is_not_retried() -> None:
    error = json.dumps({"error": {"type": "t", "code": "insufficient_quota"}}).encode()
    text, wire = await refused(RejectedError, [http(error, 429)])
    assert "insufficient_quota" in text
    assert len(wire.requests) == 1


async def test_advice() -> None:
    text, _ = await refused(RejectedError, [http(b"", 401)])
    assert "set api_key_env" in text
    text, _ = await refused(RejectedError, [http(b"", 401)], api_key_env="MY_KEY")
    assert "'MY_KEY' is refused" in text
    text, _ = await refused(RejectedError, [http(b"", 404)])
    assert "base_url" in text


async def test_redirects_are_not_followed() -> None:
    elsewhere = Wire(ok())
    async with elsewhere.serve() as url:
        text, _ = await refused(
            RejectedError, [http(b"", 307, "text/plain", f"Location: {url}/chat/completions")]
        )
    assert "redirects" in text
    assert not elsewhere.requests


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (http(b"<html>" + SECRET.encode(), 200, "text/html"), "text/html: it is no JSON"),
        (http(reply(SECRET)[:-9]), "no JSON, or cut off"),
        (http(b'{"choices": []}'), "no choices"),
        (http(b'{"choices": [{"message": {"content": 5}}]}'), "wrong type"),
        (http(b""), "no JSON"),
        (http(b"\xff\xfe\x00"), "no JSON"),
        (http(b'{"error": {"message": "' + SECRET.encode() + b'"}}'), "HTTP 200"),
    ],
)
async def test_a_reply_that_is_none(answer: bytes, says: str) -> None:
    text, wire = await refused(RejectedError, [answer])
    assert says in text
    assert len(wire.requests) == 1


async def test_a_content_type_that_quotes_is_not_repeated() -> None:
    text, _ = await refused(RejectedError, [http(b"{}", 400, f"text/{SECRET.lower()}")])
    assert "an odd content type" in text
    assert SECRET.lower() not in text


async def test_a_body_that_breaks_off_is_asked_for_again() -> None:
    whole = http(reply())
    said, _ = await ask([whole[:-9]], ["reset"], [whole])
    assert (said.text, said.attempts) == ("Hello.", 3)
    text, _ = await refused(UnreachableError, [whole[:-9]])
    assert "connection broke" in text
    await refused(UnreachableError, [b"this is not HTTP\r\n\r\n"])
    await refused(UnreachableError, [b""])


async def test_an_error_in_a_200_is_told_apart() -> None:
    overloaded = http(b'{"error": {"code": 503, "type": "overloaded"}}')
    said, _ = await ask([overloaded], ok())
    assert said.attempts == 2


async def test_down_is_said_and_nothing_left() -> None:
    async with Wire(ok()).serve() as url:
        pass
    client = model(url)
    with pytest.raises(UnreachableError, match=r"cannot be reached.*tried 3 times"):
        await client.generate(user(SECRET), GREEDY)
    await client.close()


async def test_attempts_count_only_what_left() -> None:
    """The server comes up while the client retries: the tries before that sent nothing."""
    wire = Wire(ok())
    async with wire.serve() as url:
        pass
    port = int(url.split(":")[2].split("/")[0])
    client = model(url, retries=1000)
    asked = asyncio.create_task(client.generate(user("q"), GREEDY))
    await asyncio.sleep(0.02)
    server = await asyncio.start_server(wire._serve, "127.0.0.1", port)
    said = await asked
    server.close()
    await client.close()
    assert said.attempts == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("answers", "worked"),
    [
        ([["hang"]], 2),  # it may be at work still
        ([["reset"]], 2),
        ([[http(reply()[:-9])]], 1),  # what is no reply is not asked for again
        ([[http(b"", 500)]], 2),
        ([[http(b"", 500)], [http(b"", 429)]], 1),
        ([[http(b"", 503)]], 0),
        ([[http(b"", 401)]], 0),
        ([[http(b"", 307)]], 0),
        ([[http(b"", 408)], [http(b"", 400)]], 1),
    ],
)
async def test_an_error_says_how_many_requests_may_have_been_worked_on(
    answers: list[Any], worked: int, streamed: bool
) -> None:
    wire = Wire(*answers)
    async with wire.serve() as url:
        client = model(url, retries=1, timeout_s=0.05, idle_timeout_s=0.05)
        with pytest.raises(ModelError) as caught:
            await (_stream if streamed else _generate)(client)
        await client.close()
    assert caught.value.worked == worked


async def test_a_call_that_is_cancelled_says_how_many_requests_may_have_been_worked_on() -> None:
    wire = Wire([http(b"", 502)], ["hang"])
    async with wire.serve() as url:
        client = model(url, retries=9)
        call = asyncio.create_task(_generate(client))
        await wire.hangs.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        await client.close()
    assert getattr(caught.value, "worked", None) == 2


async def test_a_request_that_cannot_be_sent_was_not_worked_on() -> None:
    client = model("http://127.0.0.1:1/v1")
    with pytest.raises(RejectedError) as caught:
        await client.generate(user("a\ud800"), GREEDY)
    assert caught.value.worked == 0
    with pytest.raises(UnreachableError) as down:
        await client.generate(user("a"), GREEDY)
    assert down.value.worked == 0
    await client.close()


async def test_slow_and_dripping_servers_run_into_the_limit() -> None:
    text, wire = await refused(
        UnreachableError, ["hang"], timeout_s=0.05, idle_timeout_s=0.05, retries=1
    )
    assert "0.05 s" in text
    assert wire.left.is_set()
    body = http(reply())
    drip: list[Any] = [step for byte in body for step in (bytes([byte]), 0.01)]
    with pytest.raises(UnreachableError):
        await ask(drip, timeout_s=0.1, retries=0)
    comments: list[Any] = [SSE_HEAD, *[b": still here\n\n", 0.01] * 500]
    with pytest.raises(UnreachableError, match="nothing came"):
        await tell(comments, idle_timeout_s=0.1, retries=0)


async def test_retry_after_is_heeded_and_too_long_is_not_waited_for() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    await ask([http(b"", 429, "text/plain", "Retry-After: 0.2")], ok())
    assert loop.time() - started >= 0.2
    text, wire = await refused(
        UnreachableError, [http(b"", 429, "text/plain", "Retry-After: 3600")]
    )
    assert len(wire.requests) == 1
    assert "429" in text
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert _retry_after("Wed, 21 Oct 2093 07:28:00 GMT") > 1e6
    assert _retry_after("soon") == 0


async def test_backoff_grows_and_jitters() -> None:
    client = model("http://127.0.0.1:1/v1", backoff_s=1.0)
    seen: list[tuple[float, float]] = []
    client._random.uniform = lambda a, b: seen.append((a, b)) or 0.0  # type: ignore[method-assign, func-returns-value]
    with pytest.raises(UnreachableError):
        await client.generate(user("q"), GREEDY)
    await client.close()
    assert seen == [(0, 1.0), (0, 2.0)]


async def test_at_most_so_many_at_once() -> None:
    wire = Wire([0.02, *ok()])
    async with wire.serve() as url:
        client = model(url, concurrency=3)
        await asyncio.gather(*(client.generate(user(str(i)), GREEDY) for i in range(9)))
        await client.close()
    assert wire.most_busy == 3


async def test_a_reply_of_any_length_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosilo.models.remote.openai_compatible.MAX_REPLY_BYTES", 1000)
    text, _ = await refused(RejectedError, ok("x" * 2000))
    assert "longer than" in text
    with pytest.raises(RejectedError, match="too long"):
        await tell([SSE_HEAD, *[delta(content="x" * 100)] * 100])


async def test_no_logprobs_from_an_endpoint_that_should_have_them() -> None:
    text, _ = await refused(RejectedError, ok(), logprobs=True)
    assert "logprobs = false" in text
    with pytest.raises(RejectedError, match="logprobs = true"):
        await ask(ok(), sampling=Sampling(top_logprobs=1))
    assert require(model("http://x/v1", logprobs=True), Access.LOGPROBS, by="t")
    with pytest.raises(CosiloError, match="needs logprobs"):
        require(model("http://x/v1"), Access.LOGPROBS, by="t")


async def test_a_stream() -> None:
    pieces, wire = await tell([SSE_HEAD, STREAM])
    assert [p.text for p in pieces] == ["Hel", "lo ä漢🙂.", ""]
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
    assert [p.text for p in pieces] == ["Hel", "lo ä漢🙂.", ""]
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
