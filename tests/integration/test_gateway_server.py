"""The gateway as its clients meet it: a process, driven by OpenAI's and Anthropic's own libraries and
by curl."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from tests.integration.gateway import (
    MAIN,
    Gateway,
    Mock,
    Process,
    fetch,
    mocking,
    serving,
    upstream,
    write_config,
)

from cosilo.boundary.messages import Ask
from cosilo.boundary.meter import Price
from cosilo.gateway.accounts.accounts import Limits
from cosilo.types import Sampling, user

SECRET = "ada.lovelace@example.org"
WORDS = " ".join(f"w{i}" for i in range(48))


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with mocking() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(mock: Mock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = "".join(
        upstream(name, mock, model, **more)
        for name, model, more in [
            ("ok", "ok", {"logprobs": True, "exposes": "logprobs"}),
            ("echo", "echo", {}),
            ("tools", "tools", {}),
            ("bad", "500", {"retries": 0}),
            ("hang", "hang", {}),
            ("html", "html", {"retries": 0}),
            ("reset", "reset", {"retries": 0}),
            ("cut", "cut", {"retries": 0}),
            ("badjson", "badjson", {"retries": 0}),
            ("drip", "drip-20", {}),
            *((f"echo{n}", f"echo-{n}", {}) for n in (1, 3, 7)),
        ]
    )
    config += '[models.sm]\nkind = "scripted"\nreplies = {hello = "by myself"}\n'
    for name in ("ok", "echo", "tools", "html", "reset", "cut", "badjson", "bad", "drip"):
        config += f'[[points]]\nname = "{name}"\nstrategy = "large"\nlarge = "{name}"\n'
    config += (
        '[[points]]\nname = "hang"\nstrategy = "large"\nlarge = "hang"\ntimeout_seconds = 0.3\n'
    )
    config += (
        '[[points]]\nname = "safe"\nstrategy = "large"\nlarge = ["bad", "html"]\nsmall = "sm"\n'
        'fallback = "small"\n'
    )
    config += '[defences.hide]\nkind = "pseudonym"\ndetectors = ["patterns"]\n'
    for name in ("echo", "tools", "echo1", "echo3", "echo7"):
        config += (
            f'[[points]]\nname = "private-{name}"\nstrategy = "large"\nlarge = "{name}"\n'
            'defences = ["hide"]\n'
        )
    with serving(tmp_path_factory.mktemp("gateway"), config) as found:
        yield found


@pytest.fixture
def client(gateway: Gateway, mock: Mock) -> Iterator[openai.OpenAI]:
    mock.reset()
    with openai.OpenAI(base_url=gateway.url, api_key=gateway.key(), max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, model: str, text: str = "hello", **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=f"cosilo/{model}", messages=messages, **fields)


def text_of(stream: Any) -> str:
    return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)


# The client library.


def test_a_chat(client: openai.OpenAI) -> None:
    reply = ask(client, "ok")
    assert reply.choices[0].message.content == WORDS
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (4, 48)


def test_a_stream_and_its_usage(client: openai.OpenAI) -> None:
    chunks = list(ask(client, "ok", stream=True, stream_options={"include_usage": True}))
    assert text_of(chunks) == WORDS
    assert len(chunks) == 51
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 52
    assert chunks[-1].cosilo["by"] == "large"


async def test_the_async_client(gateway: Gateway, mock: Mock) -> None:
    key = await asyncio.to_thread(gateway.key)
    async with openai.AsyncOpenAI(base_url=gateway.url, api_key=key, max_retries=0) as client:
        stream, *whole = await asyncio.gather(
            client.chat.completions.create(
                model="cosilo/ok", messages=[{"role": "user", "content": "hi"}], stream=True
            ),
            *(
                client.chat.completions.create(
                    model="cosilo/ok", messages=[{"role": "user", "content": "hi"}]
                )
                for _ in range(10)
            ),
        )
        parts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
    assert "".join(parts) == WORDS
    assert {r.choices[0].message.content for r in whole} == {WORDS}


def test_tools_go_out_and_calls_come_back(client: openai.OpenAI, mock: Mock) -> None:
    tools = [{
        "type": "function",
        "function": {"name": "note", "parameters": {"type": "object", "properties": {}}},
    }]  # fmt: skip
    reply = ask(client, "tools", "remember é", tools=tools, tool_choice="auto")
    [call] = reply.choices[0].message.tool_calls
    assert (call.id, call.function.name) == ("call_1", "note")
    assert json.loads(call.function.arguments) == {"text": "remember é"}
    assert reply.choices[0].finish_reason == "tool_calls"
    asked = json.loads(mock.seen()["bodies"][-1])
    assert (asked["tools"], asked["tool_choice"]) == (tools, "auto")
    with client.chat.completions.stream(
        model="cosilo/tools", messages=[{"role": "user", "content": "again"}], tools=tools  # type: ignore[arg-type]
    ) as stream:  # fmt: skip
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments) == {
        "text": "again"
    }
    messages: Any = [
        {"role": "user", "content": "remember é"},
        reply.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    client.chat.completions.create(model="cosilo/ok", messages=messages)
    sent = json.loads(mock.seen()["bodies"][-1])["messages"]
    assert sent[1]["tool_calls"][0]["function"]["name"] == "note"
    assert (sent[2]["role"], sent[2]["tool_call_id"]) == ("tool", "call_1")


def test_a_response_whole_streamed_and_with_tools(client: openai.OpenAI, mock: Mock) -> None:
    text = f'send "this" to {SECRET}'
    tools: Any = [{"type": "function", "name": "note", "parameters": {"type": "object"}}]
    whole = client.responses.create(
        model="cosilo/private-echo", instructions="Be kind.", input=text
    )
    assert whole.output_text == text
    with client.responses.stream(model="cosilo/private-echo3", input=text) as stream:
        pieces = [e.delta for e in stream if e.type == "response.output_text.delta"]
        assert "".join(pieces) == stream.get_final_response().output_text == text
    assert len(pieces) > 1
    items: Any = [{"role": "user", "content": text}]
    reply = client.responses.create(model="cosilo/private-tools", input=items, tools=tools)
    [call] = [item for item in reply.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"text": text}
    items += [item.to_dict() for item in reply.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": SECRET})
    client.responses.create(model="cosilo/private-echo", input=items)
    bodies = [json.loads(body) for body in mock.seen()["bodies"]]
    assert SECRET not in json.dumps(bodies)
    assert [m["role"] for m in bodies[0]["messages"]] == ["system", "user"]
    assert [m["role"] for m in bodies[-1]["messages"]] == ["user", "assistant", "tool"]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(reply.id)


def test_a_message_whole_streamed_and_with_tools(gateway: Gateway, mock: Mock) -> None:
    mock.reset()
    text = f'send "this" to {SECRET}'
    tools: Any = [{"name": "note", "input_schema": {"type": "object"}}]
    turns: Any = [{"role": "user", "content": text}]
    asked: dict[str, Any] = {"max_tokens": 99, "messages": turns}
    with anthropic.Anthropic(base_url=gateway.root, api_key=gateway.key(), max_retries=0) as client:
        whole = client.messages.create(model="cosilo/private-echo", system="Be kind.", **asked)
        assert [b.to_dict() for b in whole.content] == [{"type": "text", "text": text}]
        with client.messages.stream(model="cosilo/private-echo3", **asked) as stream:
            pieces = list(stream.text_stream)
        assert "".join(pieces) == text
        assert len(pieces) > 1
        with client.messages.stream(model="cosilo/private-tools", tools=tools, **asked) as stream:
            reply = stream.get_final_message()
        [call] = [block for block in reply.content if block.type == "tool_use"]
        assert (call.input, reply.stop_reason) == ({"text": text}, "tool_use")
        result = {"type": "tool_result", "tool_use_id": call.id, "content": SECRET}
        turns += [{"role": "assistant", "content": reply.content}]
        turns += [{"role": "user", "content": [result]}]
        client.messages.create(model="cosilo/private-echo", **asked)
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(model="cosilo/nobody", **asked)
    bodies = [json.loads(body) for body in mock.seen()["bodies"]]
    assert SECRET not in json.dumps(bodies)
    assert [m["role"] for m in bodies[0]["messages"]] == ["system", "user"]
    assert [m["role"] for m in bodies[-1]["messages"]] == ["user", "assistant", "tool"]


def test_other_options_reach_the_upstream(client: openai.OpenAI, mock: Mock) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    reply = ask(
        client, "ok", max_tokens=3, temperature=0.5, seed=9, stop=["x"], logprobs=True,
        top_logprobs=1, response_format=schema, n=2, user="me",
    )  # fmt: skip
    assert [c.message.content for c in reply.choices] == ["w0 w1 w2"] * 2
    assert [t.token for t in reply.choices[0].logprobs.content] == ["w0", " w1", " w2"]
    first, second = (json.loads(b) for b in mock.seen()["bodies"][-2:])
    assert {first["seed"], second["seed"]} == {9, 10}
    assert first["max_tokens"] == 3
    assert (first["temperature"], first["stop"]) == (0.5, ["x"])
    assert first["response_format"] == schema
    assert "user" not in first


def test_the_older_api_and_the_models(client: openai.OpenAI) -> None:
    done = client.completions.create(model="cosilo/ok", prompt="hi", max_tokens=2)
    assert done.choices[0].text == "w0 w1"
    pieces = client.completions.create(model="cosilo/ok", prompt="hi", stream=True)
    assert "".join(c.choices[0].text for c in pieces) == WORDS
    assert "cosilo/safe" in {m.id for m in client.models.list()}
    assert client.models.retrieve("cosilo/ok").id == "cosilo/ok"


def test_errors_become_the_librarys_exceptions(gateway: Gateway, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean 'cosilo/ok'"):
        ask(client, "okk")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        ask(client, "ok", temperature=9)
    with pytest.raises(openai.BadRequestError, match="embedder"):
        client.embeddings.create(model="cosilo/ok", input="x")
    with pytest.raises(openai.AuthenticationError):
        ask(client.with_options(api_key="nonsense"), "ok")
    poor = client.with_options(api_key=gateway.key("poor", Limits(usd=1e-9)))
    with pytest.raises(openai.RateLimitError, match="usd") as caught:
        ask(poor, "ok")
    assert caught.value.code == "insufficient_quota"
    image: Any = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    with pytest.raises(openai.BadRequestError, match="only text"):
        client.chat.completions.create(
            model="cosilo/ok", messages=[{"role": "user", "content": image}]
        )


def curl(*arguments: str) -> str:
    found = shutil.which("curl")
    if found is None:
        pytest.skip("needs curl")
    done = subprocess.run(
        [found, "-sS", "--max-time", "20", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_curl(gateway: Gateway, mock: Mock) -> None:
    mock.reset()
    auth = f"Authorization: Bearer {gateway.key()}"
    body = json.dumps({"model": "cosilo/ok", "messages": [{"role": "user", "content": "hi"}]})
    url = f"{gateway.url}/chat/completions"
    head, _, data = curl("-i", url, "-H", auth, "-d", body).partition("\n\n")
    assert "HTTP/1.1 200" in head
    assert "x-cosilo-by: large" in head
    assert json.loads(data)["choices"][0]["message"]["content"] == WORDS
    streamed = curl("-N", url, "-H", auth, "-d", body.replace('"model"', '"stream": true, "model"'))
    assert streamed.endswith("data: [DONE]\n\n")
    upgrading = curl("-i", "--http2", url, "-H", auth, "-d", body)  # as Java's client asks, too
    assert "HTTP/1.1 200" in upgrading.splitlines()[0]
    refused = curl("-i", url, "-d", body)
    assert "401" in refused.splitlines()[0]
    assert json.loads(curl(f"{gateway.root}/readyz"))["status"] == "ready"
    assert "cosilo_requests_total" in curl(f"{gateway.root}/metrics")


# Privacy, end to end.


@pytest.mark.parametrize("pieces", [0, 1, 3, 7])
def test_what_was_hidden_comes_back_exactly(client: openai.OpenAI, mock: Mock, pieces: int) -> None:
    text = f"Write to {SECRET} or call +49 170 1234567, not ada.l@example.org – é 漢字. {SECRET}!"
    if pieces:
        found = text_of(ask(client, f"private-echo{pieces}", text, stream=True))
    else:
        found = ask(client, "private-echo", text).choices[0].message.content
    assert found == text
    [body] = mock.seen()["bodies"]
    for value in (SECRET, "1234567", "ada.l"):
        assert value not in body


def test_entities_that_left_are_told_and_booked(gateway: Gateway, client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="cosilo/private-echo", messages=[{"role": "user", "content": f"mail {SECRET}"}]
    )
    assert raw.headers["x-cosilo-entities"] == "1"
    row = next(r for r in gateway.rows() if r.request == raw.headers["x-cosilo-request-id"])
    assert row.spent.entities == 1
    limited = client.with_options(api_key=gateway.key("shy", Limits(entities=1)))
    ask(limited, "private-echo", f"mail {SECRET}")
    with pytest.raises(openai.RateLimitError, match="entities"):
        ask(limited, "private-echo", f"mail {SECRET}")


def test_hidden_values_come_back_in_tool_calls(client: openai.OpenAI, mock: Mock) -> None:
    tools: Any = [{"type": "function", "function": {"name": "mail", "parameters": {}}}]
    text = f'send "this" to {SECRET}'
    call = ask(client, "private-tools", text, tools=tools).choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"text": text}
    with client.chat.completions.stream(
        model="cosilo/private-tools", messages=[{"role": "user", "content": text}], tools=tools
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments) == {"text": text}
    assert all(SECRET not in body for body in mock.seen()["bodies"])


# Failure.


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("point", "statuses"),
    [("bad", {502, 503}), ("html", {502, 503}), ("reset", {502, 503}), ("hang", {504, 503})],
)
def test_an_upstream_that_fails_is_told_as_such(
    gateway: Gateway, client: openai.OpenAI, point: str, statuses: set[int], stream: bool
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, point, SECRET, stream=stream)
    assert caught.value.status_code in statuses
    assert SECRET not in str(caught.value)
    assert SECRET not in "".join(gateway.process.lines)


@pytest.mark.parametrize("point", ["cut", "badjson"])
def test_a_reply_that_breaks_off_is_an_error(client: openai.OpenAI, point: str) -> None:
    with pytest.raises(openai.InternalServerError):
        ask(client, point)
    found: list[str] = []

    def read() -> None:
        for chunk in ask(client, point, stream=True):
            found.append(chunk.choices[0].delta.content or "")

    with pytest.raises(openai.APIError):
        read()
    assert "".join(found) == " ".join(WORDS.split()[:19])


def test_the_small_model_answers_when_no_upstream_does(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="cosilo/safe", messages=[{"role": "user", "content": "hello"}]
    )
    assert raw.headers["x-cosilo-fallback"] == "small"
    assert raw.parse().choices[0].message.content == "by myself"
    assert text_of(ask(client, "safe", stream=True)) == "by myself"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_the_upstreams_work(
    gateway: Gateway, mock: Mock, stream: bool
) -> None:
    mock.reset()
    name = f"leaver-{stream}"
    key = gateway.key(name)
    mock.force("drip-200" if stream else "slow-20000")
    body = json.dumps({
        "model": "cosilo/ok", "stream": stream, "messages": [{"role": "user", "content": "hi"}],
    }).encode()  # fmt: skip
    host, port = gateway.root.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        if stream:
            assert b"200 OK" in connection.recv(100)
        mock.until("requests", 1)
    mock.until("cancelled", 1)
    end = time.monotonic() + 10
    while (state := gateway.spent(name)).used.requests == 0:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert state.held.usd == 0
    assert state.used.usd > 0
    assert next(r for r in gateway.rows() if r.key == state.key.id).outcome == "cancelled"


# Money.


def test_a_race_never_overspends_and_the_books_match_the_upstreams(
    gateway: Gateway, mock: Mock
) -> None:
    mock.reset()
    one = (4 + 2 * 48) / 1e6  # what the mock bills for "hello"
    most = most_of_hello()
    name = "racer"
    key = gateway.key(name, Limits(usd=50 * one))

    async def race() -> list[int]:
        async with openai.AsyncOpenAI(base_url=gateway.url, api_key=key, max_retries=0) as client:

            async def one_request(i: int) -> int:
                try:
                    if i % 2:
                        reply = await client.chat.completions.create(
                            model="cosilo/ok", max_tokens=48,
                            messages=[{"role": "user", "content": "hello"}],
                        )  # fmt: skip
                        assert reply.choices[0].message.content == WORDS
                    else:
                        stream = await client.chat.completions.create(
                            model="cosilo/ok", max_tokens=48, stream=True,
                            messages=[{"role": "user", "content": "hello"}],
                        )  # fmt: skip
                        parts = [c.choices[0].delta.content or "" async for c in stream]
                        assert "".join(parts) == WORDS
                except openai.RateLimitError:
                    return 429
                return 200

            return await asyncio.gather(*map(one_request, range(200)))

    statuses = asyncio.run(race())
    served = statuses.count(200)
    seen = mock.seen()
    state = gateway.spent(name)
    assert served == seen["answered"]
    assert state.used.tokens_in == seen["prompt_tokens"]
    assert state.used.tokens_out == seen["completion_tokens"]
    assert state.used.usd == pytest.approx(served * one)
    assert state.used.usd <= 50 * one
    assert served >= 50 * one // most  # as many as can be under way together, at the least
    assert state.held.usd == 0


# The process.


def most_of_hello() -> float:
    """What is set aside for "hello" and 48 tokens: all attempts that the model's retries allow."""
    price = Price(1.0, 2.0, attempts=5)
    return price.bound(Ask(chat=user("hello"), sampling=Sampling(max_tokens=48))).usd


def point(mock: Mock, name: str = "ok", model: str = "ok") -> str:
    return (
        upstream("lm", mock, model)
        + f'[[points]]\nname = "{name}"\nstrategy = "large"\nlarge = "lm"\n'
    )


def test_told_to_stop_it_finishes_its_streams(mock: Mock, tmp_path: Path) -> None:
    mock.reset()
    with serving(tmp_path, point(mock, model="drip-20")) as gateway:
        client = openai.OpenAI(base_url=gateway.url, api_key=gateway.key(), max_retries=0)
        stream = iter(ask(client, "ok", stream=True))
        first = next(stream)
        os.kill(gateway.pid, signal.SIGTERM)
        assert first.choices[0].delta.content == ""
        assert text_of(stream) == WORDS
        assert gateway.process.child.wait(10) == 0
        client.close()
        assert [r.outcome for r in gateway.rows()] == ["ok"]
        gateway.process.child.poll = lambda: None  # type: ignore[method-assign]


def test_the_configuration_is_read_again_without_losing_a_request(
    mock: Mock, tmp_path: Path
) -> None:
    mock.reset()
    with serving(tmp_path, point(mock)) as gateway:
        key = gateway.key()
        port = int(gateway.root.rpartition(":")[2])
        stop = threading.Event()
        failures: list[str] = []
        served = [0]

        def keep_asking() -> None:
            with openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=0) as client:
                while not stop.is_set():
                    try:
                        assert text_of(ask(client, "ok", stream=True)) == WORDS
                        served[0] += 1
                    except Exception as error:
                        failures.append(repr(error))

        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(keep_asking)
            for number in range(5):
                extra = f'[[points]]\nname = "new{number}"\nstrategy = "large"\nlarge = "lm"\n'
                write_config(tmp_path, point(mock) + extra, port=port)
                os.kill(gateway.pid, signal.SIGHUP)
                gateway.process.wait_for("read again: 2 points")
            write_config(tmp_path, "nonsense = 1", port=port)
            os.kill(gateway.pid, signal.SIGHUP)
            gateway.process.wait_for("not taken, the one before stays")
            before = served[0]
            end = time.monotonic() + 10
            while served[0] < before + 8 and time.monotonic() < end:
                time.sleep(0.01)
            stop.set()
        assert failures == []
        assert served[0] >= before + 8
        names = {m["id"] for m in json.loads(fetch(f"{gateway.url}/models", key=key))["data"]}
        assert names == {"cosilo/ok", "cosilo/new4"}
        assert gateway.metrics()['cosilo_reloads_total{result="failed"}'] == 1


def test_workers_share_keys_and_budgets_and_a_killed_one_is_replaced(
    mock: Mock, tmp_path: Path
) -> None:
    mock.reset()
    with serving(tmp_path, point(mock), workers=2) as gateway:
        one = (4 + 2 * 48) / 1e6
        key = gateway.key("shared", Limits(usd=20.5 * one + most_of_hello()))
        children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
        assert len(children) == 2

        def one_request(_: int) -> int:
            with openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=2) as client:
                try:
                    return len(ask(client, "ok", max_tokens=48).choices)
                except openai.RateLimitError:
                    return 0

        with ThreadPoolExecutor(8) as pool:
            served = sum(pool.map(one_request, range(40)))
        assert 18 <= served <= 22
        state = gateway.spent("shared")
        assert state.used.usd == pytest.approx(served * one)
        total = sum(
            v for k, v in gateway.metrics().items()
            if k.startswith("cosilo_requests_total") and 'status="200"' in k
        )  # fmt: skip
        assert total == served
        began = time.monotonic()
        os.kill(int(children[0]), signal.SIGKILL)
        gateway.process.wait_for("died")
        gateway.process.wait_for("serves")
        assert time.monotonic() - began < 10
        rich = gateway.key("rich")
        client = openai.OpenAI(base_url=gateway.url, api_key=rich, max_retries=0)
        for _ in range(6):
            assert ask(client, "ok").choices[0].message.content == WORDS
            client.close()
            client = openai.OpenAI(base_url=gateway.url, api_key=rich, max_retries=0)
        client.close()


def test_a_configuration_that_cannot_work_stops_at_once(mock: Mock, tmp_path: Path) -> None:
    for workers in (1, 2):
        write_config(
            tmp_path, point(mock).replace('large = "lm"', 'large = "lmm"'), workers=workers
        )

        process = Process([sys.executable, "-c", MAIN, "serve", "gateway.toml"], cwd=tmp_path)
        assert process.child.wait(30) == 2
        process.stop()
        assert "no model named 'lmm'; did you mean 'lm'?" in "".join(process.lines)
