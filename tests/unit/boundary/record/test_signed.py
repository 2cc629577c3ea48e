"""What was signed is evidence for whoever has the authority's certificate, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace as changed
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("cryptography", reason="the host extra is not installed")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519

from cosilo.boundary.messages import Forgotten
from cosilo.boundary.messages.forget import ForgottenItem
from cosilo.boundary.record.signed import SigningKey, Trust, require_signed
from cosilo.errors import ConfigError, UnexpectedReplyError
from cosilo.host import certificates

# Certificates are made when the tests run, which is later than this is read.
ANSWER = Forgotten(
    forget=32 * "f", asked=64 * "a", client="clinic", by="lm-owner", at=time.time() + 3600,
    outcomes=(ForgottenItem(what="adapter", how="deleted", names=(32 * "b",), count=1),),
)  # fmt: skip


@pytest.fixture(scope="module")
def authority() -> certificates.Signed:
    return certificates.new_authority()


def files(folder: Path, *signed: certificates.Signed, key: Any = None) -> SigningKey:
    """The key of a host whose certificate file begins with the first of these."""
    (folder / "cert.pem").write_bytes(b"".join(each.pem for each in signed))
    (folder / "key.pem").write_bytes(signed[0].key_pem if key is None else _pem(key))
    return SigningKey.read(folder / "cert.pem", folder / "key.pem")


def _pem(key: Any) -> bytes:
    return bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def trust(authority: certificates.Signed, host: str = "lm.example") -> Trust:
    return Trust(ca=authority.pem, host=host)


def test_what_a_host_signs_is_evidence(tmp_path: Path, authority: certificates.Signed) -> None:
    key = files(tmp_path, certificates.issue(authority, "host", "lm.example"))
    signed = key.signed(ANSWER)
    require_signed(signed, trust(authority))
    assert msgspec.structs.replace(signed, chain=(), signature=b"") == ANSWER
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(signed), type=Forgotten)
    require_signed(again, trust(authority))
    here = files(tmp_path, certificates.issue(authority, "host", "localhost")).signed(ANSWER)
    require_signed(here, trust(authority, "127.0.0.1"))
    assert "PRIVATE" not in repr(key)


CHANGES: dict[str, dict[str, object]] = {
    "another outcome": {
        "outcomes": (ForgottenItem(what="adapter", how="nothing", names=(32 * "b",)),)
    },
    "another time": {"at": ANSWER.at - 1},
    "another client": {"client": "bank"},
    "no signature": {"signature": b""},
    "no certificate": {"chain": ()},
    "bytes for a certificate": {"chain": (b"x",)},
    "bytes for a signature": {"signature": b"x"},
    "a time that is none": {"at": 1e300},
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_is_none(
    tmp_path: Path, authority: certificates.Signed, what: str
) -> None:
    signed = files(tmp_path, certificates.issue(authority, "host", "lm.example")).signed(ANSWER)
    with pytest.raises(UnexpectedReplyError, match="is no evidence"):
        require_signed(msgspec.structs.replace(signed, **CHANGES[what]), trust(authority))


def test_nor_is_what_another_signs(tmp_path: Path, authority: certificates.Signed) -> None:
    def refused(why: str, *signed: certificates.Signed, host: str = "lm.example") -> None:
        with pytest.raises(UnexpectedReplyError, match=why):
            require_signed(files(tmp_path, *signed).signed(ANSWER), trust(authority, host))

    theirs = certificates.new_authority()
    refused("no authority", certificates.issue(theirs, "host", "lm.example"))
    refused("no authority", certificates.issue(theirs, "host", "lm.example"), theirs)
    refused("not 'lm.example'", certificates.issue(authority, "host", "other.example"))
    refused("no host's", certificates.issue(authority, "client", "clinic"))
    # A host's certificate vouches for nobody.
    own = certificates.issue(authority, "host", "lm.example")
    refused("no authority", certificates.issue(own, "host", "lm.example"), own)
    long_ago = datetime.now(UTC) - timedelta(days=9)
    over = certificates.issue(authority, "host", "lm.example", days=3, since=long_ago)
    refused("not valid at the time", over)


def test_it_is_evidence_when_the_certificate_is_over(
    tmp_path: Path, authority: certificates.Signed
) -> None:
    now = datetime.now(UTC)
    soon = certificates.issue(authority, "host", "lm.example", days=1, since=now)
    then = (now + timedelta(minutes=1)).timestamp()
    signed = files(tmp_path, soon).signed(msgspec.structs.replace(ANSWER, at=then))
    require_signed(signed, trust(authority))  # whenever it is looked at


Made = Callable[[], Any]


@pytest.mark.parametrize(
    "made", [ed25519.Ed25519PrivateKey.generate, lambda: rsa.generate_private_key(65537, 2048)]
)
@pytest.mark.parametrize("between", [False, True], ids=["", "an authority between"])
def test_other_keys_sign_as_well(
    tmp_path: Path, authority: certificates.Signed, made: Made, between: bool
) -> None:
    key, now = made(), datetime.now(UTC)
    signer = authority
    if between:
        signer = _authority_under(authority)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lm")])
    usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
    names = x509.SubjectAlternativeName([x509.DNSName("*.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(usage, critical=False)
        .add_extension(names, critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    leaf = changed(certificates.issue(authority, "host", "x"), certificate=certificate)
    chain = (leaf, signer) if between else (leaf,)
    signed = files(tmp_path, *chain, key=key).signed(ANSWER)
    require_signed(signed, trust(authority))
    with pytest.raises(UnexpectedReplyError, match=r"not 'lm\.other'"):
        require_signed(signed, trust(authority, "lm.other"))


def _authority_under(authority: certificates.Signed) -> certificates.Signed:
    own, now = certificates.new_authority(), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "between")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(authority.certificate.subject)
        .public_key(own.key.public_key())
        .serial_number(8)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority.key, hashes.SHA256())
    )
    return certificates.Signed(made, own.key)


def test_files_that_cannot_sign_are_refused(tmp_path: Path, authority: certificates.Signed) -> None:
    with pytest.raises(ConfigError, match="no certificate and key"):
        SigningKey.read(tmp_path / "no.pem", tmp_path / "no.key")
    host = certificates.issue(authority, "host", "lm.example")
    with pytest.raises(ConfigError, match="no certificate and key"):
        files(tmp_path, host, key=x25519.X25519PrivateKey.generate())
    (tmp_path / "ca.pem").write_text("x")
    found = Trust.of("https://lm.example:8443", tmp_path / "ca.pem")
    assert (found.host, Trust.of("lm.example:9", tmp_path / "ca.pem").host) == (
        "lm.example",
        "lm.example",
    )
    assert Trust.of("https://10.0.0.1", tmp_path / "ca.pem", "lm.example").host == "lm.example"
    with pytest.raises(ConfigError, match="holds no certificates"):
        require_signed(ANSWER, found)
    with pytest.raises(ConfigError, match="cannot read"):
        Trust.of("https://lm.example", tmp_path / "none.pem")
