"""What an owner signs with the key of its certificate, to be shown later.

    sign: Forgotten without its signature ──▶ the key of the host's certificate (TLS answers by it, too)
    require_signed: the same bytes, the certificate that came with it ──▶ an authority that is trusted

Nobody needs a key that is not there already, and to look at an answer takes the authority's certificate
and no network. What is signed begins with a label of its own, as what TLS 1.3 signs does (RFC 8446,
4.4.3), so neither can stand for the other. Needs the package `cryptography`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from cosilo.boundary.messages import Forgotten
from cosilo.errors import ConfigError, UnexpectedReplyError

_LABEL = b"cosilo: an owner says what it forgot, version 1\0"
_LONGEST = 4  # certificates from a host's to its authority's


@dataclass(frozen=True)
class SigningKey:
    """A certificate, those between it and its authority, and its key.

    Attributes:
        chain: the certificates, as DER.
    """

    chain: tuple[bytes, ...]
    key: Any = field(repr=False)

    @classmethod
    def read(cls, cert: Path, key: Path) -> Self:
        """The certificate and the key in two files, in PEM.

        Raises:
            ConfigError: they cannot be read, or the key is one that cannot sign.
        """
        x509 = require_x509()
        from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

        try:
            chain = x509.load_pem_x509_certificates(cert.read_bytes())
            found: Any = load_pem_private_key(key.read_bytes(), password=None)
            _how(found.public_key())
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{str(cert)!r} and {str(key)!r} are no certificate and key to sign with "
                f"({type(error).__name__})"
            ) from None
        return cls(tuple(each.public_bytes(Encoding.DER) for each in chain[:_LONGEST]), found)

    def signed(self, answer: Forgotten) -> Forgotten:
        """`answer` with chain and signature."""
        bare = msgspec.structs.replace(answer, chain=self.chain, signature=b"")
        how = _how(self.key.public_key())
        return msgspec.structs.replace(bare, signature=self.key.sign(_to_sign(bare), *how))


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whose signature counts.

    Attributes:
        ca: certificates of the authority that vouches for the host, in PEM.
        host: the name or address that the host's certificate is for.
    """

    ca: bytes
    host: str

    @classmethod
    def of(cls, url: str, ca: Path, server_name: str = "") -> Self:
        """As a plan's model of kind "party" names them.

        Raises:
            ConfigError: the file cannot be read, or the URL names no host.
        """
        host = server_name or urlsplit(url if "//" in url else f"//{url}").hostname
        if not host:
            raise ConfigError(f"{url!r} names no host")
        try:
            return cls(ca=ca.read_bytes(), host=host)
        except OSError as error:
            raise ConfigError(f"cannot read {str(ca)!r}: {error.strerror}") from None


def require_signed(answer: Forgotten, trust: Trust) -> None:
    """Refuse an answer that the host did not sign, at the time that it states. No network is needed, so
    that it can be done years later.

    Raises:
        UnexpectedReplyError: it is not signed, by another, by a certificate that the authority did not
            vouch for at that time, or was changed since.
        ConfigError: `ca` holds no certificates, or the package for it is missing.
    """
    x509 = require_x509()
    from cryptography.exceptions import InvalidSignature

    try:
        authorities = x509.load_pem_x509_certificates(trust.ca)
    except ValueError:
        raise ConfigError("ca holds no certificates of an authority, in PEM") from None
    if not answer.signature or not answer.chain:
        raise _unsigned("it bears no signature")
    if answer.at > datetime(9999, 1, 1, tzinfo=UTC).timestamp():
        raise _unsigned("it states no time")
    at = datetime.fromtimestamp(answer.at, UTC)
    try:
        chain = [x509.load_der_x509_certificate(data) for data in answer.chain[:_LONGEST]]
        _require_vouched(chain, authorities, at)
        if not _is_named(chain[0], trust.host):
            raise _unsigned(f"its certificate is not {trust.host!r}'s")
        key = chain[0].public_key()
        bare = msgspec.structs.replace(answer, signature=b"")
        verify: Callable[..., None] = key.verify
        verify(answer.signature, _to_sign(bare), *_how(key))
    except InvalidSignature:
        raise _unsigned("it was changed, or signed by another key") from None
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise _unsigned(f"its certificate cannot be used ({type(error).__name__})") from None


def _require_vouched(chain: Sequence[Any], authorities: Sequence[Any], at: datetime) -> None:
    """Refuse a chain that does not lead from a host's certificate to an authority that is trusted."""
    x509 = require_x509()
    from cryptography.exceptions import InvalidSignature

    leaf, between = chain[0], list(chain[1:])
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if x509.ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise _unsigned("its certificate is no host's")
    now = leaf
    for _ in range(_LONGEST):
        if not now.not_valid_before_utc <= at <= now.not_valid_after_utc:
            raise _unsigned("a certificate was not valid at the time that it states")
        for issuer in (*authorities, *between):
            try:
                now.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature):
                continue
            constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints)
            if not constraints.value.ca:
                continue
            if issuer in authorities:
                if issuer.not_valid_before_utc <= at <= issuer.not_valid_after_utc:
                    return
                raise _unsigned("the authority's certificate was not valid at that time")
            now = issuer
            between.remove(issuer)
            break
        else:
            break
    raise _unsigned("no authority that is trusted vouches for its certificate")


def _is_named(certificate: Any, host: str) -> bool:
    """Whether a certificate is for that name or address; a star stands for the name's first part."""
    x509 = require_x509()
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = {name.lower() for name in found.get_values_for_type(x509.DNSName)}
    names |= {str(address) for address in found.get_values_for_type(x509.IPAddress)}
    return bool({host.lower(), "*." + host.lower().partition(".")[2]} & names)


def _to_sign(bare: Forgotten) -> bytes:
    return _LABEL + msgspec.msgpack.encode(bare)


def _how(key: Any) -> tuple[Any, ...]:
    """What signing for a public key takes beside the bytes.

    Raises:
        ValueError: nobody signs with such a key here.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    match key:
        case ec.EllipticCurvePublicKey():
            return (ec.ECDSA(SHA256()),)
        case rsa.RSAPublicKey():
            return padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH), SHA256()
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return ()
    raise ValueError("no key that signs")


def require_x509() -> Any:
    """The module that reads certificates.

    Raises:
        ConfigError: its package is missing.
    """
    try:
        from cryptography import x509
    except ImportError:
        raise ConfigError(
            "to sign what was forgotten, or to look at a signature, takes cryptography: "
            "pip install 'cosilo[host]'"
        ) from None
    return x509


def _unsigned(why: str) -> UnexpectedReplyError:
    return UnexpectedReplyError(f"an answer to a request to forget is no evidence: {why}")
