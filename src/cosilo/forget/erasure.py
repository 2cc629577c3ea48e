"""The signed statement of what was erased: what, when, by which method, with which verification.

It holds no text and no id of a record: records stand in it by their keyed digests, which the owner can
check and nobody else. Signed with Ed25519 (RFC 8032) under a key of the owner's beside the data; the
public key stands in it, and is to be compared with one noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cosilo
from cosilo.errors import ConfigError
from cosilo.forget.files import replace_file
from cosilo.lineage.requests import ForgetRequest
from cosilo.lineage.store import Lineage
from cosilo.models.present import require_present
from cosilo.privacy.secret_key import secret_key
from cosilo.registry import Loads

SIGNING = "erasure.key"
FORMAT = 1
LOADS = Loads(packages=("cryptography",))

_SAID: Mapping[str, type] = {
    "request": str, "records": list, "steps": list, "erased": bool, "standing": int,
}  # fmt: skip
"""What whoever reads a certificate takes from it."""


def certificate_at(folder: Path, request: str) -> Path:
    """Where the certificate of a request is once all is done that can be."""
    return folder / f"erasure-{request[:12]}.json"


def finished(request: ForgetRequest, folder: Path) -> bool:
    """Whether nothing is left to do here for the request, and its certificate says so."""
    settled = all(step.settled for step in request.steps)
    return settled and certificate_at(folder, request.id).exists()


def certify(
    lineage: Lineage, request: ForgetRequest, folder: Path, *, began: float, cpu: float
) -> Path:
    """Sign how the request stands, and write that to where its certificate is.

    Args:
        began, cpu: the time, and this process's CPU time, when work on it began.

    Raises:
        StoreError: it cannot be written.
        ConfigError: it cannot be signed.
    """
    ended = time.time()
    verification = {
        "seconds": round(ended - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }
    names = sorted(lineage.names_of(request.id))
    told = statement(request, names, ended=ended, verification=verification)
    path = certificate_at(folder, request.id)
    write(signed(told, folder), path)
    return path


def statement(
    request: ForgetRequest, names: Sequence[bytes], *, ended: float, verification: Mapping[str, Any]
) -> dict[str, Any]:
    """What is signed."""
    return {
        "format": FORMAT,
        "cosilo": cosilo.__version__,
        "request": request.id,
        "begun": request.at,
        "ended": ended,
        "records": sorted(name.hex() for name in names),
        "erased": request.erased,
        "steps": [
            {k: v for k, v in asdict(step).items() if v not in ("", None, 0.0)}
            for step in request.steps
        ],
        "standing": len(request.standing),
        "verification": dict(verification),
    }


def signed(told: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`told` with the signature of the key in `folder`, which is made on first use.

    Raises:
        ConfigError: the key cannot be used, or the package `cryptography` is missing.
    """
    require_present(LOADS)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(secret_key(folder / SIGNING)[:32])
    public = key.public_key().public_bytes_raw().hex()
    whole = {**told, "key": public}
    return {**whole, "signature": key.sign(_bytes(whole)).hex()}


def write(certificate: Mapping[str, Any], path: Path) -> None:
    """Write it to `path`, whole or not at all, for its owner alone to read.

    Raises:
        StoreError: it cannot be written.
    """
    replace_file(path, (json.dumps(certificate, indent=1) + "\n").encode())


def checked(path: Path, *, key: str = "") -> dict[str, Any]:
    """The certificate in `path`, whose signature is right.

    Args:
        key: the public key in hex that it must be signed with; the one it names where none is given.

    Raises:
        ConfigError: it is no certificate, was altered, or is signed with another key.
    """
    require_present(LOADS)
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        told = json.loads(path.read_text("utf-8"))
        signature = bytes.fromhex(told["signature"])
        named = told["key"]
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(named))
        if told["format"] != FORMAT:
            raise ConfigError(f"{str(path)!r} is of format {told['format']!r}, not {FORMAT}")
        unsigned = {k: v for k, v in told.items() if k != "signature"}
        public.verify(signature, _bytes(unsigned))
        if wrong := [n for n, kind in _SAID.items() if not isinstance(told.get(n), kind)]:
            raise ConfigError(f"{str(path)!r} is signed, and does not say {wrong[0]!r}")
    except InvalidSignature:
        raise ConfigError(f"{str(path)!r} was altered, or is not signed with its key") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{str(path)!r} is no certificate of erasure ({type(error).__name__})"
        ) from None
    if key and key.lower() != named.lower():
        raise ConfigError(f"{str(path)!r} is signed with another key than the one given")
    return dict(told)


def fingerprint(key: str) -> str:
    """Sixteen hex digits to know a public key by."""
    return hashlib.sha256(bytes.fromhex(key)).hexdigest()[:16]


def _bytes(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
