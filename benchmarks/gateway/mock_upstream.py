"""A large model's endpoint that behaves, or misbehaves, as its model's name says.

    python benchmarks/gateway/mock_upstream.py --port 18080

    ok            48 words, as JSON or as 51 events        tools      one tool call
    echo          the last user message, in pieces of `piece` bytes (echo-1, echo-3, echo-7)
    slow-MS       as `ok`, after MS milliseconds           drip-MS    MS between events
    500 429 401   that status                              hang       never answers
    reset         connection reset before the answer       cut        ends in the middle
    badjson       truncated JSON, or an event that is none html       200 with a web page
    flaky-N       every N-th request is a 500

GET /seen tells what it has been asked and what it would bill; POST /reset starts counting anew;
POST /force {"model": "500"} makes every model behave so (null: as named). It listens on loopback only
and keeps the last 1,000 bodies, so that tests can look for what must not have left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import httptools
import msgspec

WORDS = [f"w{i}" for i in range(48)]


class Counts:
    """What was asked, and what would be billed."""

    def __init__(self) -> None:
        self.force: str | None = None
        self.bodies: deque[str] = deque(maxlen=1000)
        self.clear()

    def clear(self) -> None:
        self.requests = self.answered = self.cancelled = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.bodies.clear()

    def view(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "answered": self.answered,
            "cancelled": self.cancelled,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "bodies": list(self.bodies),
        }


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        return "".join(p.get("text", "") for p in content)
    return str(content)


def count(messages: list[dict[str, Any]]) -> int:
    """Prompt tokens: a word is a token, and a message costs three more."""
    return sum(len(text_of(m).split()) + 3 for m in messages)


class Upstream(asyncio.Protocol):
    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""
        self.path = b""
        self.task: asyncio.Task[None] | None = None
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.gone.set()
        if self.task is not None and not self.task.done():
            self.counts.cancelled += 1
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_begin(self) -> None:
        self.body, self.path = b"", b""

    def on_url(self, url: bytes) -> None:
        self.path += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.path == b"/seen":
            self.send(200, json.dumps(self.counts.view()).encode())
        elif self.path == b"/reset":
            self.counts.clear()
            self.send(200, b"{}")
        elif self.path == b"/force":
            self.counts.force = json.loads(self.body)["model"]
            self.send(200, b"{}")
        elif self.path == b"/v1/models":
            self.send(200, b'{"object":"list","data":[{"id":"ok","object":"model"}]}')
        else:
            self.complete()

    def complete(self) -> None:
        counts = self.counts
        asked = msgspec.json.decode(self.body)
        counts.requests += 1
        counts.bodies.append(self.body.decode("utf-8", "replace"))
        model = counts.force or asked.get("model", "ok")
        kind, _, number = model.partition("-")
        if kind == "flaky":
            kind = "500" if counts.requests % int(number) == 0 else "ok"
        if kind in ("500", "429", "401", "400"):
            self.send(int(kind), b'{"error":{"message":"as told","type":"mock"}}')
        elif kind == "html":
            self.send(200, b"<html><body>gateway login</body></html>", b"text/html")
        elif kind == "reset":
            self.transport.abort()
        elif kind == "hang":
            self.task = asyncio.ensure_future(asyncio.sleep(3600))
        elif kind in ("slow", "drip") or (kind in ("cut", "badjson") and asked.get("stream")):
            self.task = asyncio.ensure_future(self.slowly(asked, kind, float(number or 0) / 1000))
        elif kind == "cut":
            body = self.json(asked, kind, number)
            self.transport.write(head(200, len(body)) + body[: len(body) // 2])
            self.transport.close()
        elif kind == "badjson":
            body = self.json(asked, kind, number)
            self.send(200, body[: len(body) // 2])
        elif asked.get("stream"):
            self.transport.write(
                stream_head() + b"".join(chunked(e) for e in self.events(asked, kind, number))
                + b"0\r\n\r\n"
            )  # fmt: skip
        else:
            self.send(200, self.json(asked, kind, number))

    async def slowly(self, asked: dict[str, Any], kind: str, seconds: float) -> None:
        if kind == "slow" or not asked.get("stream"):
            await asyncio.sleep(seconds)
        if not asked.get("stream"):
            self.send(200, self.json(asked, kind, ""))
            return
        self.transport.write(stream_head())
        for number, event in enumerate(self.events(asked, kind, "")):
            if number == 20 and kind == "cut":
                self.transport.close()
                return
            if number == 20 and kind == "badjson":
                event = b'data: {"choices":[{"delta":{"con\n\n'
            self.transport.write(chunked(event))
            await asyncio.sleep(seconds if kind == "drip" else 0)
        self.transport.write(b"0\r\n\r\n")

    def reply(self, asked: dict[str, Any], kind: str) -> tuple[list[str], dict[str, Any] | None]:
        """The pieces of the answer, and a tool call."""
        messages = asked.get("messages") or [{"role": "user", "content": asked.get("prompt", "")}]
        last = next((text_of(m) for m in reversed(messages) if m["role"] == "user"), "")
        self.counts.answered += 1
        self.prompt = count(messages)
        self.counts.prompt_tokens += self.prompt
        if kind == "echo":
            return [last], None
        if kind == "tools" and asked.get("tools"):
            name = asked["tools"][0]["function"]["name"]
            call = {"name": name, "arguments": json.dumps({"text": last}, ensure_ascii=False)}
            return [], call
        most = asked.get("max_completion_tokens") or asked.get("max_tokens") or 10_000
        return [w if i == 0 else " " + w for i, w in enumerate(WORDS[:most])], None

    def json(self, asked: dict[str, Any], kind: str, number: str) -> bytes:
        pieces, call = self.reply(asked, kind)
        text = "".join(pieces)
        completion = len(text.split()) if call is None else 10
        self.counts.completion_tokens += completion
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if call is not None:
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": call}]
        choice: dict[str, Any] = {
            "index": 0,
            "message": message,
            "finish_reason": "tool_calls" if call else "stop",
        }
        if asked.get("logprobs"):
            choice["logprobs"] = {"content": [logprob(p) for p in pieces]}
        return msgspec.json.encode({
            "id": "mock-1", "object": "chat.completion", "created": int(time.time()),
            "model": asked.get("model"), "choices": [choice],
            "usage": {
                "prompt_tokens": self.prompt, "completion_tokens": completion,
                "total_tokens": self.prompt + completion,
            },
        })  # fmt: skip

    def events(self, asked: dict[str, Any], kind: str, number: str) -> Iterator[bytes]:
        """Server-sent events: one that opens, one for each piece, one that ends, the usage, DONE."""
        pieces, call = self.reply(asked, kind)
        if kind == "echo" and number:
            data = pieces[0]
            size = int(number)
            pieces = [data[i : i + size] for i in range(0, len(data), size)]
        completion = len("".join(pieces).split()) if call is None else 10
        self.counts.completion_tokens += completion
        base = {
            "id": "mock-1", "object": "chat.completion.chunk", "created": int(time.time()),
            "model": asked.get("model"),
        }  # fmt: skip

        def event(delta: dict[str, Any], reason: str | None = None, piece: str = "") -> bytes:
            choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": reason}
            if piece and asked.get("logprobs"):
                choice["logprobs"] = {"content": [logprob(piece)]}
            return b"data: " + msgspec.json.encode({**base, "choices": [choice]}) + b"\n\n"

        yield event({"role": "assistant", "content": ""})
        for piece in pieces:
            yield event({"content": piece}, piece=piece)
        if call is not None:
            opening = {"index": 0, "id": "call_1", "type": "function"}
            yield event(
                {"tool_calls": [{**opening, "function": {"name": call["name"], "arguments": ""}}]}
            )
            for i in range(0, len(call["arguments"]), 5):
                part = {"arguments": call["arguments"][i : i + 5]}
                yield event({"tool_calls": [{"index": 0, "function": part}]})
        yield event({}, "tool_calls" if call else "stop")
        if (asked.get("stream_options") or {}).get("include_usage"):
            usage = {
                "prompt_tokens": self.prompt, "completion_tokens": completion,
                "total_tokens": self.prompt + completion,
            }  # fmt: skip
            yield b"data: " + msgspec.json.encode({**base, "choices": [], "usage": usage}) + b"\n\n"
        yield b"data: [DONE]\n\n"

    def send(self, status: int, body: bytes, kind: bytes = b"application/json") -> None:
        if not self.transport.is_closing():
            self.transport.write(head(status, len(body), kind) + body)


def logprob(piece: str) -> dict[str, Any]:
    return {
        "token": piece,
        "logprob": -0.1,
        "bytes": None,
        "top_logprobs": [{"token": piece, "logprob": -0.1, "bytes": None}],
    }


def head(status: int, length: int, kind: bytes = b"application/json") -> bytes:
    return (
        f"HTTP/1.1 {status} X\r\ncontent-length: {length}\r\ncontent-type: ".encode()
        + kind
        + b"\r\n\r\n"
    )


def stream_head() -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )


def chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def serve(port: int) -> None:
    counts = Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(counts), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A mock OpenAI-compatible upstream on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0: any; the port is printed")
    arguments = parser.parse_args()
    with contextlib.suppress(ImportError, KeyboardInterrupt):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.port))
