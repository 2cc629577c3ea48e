"""An OpenAI-compatible server that says, byte by byte, what a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cosilo.errors import CosiloError
from cosilo.models.remote.openai_compatible import OpenAIModel
from cosilo.types import Delta, Generation, Sampling, user

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


def apart(*pieces: bytes) -> list[Any]:
    """`pieces`, so that whoever reads them gets each by itself: two turns of the loop lie between."""
    return [step for piece in pieces for step in (piece, 0.0, 0.0)]


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
