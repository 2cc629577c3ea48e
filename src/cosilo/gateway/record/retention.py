"""How the contents of messages are encrypted when they are stored, and how old ones are deleted.

    content.keys:   one line per key: id, base64url key; the last line seals, all of them unseal

Contents are sealed with AES-256-GCM (NIST SP 800-38D) under a random 96-bit nonce; at most 2³²
messages may be sealed under one key, so rotate long before that. A sealed content is

    1 byte version │ 8 bytes key id │ 12 bytes nonce │ ciphertext │ 16 bytes tag

What each entry holds is bound by the digest in the ledger's chain, so a sealed content that was moved
to another entry shows when the ledger is verified.
"""

from __future__ import annotations

import base64
import os
import secrets
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from cosilo.boundary.record.ledger import connect
from cosilo.errors import ConfigError, StoreError
from cosilo.gateway.accounts.keys import read_private, write_private
from cosilo.models.present import require_present
from cosilo.registry import Loads

VERSION = 1
_BATCH = 500


class SealVault:
    """Seals with its current key; unseals with whichever key sealed.

    Args:
        keys: key id (8 bytes) → 32-byte key; the last one seals.

    Raises:
        ConfigError: there is no key, or one has another size; or `cryptography` is not installed.
    """

    def __init__(self, keys: Mapping[bytes, bytes]) -> None:
        require_present(Loads(packages=("cryptography",)))
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not keys or any(len(k) != 32 or len(id) != 8 for id, k in keys.items()):
            raise ConfigError("content keys are 32 bytes each, under ids of 8 bytes")
        self._ciphers = {id: AESGCM(key) for id, key in keys.items()}
        self._current = list(keys)[-1]

    def seal(self, content: bytes) -> bytes:
        nonce = os.urandom(12)
        head = bytes((VERSION,)) + self._current
        return head + nonce + self._ciphers[self._current].encrypt(nonce, content, head)

    def unseal(self, sealed: bytes) -> bytes:
        """What `seal` was given.

        Raises:
            StoreError: another key sealed it, or it was altered.
        """
        from cryptography.exceptions import InvalidTag

        head, nonce, rest = sealed[:9], sealed[9:21], sealed[21:]
        cipher = self._ciphers.get(head[1:]) if head[:1] == bytes((VERSION,)) else None
        if cipher is None:
            raise StoreError(f"a content was sealed with key {head[1:].hex()}, which is not given")
        try:
            return cipher.decrypt(nonce, rest, head)
        except (InvalidTag, ValueError):
            raise StoreError("a sealed content was altered") from None


def is_sealed(stored: bytes) -> bool:
    """Whether a stored content is sealed: an encoded message begins with a map, never with 1."""
    return stored[:1] == bytes((VERSION,))


def read_vault(path: Path) -> SealVault:
    """The vault whose keys are in $COSILO_CONTENT_KEYS, else in the file `path`.

    Raises:
        ConfigError: there are none, or others can read the file.
    """
    given = os.environ.get("COSILO_CONTENT_KEYS")
    text = given.encode() if given else read_private(path, "the content keys")
    return SealVault(_parse(text))


def add_content_key(path: Path) -> str:
    """Add a new key to the end of the file, which is made if it is missing; returns the key's id in
    hex.

    Raises:
        ConfigError: the file cannot be read or written.
    """
    before = read_private(path, "the content keys") if path.exists() else b""
    _parse(before)
    id = secrets.token_bytes(8)
    line = id.hex().encode() + b" " + base64.urlsafe_b64encode(secrets.token_bytes(32)) + b"\n"
    if not before:
        write_private(path, line)
        return id.hex()
    new = path.with_name(f".{path.name}.{os.getpid()}")
    write_private(new, before + line)
    os.replace(new, path)
    return id.hex()


def _parse(text: bytes) -> dict[bytes, bytes]:
    keys = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            id, key = line.split()
            keys[bytes.fromhex(id.decode())] = base64.b64decode(key, b"-_", validate=True)
        except ValueError:
            raise ConfigError(f"line {number} of the content keys is not an id and a key") from None
    return keys


def purge_sqlite(path: Path, before: float) -> int:
    """Delete the contents recorded before `before`; returns how many. The chains stay whole.

    The freed pages are overwritten and the log is emptied, so that nothing is left in the files.

    Raises:
        StoreError: the ledger cannot be written.
    """
    count = 0
    try:
        db = connect(path)
        try:
            while True:  # in small steps, so that no request waits long
                done = db.execute(
                    "UPDATE entries SET payload = NULL WHERE (chain, number) IN (SELECT chain,"
                    " number FROM entries WHERE payload IS NOT NULL AND at < ? LIMIT ?)",
                    (before, _BATCH),
                ).rowcount
                count += done
                if done < _BATCH:
                    break
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            db.close()
    except sqlite3.Error as error:
        raise StoreError(f"cannot purge the ledger {str(path)!r}: {error}") from error
    return count
