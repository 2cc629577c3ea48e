"""One process that serves an LM owner until it is told to stop.

SIGHUP            read the clients and their limits again, and the host's certificate
SIGTERM, SIGINT   take no new requests, let those under way finish (drain_seconds), stop
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from aiohttp import web

from cosilo import interrupts
from cosilo.boundary.record.signed import SigningKey
from cosilo.boundary.transports import tls
from cosilo.engines.spu.run import Deadlines
from cosilo.errors import CosiloError
from cosilo.host.books import HostBooks
from cosilo.host.config import HostConfig, HostedJoint
from cosilo.host.flower import SuperLink, node_keys
from cosilo.host.forgets import ClientForgets
from cosilo.host.server import HostServer, hello_of
from cosilo.host.work import ClientService
from cosilo.models.base import TextModel
from cosilo.models.mutual import exchanges, is_taught
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.kind import NoModel
from cosilo.parties.joint import JointRuns
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.network import JointNetwork
from cosilo.parties.threads import Threads
from cosilo.session import bodies_of, make_model

log = logging.getLogger("cosilo.host")

_HANDSHAKE_S = 10.0


async def serve(load: Callable[[], HostConfig]) -> None:
    """Serve what `load` reads until told to stop; on SIGHUP it is called again.

    Raises:
        CosiloError: it could not start.
    """
    config = load()
    stopped = asyncio.Event()
    model = make_model(config.model) if config.model is not None else NoModel()
    async with listening(config, model) as host:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: host.read_again(load))
        # What is there now stays: it is left out of every later look for garbage, of which requests
        # leave hardly any.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        names = ", ".join(config.clients)
        os.write(2, f"cosilo: {config.name} serves {names} at {host.url}\n".encode())
        with interrupts.stopping(lambda: loop.call_soon_threadsafe(stopped.set)):
            await stopped.wait()


class Listener:
    """A host that listens.

    Attributes:
        port: where.
        services: what each client is served.
    """

    def __init__(
        self,
        config: HostConfig,
        model: TextModel,
        books: HostBooks,
        federation: Federation | None = None,
    ) -> None:
        self._config = config
        self._model = model
        self._federation = federation
        self._books = books
        self._threads = Threads()
        self._bodies = bodies_of(model, config.model.body if config.model else None)
        self._context = tls.answering(config.tls.ca, config.tls.cert, config.tls.key)
        self._joint = _joint_runs(config.joint)
        self._key = SigningKey.read(config.tls.cert, config.tls.key)
        self._forgets: dict[str, ClientForgets] = {}
        self.services = {name: self._service(config, name) for name in config.clients}
        hello = hello_of(config.name, model.name)
        self._server = HostServer(dict(self.services), hello, config.listen)
        self._runner = web.ServerRunner(self._server, handle_signals=False, shutdown_timeout=0)
        self._sockets: asyncio.Server | None = None
        self._superlink: SuperLink | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://{self._config.listen.host}:{self.port}"

    async def open(self) -> None:
        """Listen.

        Raises:
            CosiloError: the address is in use or not ours, or Flower does not run.
        """
        if self._config.flower is not None:
            self._superlink = SuperLink(self._config, self._server.services)
            self.port = await self._superlink.open()
            return
        await self._runner.setup()
        listener = _bind(self._config.listen.host, self._config.listen.port)
        self.port = listener.getsockname()[1]
        self._sockets = await asyncio.get_running_loop().create_server(
            self._server,
            sock=listener,
            ssl=self._context,
            backlog=1024,
            ssl_handshake_timeout=_HANDSHAKE_S,
        )

    def read_again(self, load: Callable[[], HostConfig]) -> None:
        """Take the clients, their limits and the host's certificate from what `load` reads; where that
        fails, all stays as it is.
        """
        try:
            new = load()
            made = {
                name: self._service(new, name) for name in new.clients if name not in self.services
            }
            self._context.load_cert_chain(new.tls.cert, new.tls.key)
            keys = node_keys(replace(new, flower=self._config.flower)) if self._superlink else {}
            self._key = SigningKey.read(new.tls.cert, new.tls.key)
        except (CosiloError, OSError) as error:
            log.error("configuration not taken, the one before stays: %s", error)
            return
        self.services.update(made)
        for forgets in self._forgets.values():
            forgets.key = self._key
        for name, client in new.clients.items():
            self.services[name].limit(client.total, client.day)
        self._server.services = {name: self.services[name] for name in new.clients}
        if self._superlink is not None:
            self._superlink.serve(keys, self._server.services)
        log.warning("configuration read again: %d clients", len(new.clients))

    async def close(self) -> None:
        """Take no more requests, and let those under way finish for `drain_seconds`."""
        self._server.stopping = True
        if self._federation is not None:
            self._federation.stop()  # who is held until something happens is told to ask again
        if self._sockets is not None:
            self._sockets.close()
        if self._superlink is not None:
            await self._superlink.close()
        patience = self._config.listen.drain_seconds
        await asyncio.gather(*(service.finish(patience) for service in self.services.values()))
        await self._runner.cleanup()
        await self._joint.close()
        for service in self.services.values():
            service.close()

    def _service(self, config: HostConfig, name: str) -> ClientService:
        client, exposes = config.clients[name], config.exposes(name)
        books = self._books.of(name, client.total, client.day)
        sent_on = bool(getattr(self._model, "place", ""))
        forgets = ClientForgets(books, config.forget, self._key, sent_on=sent_on)
        self._forgets[name] = forgets
        return ClientService(
            books,
            # An owner of its own, so that nothing one client has begun is another's to go on with.
            LMOwner(
                self._model,
                exposes,
                config.name,
                client=name,
                federation=self._federation,
                threads=self._threads,
                bodies=self._bodies,
                joint=self._joint,
                forgets=forgets,
            ),
            exposes=exposes,
            price=config.price,
            at_once=client.at_once,
            linger_s=config.listen.linger_seconds,
        )


def _joint_runs(joint: HostedJoint | None) -> JointRuns:
    if joint is None:
        return JointRuns(trials=False)
    network = JointNetwork.load(joint.network)
    return JointRuns(
        network,
        each=joint.each,
        most=joint.most,
        idle_s=joint.idle_s,
        deadlines=Deadlines(step_s=joint.step_s, silent_s=joint.silent_s),
    )


@asynccontextmanager
async def listening(config: HostConfig, model: TextModel) -> AsyncIterator[Listener]:
    """A host that serves `model` as `config` says, and closes it in the end.

    Raises:
        CosiloError: the files, the books or the address cannot be used.
    """
    try:
        books = HostBooks(config.books, keep=config.keep, kept=config.answers)
        try:
            federation = None
            if (wanted := config.federation) is not None:
                mutual = model if exchanges(model) or is_taught(model) else None
                federation = Federation(wanted.settings, wanted.file, mutual=mutual)
            try:
                host = Listener(config, model, books, federation)
                try:
                    await host.open()
                    yield host
                finally:
                    await host.close()
            finally:
                if federation is not None:
                    federation.close()
        finally:
            books.close()
    finally:
        await model.close()


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = found[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise CosiloError(f"cannot listen on {host!r} port {port}: {error.strerror}") from None
    return listener
