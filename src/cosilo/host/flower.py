"""The host behind a SuperLink of Flower's: who asks is whose key the node has that asked.

    owner's SuperNode ──▶ SuperLink ──▶ courier ── a socket of this machine ──▶ ClientService.answer

The SuperLink is a process of its own, started again whenever it ends. It keeps nothing on the disk:
what was under way is asked again under its id, so what a client sent is worked on once all the same.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cosilo.boundary.messages import encode
from cosilo.boundary.transports.agreed import OURS, SPEAKS, is_id
from cosilo.boundary.transports.flower.child import FlowerProcess, free_port
from cosilo.boundary.transports.flower.couriers import frames
from cosilo.boundary.transports.refusals import refusal
from cosilo.errors import ConfigError, CosiloError
from cosilo.host.config import HostConfig
from cosilo.host.work import ClientService, NotServedError

_READY_S = 120.0
_AGAIN_S = 1.0
_TIMES = 60  # a request is tried while the host has no room for it
_ENDS = 3


@dataclass(frozen=True)
class NodeKey:
    """The key that a client's nodes are known by.

    Attributes:
        pem: of the public key.
        until: the end of the time of the client's certificate.
    """

    pem: str
    until: datetime


class SuperLink:
    """A SuperLink that carries requests to `services`, by the client's name."""

    def __init__(self, config: HostConfig, services: Mapping[str, ClientService]) -> None:
        self._config = config
        self._services = services
        self._keys: Mapping[str, NodeKey] = node_keys(config)
        self._folder: Path | None = None
        self._ready = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._process: FlowerProcess | None = None

    async def open(self) -> int:
        """The port at which nodes reach it, once they do.

        Raises:
            CosiloError: it does not run.
        """
        port = self._config.listen.port or free_port()
        self._folder = folder = Path(tempfile.mkdtemp(prefix="cosilo-"))
        place = str(folder / "host")
        self._server = await asyncio.start_unix_server(self._exchange, place)
        flower = self._config.flower
        assert flower is not None
        given = {
            "host": self._config.listen.host,
            "port": port,
            "ca": str(self._config.tls.ca),
            "cert": str(self._config.tls.cert),
            "key": str(self._config.tls.key),
            "socket": place,
        }
        self._process = process = FlowerProcess(
            "superlink",
            lambda: {**given, "owners": [key.pem for key in self._keys.values()]},
            folder=folder,
            python=str(flower.python or ""),
        )
        loop = asyncio.get_running_loop()
        end = loop.time() + _READY_S
        while not self._ready.is_set():
            try:
                async with asyncio.timeout(1.0):
                    await self._ready.wait()
            except TimeoutError:
                if process.ends >= _ENDS or loop.time() > end:
                    await self.close()
                    raise CosiloError(f"the SuperLink does not run: {process.last}") from None
        return port

    def serve(self, keys: Mapping[str, NodeKey], services: Mapping[str, ClientService]) -> None:
        """Take other clients, with these keys, from now on."""
        other = {k.pem for k in keys.values()} != {k.pem for k in self._keys.values()}
        self._services, self._keys = services, keys
        if other and self._process is not None:
            self._process.again()  # it knows the keys that it began with

    async def close(self) -> None:
        """End it; calling it twice is harmless."""
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(process.stop)
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            words, body = await frames.read(reader)
            if "ready" in words:
                self._ready.set()
                answered = frames.packed({})
            else:
                answered = frames.packed(*await self._answered(words, body))
            writer.write(answered)
            await writer.drain()
        except (OSError, ValueError):
            pass  # the courier is gone: another one asks again
        finally:
            writer.close()

    async def _answered(self, words: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
        """What goes back: the id that was asked by, and the answer, or why there is none."""
        name = words.get("id", "")
        said = {"id": name, "speaks": OURS.header}
        try:
            service = self._service(words.get("owner", ""))
            if words.get("speaks") != OURS.header:
                return said, b""  # what it speaks itself is told, and then it is refused there
            if not is_id(name):
                raise NotServedError(400, f"{SPEAKS}: an id must be 32 hexadecimal digits")
            if len(body) > self._config.listen.max_body_bytes:
                raise NotServedError(413, f"{len(body)} bytes are more than a request may have")
            return said, await self._patiently(service, name, body)
        except NotServedError as error:
            return {**said, "failed": str(error)}, b""
        except CosiloError as error:
            return said, encode(refusal(error))
        except Exception as error:  # only its class: the text may quote what it failed on
            return {**said, "failed": type(error).__name__}, b""

    async def _patiently(self, service: ClientService, name: str, body: bytes) -> bytes:
        for _ in range(_TIMES):
            try:
                return await service.answer(name, body)
            except NotServedError as error:
                if error.status != 503:
                    raise
            await asyncio.sleep(_AGAIN_S)
        raise NotServedError(503, "there is no room for this request")

    def _service(self, owner: str) -> ClientService:
        client = next((name for name, key in self._keys.items() if key.pem == owner), "")
        service = self._services.get(client)
        if service is None:
            raise NotServedError(403, "this host knows no client of that key")
        if self._keys[client].until <= datetime.now(UTC):
            raise NotServedError(403, "the client's certificate is over")
        return service


def node_keys(config: HostConfig) -> dict[str, NodeKey]:
    """The keys of the clients, where Flower carries what they ask.

    Raises:
        ConfigError: a client's certificate cannot be read, is another's, or two have one key.
    """
    assert config.flower is not None
    found: dict[str, NodeKey] = {}
    for name in config.clients:
        found[name] = _key(config.flower.certificates / f"client-{name}.pem", name)
    if len({key.pem for key in found.values()}) < len(found):
        raise ConfigError("two clients have one key, so neither could be told from the other")
    return found


def _key(path: Path, name: str) -> NodeKey:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        certificate: Any = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"[flower]: a node is known by its client's certificate, and {str(path)!r} cannot be "
            f"read: {error.strerror}"
        ) from None
    except ValueError:
        raise ConfigError(f"{str(path)!r} holds no certificate, in PEM") from None
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    if f"cosilo:client:{name}" not in uris:
        raise ConfigError(f"{str(path)!r} is a certificate of somebody else than client {name!r}")
    public = certificate.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return NodeKey(public.decode(), certificate.not_valid_after_utc)
