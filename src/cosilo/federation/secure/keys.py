"""Keys that two owners agree on through a coordinator, and the streams of numbers they fix.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), ChaCha20 and ChaCha20-Poly1305 (RFC 8439), of the package
`cryptography`. Every key is derived for one use, with a label and all that it is bound to, so nonces
are zero.
"""

from __future__ import annotations

import numpy as np

from cosilo.errors import ConfigError
from cosilo.federation.secure.fixed_point import FixedPoint, Words

KEY = 32
"""Bytes of a key."""

_BLOCK = 1 << 20


def require_cryptography() -> None:
    """Refuse to begin without the package that all of this needs.

    Raises:
        ConfigError: it is missing.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ConfigError(
            "secure aggregation needs cryptography: pip install 'cosilo[host]'"
        ) from None


def derived(secret: bytes, label: bytes, bound: bytes = b"") -> bytes:
    """A key of `secret` for one use, bound to `bound`."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY, salt=bound, info=b"cosilo secure aggregation|" + label).derive(
        secret
    )


def public_key(private: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed(private: bytes, public: bytes) -> bytes:
    """What the holders of two private keys have in common, and nobody else.

    Raises:
        ValueError: the public key is none that anything could be agreed on with.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    other = X25519PublicKey.from_public_bytes(public)
    return X25519PrivateKey.from_private_bytes(private).exchange(other)


def sealed(key: bytes, content: bytes) -> bytes:
    """`content`, for the holders of `key` alone; a key seals one content."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key).encrypt(bytes(12), content, None)


def opened(key: bytes, content: bytes) -> bytes | None:
    """What was sealed; None where it was not, or with another key."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), content, None)
    except InvalidTag:
        return None


def add_stream(words: Words, key: bytes, encoding: FixedPoint, *, sign: int) -> None:
    """Add to `words`, in their place, the numbers that `key` fixes; or subtract them (`sign` = -1)."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    zeros = bytes(_BLOCK * encoding.bits // 8)
    for start in range(0, len(words), _BLOCK):
        part = words[start : start + _BLOCK]
        drawn = np.frombuffer(stream.update(zeros[: len(part) * encoding.bits // 8]), encoding.sent)
        if sign > 0:
            part += drawn
        else:
            part -= drawn
