"""One worker: opens its points, serves them, reads its configuration again when told to.

SIGHUP            read the configuration again; requests under way finish on the one before
SIGTERM, SIGINT   take no new requests, let those under way finish (drain_seconds), stop; a second
                  SIGINT (Ctrl-C) ends at once
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import mmap
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from cosilo import interrupts
from cosilo.errors import CosiloError, StoreError
from cosilo.gateway.accounts.accounts import AccountStore
from cosilo.gateway.metrics import Metrics
from cosilo.gateway.process.config import Layout, ServerConfig, StoreConfig, store_url
from cosilo.gateway.process.preparing import Preparer, prepared
from cosilo.gateway.process.protocol import ClientPatience, protocol
from cosilo.gateway.record.retention import read_vault
from cosilo.gateway.record.store import open_store
from cosilo.gateway.record.store_records import GatewayStore
from cosilo.gateway.serving.exchange import Setup
from cosilo.gateway.serving.files.reader import FileReader
from cosilo.gateway.serving.points import ServedPoint, open_recipe
from cosilo.gateway.serving.tabs import Tab
from cosilo.gateway.web.api import Gateway
from cosilo.gateway.web.cors import CrossOrigin
from cosilo.gateway.web.http import App, Bodies

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger("cosilo.gateway")

Load = Callable[[], Layout]
MakePage = Callable[[Gateway], App]


async def open_layout_store(layout: Layout) -> GatewayStore:
    """The store that `layout` names, with a place in it for this worker.

    Raises:
        ConfigError: it cannot be that store, or its keys are missing.
        StoreError: it cannot be read or written.
    """
    config = layout.store
    return await open_store(
        store_url(layout),
        secret=layout.base / config.secret if config.secret else None,
        keep=config.keep,
        vault=read_vault(layout.base / config.content_keys) if config.content_keys else None,
    )


async def open_setup(layout: Layout, store: AccountStore, tabs: dict[str, Tab]) -> Setup:
    """Every upstream and point of `layout`, opened and prepared.

    Raises:
        ConfigError, CatalogError, CapabilityError: the layout cannot work.
        ModelError: a model failed while a strategy was being prepared.
    """
    parts = await interrupts.in_thread(layout.load)
    upstreams = parts.upstreams
    points: dict[str, ServedPoint] = {}
    try:
        for recipe in parts.recipes:
            point = await open_recipe(
                recipe,
                upstreams,
                tabs=tabs,
                ledger=store.ledger(recipe.name),
                beside=partial(store.ledger, recipe.name),
            )
            points[point.model] = point
    except BaseException:
        await Setup(points, upstreams).close()
        raise
    return Setup(points, upstreams)


async def work(
    load: Load,
    listener: socket.socket,
    *,
    memory: mmap.mmap | None = None,
    worker: int = 0,
    page: MakePage | None = None,
    preparer: Preparer | None = None,
    adopted: Callable[[], None] | None = None,
) -> None:
    """Serve until told to stop.

    Args:
        load: reads the configuration; called again on SIGHUP.
        listener: bound; shared with the other workers.
        memory: where the workers count, `metrics.REGION` bytes for each.
        page: makes what is served under `/ui`.
        preparer: prepares the points of a configuration that is read again in another process; without
            one they are prepared in this.
        adopted: is told when a configuration that was read again is in use.

    Raises:
        CosiloError: it could not start.
    """
    import uvicorn

    # It logs tracebacks, which may quote, and a line for each request that is no HTTP.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    layout = load()
    tabs: dict[str, Tab] = {}
    store = await open_layout_store(layout)
    try:
        setup = await open_setup(layout, store, tabs)
        server = layout.server
        gateway = Gateway(
            setup,
            store,
            metrics=Metrics(memory, worker),
            bodies=Bodies(server.max_body_bytes, server.held_body_bytes, server.body_seconds),
            tabs=tabs,
            most_at_once=server.most_at_once,
            access_log=server.access_log,
            cors=server.origins,
            reader=FileReader(pages=server.file_pages, seconds=server.file_seconds, ocr=server.ocr),
        )
        if page is not None:
            gateway.ui = page(gateway)

        class Server(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                # uvicorn would raise the signal again once it has stopped, before we have.
                yield

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                _ready(layout, setup, listener, worker)

        uvicorn_server = Server(http_config(gateway, server))
        reloads = _Reloads(load, gateway, preparer, adopted)
        loop = asyncio.get_running_loop()

        def stop(signum: int) -> None:
            gateway.draining = True
            uvicorn_server.handle_exit(signum, None)

        loop.add_signal_handler(signal.SIGTERM, stop, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGHUP, reloads.ask)
        # What is there now stays: leave it out of every later collection, and look for garbage less
        # often, as requests leave hardly any cycles behind.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        forgetting = loop.create_task(_forget(store, layout.store))
        with interrupts.stopping(lambda: loop.call_soon_threadsafe(stop, signal.SIGINT)):
            await uvicorn_server.serve(sockets=[listener])
        forgetting.cancel()
        await asyncio.gather(forgetting, return_exceptions=True)
        await reloads.close()
        await gateway.close()
    finally:
        await store.close()


def http_config(app: App, server: ServerConfig) -> uvicorn.Config:
    """How `app` is served over HTTP/1.1."""
    import uvicorn

    return uvicorn.Config(
        app,
        http=protocol(ClientPatience(server.header_seconds, server.write_seconds)),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=1024,
        timeout_keep_alive=max(1, round(server.keep_alive_seconds)),
        timeout_graceful_shutdown=max(1, round(server.drain_seconds)),
    )


async def _forget(store: GatewayStore, config: StoreConfig) -> None:
    """Once an hour, delete contents and finished requests that are older than the configuration
    keeps them.
    """
    while config.retention_days is not None or config.requests_days is not None:
        now = time.time()
        try:
            if config.retention_days is not None:
                await store.purge(before=now - config.retention_days * 86400)
            if config.requests_days is not None:
                await store.forget_requests(before=now - config.requests_days * 86400)
        except StoreError as error:
            log.error("what is too old could not be forgotten: %s", error)
        await asyncio.sleep(3600)


class _Reloads:
    """Reads the configuration again, one reading at a time; the last one asked for counts."""

    def __init__(
        self,
        load: Load,
        gateway: Gateway,
        preparer: Preparer | None = None,
        adopted: Callable[[], None] | None = None,
    ) -> None:
        self._load = load
        self._gateway = gateway
        self._preparer = preparer
        self._adopted = adopted
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def ask(self) -> None:
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.get_running_loop().create_task(self._reload())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _opened(self) -> tuple[Layout, Setup]:
        """The configuration as it is now, and what it describes, opened."""
        gateway, preparer = self._gateway, self._preparer
        if preparer is None:
            layout = await interrupts.in_thread(self._load)
            return layout, await open_setup(layout, gateway.store, gateway.tabs)
        await interrupts.in_thread(
            self._load
        )  # what is wrong with it shows before a process is begun
        folder = await prepared(preparer)
        try:
            layout = await interrupts.in_thread(lambda: preparer.layout(folder))
            setup = await open_setup(layout, gateway.store, gateway.tabs)
            setup.folder = folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return layout, setup

    async def _reload(self) -> None:
        while True:
            self._again = False
            result = "failed"
            gateway = self._gateway
            try:
                layout, setup = await self._opened()
                await gateway.adopt(setup)
                gateway.bodies.largest = layout.server.max_body_bytes
                gateway.bodies.together = layout.server.held_body_bytes
                gateway.bodies.seconds = layout.server.body_seconds
                gateway.most_at_once = layout.server.most_at_once
                gateway.access_log = layout.server.access_log
                gateway.cors = CrossOrigin(layout.server.origins)
                result = "done"
                log.warning("configuration read again: %d points", len(setup.points))
                if self._adopted is not None:
                    await interrupts.in_thread(self._adopted)
            except CosiloError as error:
                log.error("configuration not taken, the one before stays: %s", error.logged)
            except Exception as error:
                # Whatever a part raises on opening; only its class, as its text may quote.
                what = type(error).__name__
                log.error("configuration not taken, the one before stays: %s", what)
            gateway.metrics.add("cosilo_reloads_total", result=result)
            if not self._again:
                return


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port`, on which nothing listens yet.

    Raises:
        CosiloError: it is in use or not ours.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = found[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise CosiloError(f"cannot listen on {host!r} port {port}: {error.strerror}") from None
    listener.set_inheritable(True)
    return listener


def _ready(layout: Layout, setup: Setup, listener: socket.socket, worker: int) -> None:
    host, port = listener.getsockname()[:2]
    names = ", ".join(setup.points)
    # In one write: several workers share the line.
    text = f"cosilo: worker {worker} serves {names} at http://{host}:{port}/v1\n"
    os.write(2, text.encode())
