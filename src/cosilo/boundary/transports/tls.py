"""TLS for both ends: version 1.3, each shows a certificate, and each names the other's authority."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cosilo.errors import ConfigError

_CLIENT = "cosilo:client:"


def asking(ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    """What the data owner connects with: it trusts hosts that `ca` vouches for, by their names.

    Raises:
        ConfigError: a file cannot be read, is no certificate or key, or the certificate's time is over.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, ca, cert, key)


def answering(ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    """What the host listens with: it speaks only to clients that `ca` vouches for.

    Raises:
        ConfigError: as for `asking`.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, ca, cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a session resumed would be one whose certificate nobody looked at
    return context


def _context(side: Any, ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if key.stat().st_mode & 0o077:
            raise ConfigError(f"the key {str(key)!r} can be read by others; chmod 600 it")
        for path in (ca, cert):
            path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {str(error.filename)!r}: {error.strerror}; `cosilo host certs` makes "
            "certificates for a trial"
        ) from None
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise ConfigError(f"{str(ca)!r} holds no certificates of an authority") from None
    try:
        context.load_cert_chain(cert, key)
    except (ssl.SSLError, OSError):
        raise ConfigError(
            f"{str(cert)!r} and {str(key)!r} are no certificate and its key, in PEM"
        ) from None
    _require_in_time(cert)
    return context


def _require_in_time(cert: Path) -> None:
    """Refuse an own certificate whose time is over: the other end would only break the connection off.

    Where no package is there to read it, the other end tells.
    """
    try:
        from cryptography.x509 import load_pem_x509_certificate
    except ImportError:
        return
    found = load_pem_x509_certificate(cert.read_bytes())
    until = found.not_valid_after_utc
    if until.timestamp() <= time.time():
        raise ConfigError(
            f"the time of the certificate {str(cert)!r} was over at {until:%Y-%m-%d %H:%M} UTC; get a "
            "new one from whoever made it"
        )


def client_of(certificate: Mapping[str, Any] | None) -> str:
    """The data owner that a verified certificate names, its URI cosilo:client:NAME before its common
    name; empty where it names none, or more than one."""
    if not certificate:
        return ""
    stated = [
        value.removeprefix(_CLIENT)
        for kind, value in certificate.get("subjectAltName", ())
        if kind == "URI" and value.startswith(_CLIENT)
    ]
    if not stated:
        subject = certificate.get("subject", ())
        stated = [value for part in subject for kind, value in part if kind == "commonName"]
    return stated[0] if len(stated) == 1 else ""


def over(certificate: Mapping[str, Any]) -> bool:
    """Whether the time of a certificate is over, which a connection may outlive."""
    until = certificate.get("notAfter")
    return not isinstance(until, str) or _seconds(until) <= time.time()


@lru_cache(1024)
def _seconds(until: str) -> float:
    return ssl.cert_time_to_seconds(until)
