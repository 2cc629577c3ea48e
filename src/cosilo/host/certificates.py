"""A small certificate authority for a trial: who the host is, and who its clients are.

DIR/ca.pem, ca.key                       the authority; both sides trust ca.pem
DIR/host-NAME.pem, host-NAME.key         for the host at the DNS name or address NAME
DIR/client-NAME.pem, client-NAME.key     for the data owner NAME: what the host calls it

A certificate serves one purpose: a host's cannot ask, and a client's cannot answer.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cosilo.errors import ConfigError

Role = Literal["host", "client"]

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
"""What a client may be called: it names a file and a table of the host's configuration."""

_PURPOSE = {"host": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
_HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Signed:
    """A certificate and the key that belongs to it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def make_certificates(
    folder: Path, *, hosts: Sequence[str], clients: Sequence[str], days: int = 365
) -> list[Path]:
    """Certificates for `hosts` and `clients` in `folder`, signed by the authority there, which is made
    where there is none. Returns the files that were written; keys are their owner's alone to read.

    Raises:
        ConfigError: a name that cannot stand in a certificate, a file that is there already (none is
            written then), or a folder that cannot be written.
    """
    if not 1 <= days <= 3650:
        raise ConfigError(f"{days} days are not between 1 and 3650")
    wanted: list[tuple[Role, str]] = [("host", name) for name in dict.fromkeys(hosts)]
    wanted += [("client", name) for name in dict.fromkeys(clients)]
    for role, name in wanted:
        _check(role, name)
        for path in _paths(folder, f"{role}-{name}"):
            if path.exists():
                raise ConfigError(f"{str(path)!r} is there already; nothing is overwritten")
    written: list[Path] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / "ca.pem").exists():
            authority = _read(folder)
        else:
            authority = new_authority(days=days)
            written += _write(folder, "ca", authority)
        for role, name in wanted:
            written += _write(folder, f"{role}-{name}", issue(authority, role, name, days=days))
    except OSError as error:
        raise ConfigError(f"cannot write to {str(folder)!r}: {error.strerror}") from None
    return written


def new_authority(*, days: int = 365) -> Signed:
    """An authority of its own, whom nobody trusts yet."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cosilo trial authority")])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        _builder(name, name, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Signed(made, key)


def issue(
    authority: Signed, role: Role, name: str, *, days: int = 365, since: datetime | None = None
) -> Signed:
    """A certificate for `name`, good for `days` from `since` on (now, when unset)."""
    key = ec.generate_private_key(ec.SECP256R1())
    since = since or datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = authority.certificate
    made = (
        _builder(subject, signer.subject, key.public_key(), since, since + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_PURPOSE[role]]), critical=True)
        .add_extension(x509.SubjectAlternativeName(_names(role, name)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return Signed(made, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    since: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since - timedelta(minutes=5))  # the other side's clock may be behind
        .not_valid_after(until)
    )


def _names(role: Role, name: str) -> list[x509.GeneralName]:
    if role == "client":
        return [x509.UniformResourceIdentifier(f"cosilo:client:{name}")]
    return [_host_name(known) for known in (_HERE if name in _HERE else (name,))]


def _host_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _check(role: Role, name: str) -> None:
    if role == "host" and _is_address(name):
        return
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a {role}: letters, digits, '.', '_' and '-', at most 64 of them"
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _paths(folder: Path, stem: str) -> tuple[Path, Path]:
    stem = stem.replace(":", "_")  # of an IPv6 address
    return folder / f"{stem}.pem", folder / f"{stem}.key"


def _write(folder: Path, stem: str, signed: Signed) -> list[Path]:
    certificate, key = _paths(folder, stem)
    _new_file(key, signed.key_pem, 0o600)
    _new_file(certificate, signed.pem, 0o644)
    return [certificate, key]


def _new_file(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def _read(folder: Path) -> Signed:
    certificate, key = _paths(folder, "ca")
    try:
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        known = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"the authority in {str(folder)!r} cannot be used ({type(error).__name__}): ca.pem and "
            "ca.key are needed"
        ) from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{str(key)!r} is no key that `cosilo host certs` made")
    return Signed(known, loaded)
