"""An application served over HTTP on this machine, in this process, as `cosilo serve` serves it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import uvicorn

from cosilo.gateway.process.config import ServerConfig
from cosilo.gateway.process.server import bind, http_config
from cosilo.gateway.web.http import App


@contextlib.asynccontextmanager
async def listening(app: App, server: ServerConfig | None = None) -> AsyncIterator[int]:
    """Serve `app` until the block is left; the port."""
    config = http_config(app, server or ServerConfig(drain_seconds=1.0))
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    listener = bind("127.0.0.1", 0)

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self):  # type: ignore[no-untyped-def]
            yield  # the test runner's own stay

        async def startup(self, sockets=None):  # type: ignore[no-untyped-def]
            await super().startup(sockets)
            ready.set()

    ready = asyncio.Event()
    running = Server(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    try:
        await ready.wait()
        yield listener.getsockname()[1]
    finally:
        running.should_exit = True
        await task
