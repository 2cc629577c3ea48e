"""Keys that placeholders and noise are derived under: files only their owner can read."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import random
import secrets
from pathlib import Path

from cosilo.errors import ConfigError

_SIZE = 32


def secret_key(path: Path) -> bytes:
    """The key in `path`; made on first use. It is never logged and never sent.

    Two processes that start together get the same key: it is written beside and linked into place.

    Raises:
        ConfigError: the file cannot be made or read, others may read it, or it holds no key.
    """
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"the key {str(path)!r} can be read by others; chmod 600 it")
        key = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"the key {str(path)!r} cannot be used: {reason}") from None
    if len(key) < _SIZE:
        raise ConfigError(
            f"the key {str(path)!r} has {len(key)} bytes; at least {_SIZE} are needed"
        )
    return key


class KeyedRandom(random.Random):
    """Draws that `key` and `context` fix together, and that nobody without the key can tell from fresh
    ones: HMAC-SHA256 of the context, then of a counter. It has no other state to seed."""

    def __new__(cls, key: bytes, context: bytes) -> KeyedRandom:
        return super().__new__(cls)

    def __init__(self, key: bytes, context: bytes) -> None:
        self._stream = hmac.digest(key, context, hashlib.sha256)
        self._count = 0
        super().__init__()

    def getrandbits(self, k: int, /) -> int:
        blocks = []
        for _ in range(-(-k // 256)):
            counter = self._count.to_bytes(8, "big")
            blocks.append(hmac.digest(self._stream, counter, hashlib.sha256))
            self._count += 1
        return int.from_bytes(b"".join(blocks), "big") >> (256 * len(blocks) - k)

    def random(self) -> float:
        return self.getrandbits(53) * 2.0**-53

    def seed(self, *_: object, **__: object) -> None:
        """Does nothing: the key and the context are the seed."""


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SIZE))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first; its key is the key
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
