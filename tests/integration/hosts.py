"""Hosts with certificates of a trial: in this process, to look into them, or in their own."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.integration.gateway import MAIN, Process

from cosilo.boundary.transports.http import Https
from cosilo.host.certificates import make_certificates
from cosilo.host.config import load_host
from cosilo.host.process import Listener, listening
from cosilo.models.base import TextModel

CLIENT = "clinic"

FILE = """\
name = "lm-owner"
[model]
{model}
[listen]
port = {port}
{listen}
[tls]
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
[clients.{client}]
{clients}
"""
SCRIPTED = 'kind = "scripted"\nusd_per_m_in = 1.0\nusd_per_m_out = 2.0'


def write_host(
    folder: Path, *, model: str = SCRIPTED, clients: str = "", listen: str = "", port: int = 0
) -> Path:
    """lm.toml in `folder`, with certificates for a host called localhost and the client `CLIENT`."""
    if not (folder / "certs").exists():
        make_certificates(folder / "certs", hosts=["localhost"], clients=[CLIENT, "other"])
    path = folder / "lm.toml"
    path.write_text(
        FILE.format(model=model, clients=clients, listen=listen, port=port, client=CLIENT)
    )
    return path


def the_way(
    folder: Path, port: int, *, client: str = CLIENT, patience_s: float = 20.0, **options: Any
) -> Https:
    """The way of `client` to the host on `port`."""
    certs = folder / "certs"
    files = {
        "ca": certs / "ca.pem",
        "cert": certs / f"client-{client}.pem",
        "key": certs / f"client-{client}.key",
    }
    return Https(f"https://localhost:{port}", **{**files, **options}, patience_s=patience_s)


Asking = Callable[..., Https]
"""`the_way` from the test's folder, closed when the test ends."""


@asynccontextmanager
async def a_host(path: Path, model: TextModel) -> AsyncIterator[Listener]:
    """The host that `path` describes, in this process, with `model` in place of its own."""
    async with listening(load_host(path), model) as host:
        yield host


class HostProcess:
    """`cosilo host` in a process of its own."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", MAIN, "host", str(path)]
        self.process = Process(command, cwd=path.parent)
        self.port = int(self.process.wait_for(r"at https://[^:]+:(\d+)", seconds=60).group(1))

    def kill(self) -> None:
        self.process.stop(signal.SIGKILL)

    def stop(self) -> int:
        return self.process.stop()


@contextmanager
def host_process(path: Path) -> Iterator[HostProcess]:
    host = HostProcess(path)
    try:
        yield host
    finally:
        host.kill()
