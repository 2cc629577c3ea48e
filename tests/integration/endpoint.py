"""An OpenAI-compatible endpoint that answers by rule, counts every call, and fails when told to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Endpoint:
    """Attributes:
    url: what a plan names.
    calls: how often each question was answered.
    fail: called with the number of calls so far; a status to answer with instead, or None.
    slow: seconds an answer takes.
    usage: what each answer claims to have used.
    """

    url: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    fail: Callable[[int], int | None] = lambda _: None
    slow: float = 0.0
    bodies: list[bytes] = field(default_factory=list)
    usage: object = field(
        default_factory=lambda: {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}
    )

    @property
    def total(self) -> int:
        return sum(self.calls.values())

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self.fail(self.total)
        if status is not None:
            return web.json_response({"error": {"message": "told to fail"}}, status=status)
        self.bodies.append(body)
        question = json.loads(body)["messages"][-1]["content"]
        self.calls[question] += 1
        if self.slow:
            await asyncio.sleep(self.slow)
        text = next((label for label in ("cat", "dog", "cow") if label in question), "cat")
        return web.json_response(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "rule",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": text},
                    }
                ],
                "usage": self.usage,
            }
        )


@contextmanager
def serving() -> Iterator[Endpoint]:
    """An endpoint on a free port of this machine, in a thread of its own."""
    endpoint = Endpoint()
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", endpoint.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        endpoint.url = f"http://127.0.0.1:{port}/v1"
        return runner

    runner = loop.run_until_complete(start())

    def run() -> None:
        loop.call_soon(ready.set)
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield endpoint
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()
