"""Who asks over Flower, and what they are told: without Flower."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cosilo.boundary.messages import Refused, decode
from cosilo.boundary.transports.agreed import OURS
from cosilo.errors import ConfigError, StoreError
from cosilo.host import flower
from cosilo.host.certificates import make_certificates
from cosilo.host.config import HostConfig, load_host
from cosilo.host.work import NotServedError

FILE = """\
[tls]
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
[flower]
certificates = "certs"
[federation]
rounds = 1
[clients.bank]
[clients.town]
"""
ID = "a" * 32


@pytest.fixture
def config(tmp_path: Path) -> HostConfig:
    make_certificates(tmp_path / "certs", hosts=["localhost"], clients=["bank", "town"])
    path = tmp_path / "federation.toml"
    path.write_text(FILE)
    return load_host(path)


class Service:
    """Says what it is told to."""

    def __init__(self, *says: bytes | Exception) -> None:
        self.says = list(says)

    async def answer(self, name: str, payload: bytes) -> bytes:
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        return said + payload


def superlink(config: HostConfig, **services: Any) -> flower.SuperLink:
    return flower.SuperLink(config, services)


def asked(link: flower.SuperLink, who: str, **words: str) -> dict[str, str]:
    return {"owner": link._keys[who].pem, "id": ID, "speaks": OURS.header} | words


async def test_who_asks_is_whose_key_it_is(
    config: HostConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower, "_AGAIN_S", 0.0)
    full = NotServedError(503, "too many")
    link = superlink(config, bank=Service(full, b"bank "), town=Service(b"town "))
    said = {"id": ID, "speaks": OURS.header}
    assert await link._answered(asked(link, "town"), b"x") == (said, b"town x")
    assert await link._answered(asked(link, "bank"), b"x") == (said, b"bank x")
    await link.close()


async def test_what_is_not_answered_is_told(config: HostConfig) -> None:
    broken = Service(StoreError("no room"), RuntimeError("private"), NotServedError(410, "gone"))
    link = superlink(config, bank=broken)

    async def told(**words: str) -> str:
        said, body = await link._answered(asked(link, "bank", **words), b"x")
        assert not body
        return said["failed"]

    assert "no client of that key" in await told(owner="another")
    assert "no client of that key" in await told(owner=link._keys["town"].pem)
    assert "32 hexadecimal digits" in await told(id="x")
    said, body = await link._answered(asked(link, "bank"), b"x")
    assert "failed" not in said
    refused = decode(body)
    assert isinstance(refused, Refused)
    assert refused.kind == "StoreError"
    assert await told() == "RuntimeError"
    assert await told() == "gone"
    said, body = await link._answered(asked(link, "bank", speaks="9.9"), b"x")
    assert (said["speaks"], body) == (OURS.header, b"")
    key = link._keys["bank"]
    over = flower.NodeKey(key.pem, key.until - timedelta(days=400))
    link.serve({"bank": over}, {"bank": broken})
    assert "is over" in await told()
    await link.close()


def test_certificates_that_cannot_be_used_are_named(config: HostConfig) -> None:
    assert config.flower is not None
    folder = config.flower.certificates
    bank, town = (folder / f"client-{name}.pem" for name in ("bank", "town"))
    kept = bank.read_bytes()
    bank.write_bytes(town.read_bytes())
    with pytest.raises(ConfigError, match="somebody else than client 'bank'"):
        superlink(config)
    bank.write_bytes(certificate_without_names())
    with pytest.raises(ConfigError, match="somebody else than client 'bank'"):
        superlink(config)
    bank.write_text("no certificate")
    with pytest.raises(ConfigError, match="holds no certificate"):
        superlink(config)
    bank.unlink()
    with pytest.raises(ConfigError, match="known by its client's certificate"):
        superlink(config)
    bank.write_bytes(kept)
    superlink(config)


def certificate_without_names() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def test_a_new_client_has_the_superlink_begin_anew(config: HostConfig) -> None:
    class Process:
        begun = 0

        def again(self) -> None:
            self.begun += 1

        def stop(self) -> None: ...

    link, process = superlink(config, bank=Service()), Process()
    link._process = process  # type: ignore[assignment]
    keys = dict(link._keys)
    link.serve(keys, {"bank": Service(b"new ")})
    assert process.begun == 0
    assert (await link._answered(asked(link, "bank"), b"x"))[1] == b"new x"
    link.serve({"bank": keys["bank"]}, {"bank": Service()})
    assert process.begun == 1
    await link.close()
