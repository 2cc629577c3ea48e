"""A server on loopback that is down, slow, wrong, cut off or fine; what the client makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cosilo.boundary.messages import Completion, encode
from cosilo.errors import CosiloError, ModelError, RejectedError, UnreachableError
from cosilo.models.base import Access, TextModel, require
from cosilo.models.remote.openai_compatible import OpenAIModel, _retry_after
from cosilo.testing import ModelContract
from cosilo.types import Delta, Generation, Sampling, ToolCall, assemble, user
from wire import (
    DONE,
    GREEDY,
    KEY,
    SECRET,
    SSE_HEAD,
    Wire,
    _generate,
    _stream,
    ask,
    data,
    delta,
    http,
    model,
    ok,
    refused,
    reply,
    tell,
)


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
