"""Federations that Flower carries: where it is installed, a coordinator's file, and owners' ways."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cosilo.boundary.transports.flower.owner import OverFlower
from cosilo.host.certificates import make_certificates
from cosilo.parties.remote import RemoteOwner

OWNERS = ("bank", "clinic", "town")

FILE = """\
name = "coordinator"
[listen]
host = "127.0.0.1"
port = {port}
[tls]
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
[flower]
certificates = "certs"
python = "{python}"
[federation]
rounds = {rounds}
rank = 2
{federation}
"""


@cache
def python() -> str:
    """The Python that has Flower: COSILO_FLOWER_PYTHON, or this one. The test is skipped without."""
    named = os.environ.get("COSILO_FLOWER_PYTHON", "")
    if named:
        subprocess.run([named, "-I", "-c", "import flwr"], check=True)
        return named
    if find_spec("flwr") is None:
        pytest.skip(
            "Flower is not installed: `make flower` runs this in an environment that has it"
        )
    return sys.executable


def coordinator(folder: Path, *, rounds: int = 2, port: int = 0, federation: str = "") -> Path:
    """federation.toml in `folder`, with certificates for a host called localhost and the owners."""
    make_certificates(folder / "certs", hosts=["localhost"], clients=[*OWNERS, "stranger"])
    path = folder / "federation.toml"
    text = FILE.format(port=port, rounds=rounds, python=python(), federation=federation)
    path.write_text(text + "".join(f"[clients.{owner}]\n" for owner in OWNERS))
    return path


def way(folder: Path, port: int, owner: str, **options: Any) -> OverFlower:
    """The way of `owner` to the coordinator's SuperLink on `port`."""
    certs = folder / "certs"
    given: dict[str, Any] = {"ca": certs / "ca.pem", "key": certs / f"client-{owner}.key"}
    return OverFlower(f"localhost:{port}", python=python(), **given | options)


def party(way: OverFlower) -> RemoteOwner:
    return RemoteOwner(way, "coordinator", "flower")
