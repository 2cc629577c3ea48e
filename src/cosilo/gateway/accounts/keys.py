"""API keys: what their text looks like, how they are stored, and the gateway's secret behind them.

    cosilo_<id>_<secret>        id: public, 10 characters; secret: 256 random bits, base64url

Only a keyed BLAKE2b of the whole text is stored. A slow hash (bcrypt, Argon2) buys time against
guessing what people choose; 2²⁵⁶ cannot be guessed however fast the hash is, and a slow one would
cost every request a tenth of a second. The key of the hash is derived from the gateway's own secret,
which lies outside the database: whoever can write there can still not make a key that is accepted.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from cosilo.errors import ConfigError
from cosilo.gateway.accounts.accounts import Key, Limits, Spend
from cosilo.registry import unknown

PREFIX = "cosilo"
LONGEST = 128  # characters of a bearer that are looked at
SECRET_BYTES = 32

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 letters that are not mistaken for one another


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key just made. `bearer` is shown once and stored nowhere."""

    key: Key
    bearer: str


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """A key with what it has spent.

    `used` counts since the start of its period (epsilon: for all time), `held` is set aside for
    requests under way, `total` is everything ever. Times are seconds since the epoch.
    """

    key: Key
    created: float
    expires: float | None
    revoked: float | None
    used: Spend
    held: Spend
    total: Spend

    def state(self, now: float) -> Literal["active", "revoked", "expired"]:
        if self.revoked is not None:
            return "revoked"
        return "active" if self.expires is None or now < self.expires else "expired"


class KeyStore(Protocol):
    """Where keys are kept."""

    async def create_key(
        self,
        name: str,
        *,
        limits: Limits | None = None,
        points: tuple[str, ...] = (),
        admin: bool = False,
        expires: float | None = None,
        local_only: bool = False,
    ) -> NewKey:
        """A new key, whose name no other key has that is not revoked.

        Raises:
            ConfigError: the name is empty or taken, or a limit is no number from 0 on.
            StoreError: it cannot be stored.
        """

    async def list_keys(self) -> list[KeyState]:
        """Every key ever made, oldest first."""

    async def revoke_key(self, given: str) -> KeyState:
        """Refuse the key with that id or name from now on; what it spent stays on record.

        Raises:
            ConfigError: no key has it, or several have the name.
        """

    async def points_served(self) -> list[str]:
        """The points by which requests on record were answered."""


LONGEST_NAME = 100


def checked_name(name: str) -> str:
    """`name` without spaces around it, as a key may be called.

    Raises:
        ConfigError: nothing is left, it is too long, or it cannot be printed.
    """
    name = name.strip()
    if not name or not name.isprintable() or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"a key's name is 1 to {LONGEST_NAME} characters that can be printed, not {name!r:.120}"
        )
    return name


def checked_limits(limits: Limits) -> Limits:
    """`limits`, each of which is a number from 0 on.

    Raises:
        ConfigError: one is not.
    """
    for name in ("usd", "tokens", "requests_per_minute", "entities", "epsilon"):
        limit = getattr(limits, name)
        if limit is not None and not 0 <= limit < math.inf:
            raise ConfigError(f"{name} = {limit!r} is no limit from 0 on")
    return limits


def find_key(given: str, known: Sequence[tuple[str, str]]) -> str:
    """The id of the key that `given` names: by its id, its name, or its whole text (of which only
    the id is used).

    Args:
        known: ids and names.

    Raises:
        ConfigError: no key has it, or several have the name.
    """
    given = id_of(given) or given  # a whole key must not come back in an error
    if any(id == given for id, _ in known):
        return given
    named = sorted({id for id, name in known if name == given})
    if len(named) > 1:
        raise ConfigError(f"several keys are called {given!r}; say which: {', '.join(named)}")
    if not named:
        raise ConfigError(unknown("key", given, [part for key in known for part in key]))
    return named[0]


def make_bearer() -> tuple[str, str]:
    """A new (id, bearer)."""
    id = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    return id, f"{PREFIX}_{id}_{secrets.token_urlsafe(SECRET_BYTES)}"


def id_of(bearer: str) -> str:
    """The public part of `bearer`; empty when it has none that a key could have."""
    parts = bearer[:LONGEST].split("_", 2)
    whole = len(parts) == 3 and parts[0] == PREFIX and parts[1].isascii() and parts[1].isalnum()
    return parts[1] if whole else ""


def hash_bearer(pepper: bytes, bearer: str) -> bytes:
    """What is stored of `bearer`: 32 bytes."""
    text = bearer[: LONGEST + 1].encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, key=pepper, digest_size=32, person=b"cosilo key").digest()


def matches(stored: bytes | None, presented: bytes) -> bool:
    """Whether `presented` is the `stored` hash; an unknown key (None) takes the same path."""
    same = hmac.compare_digest(stored if stored is not None else bytes(32), presented)
    return same and stored is not None


def derive(secret: bytes, purpose: str) -> bytes:
    """The 32-byte key for `purpose`, from the gateway's secret."""
    return hmac.digest(secret, b"cosilo gateway: " + purpose.encode(), "sha256")


def read_secret(path: Path, *, make: bool) -> bytes:
    """The gateway's secret: from $COSILO_SECRET (base64url), else from the file `path`.

    Args:
        make: write a new one when there is none.

    Raises:
        ConfigError: there is none, it is too short, or others can read the file.
    """
    given = os.environ.get("COSILO_SECRET")
    if given:
        return _decoded(given.encode(), "$COSILO_SECRET")
    if make and not path.exists():
        text = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)) + b"\n"
        write_private(path, text)
    return _decoded(read_private(path, "the gateway's secret"), repr(str(path)))


def write_private(path: Path, text: bytes) -> None:
    """Write a file that only its owner can read; one that is there already is left as it is.

    It appears whole or not at all, so that two processes starting together read the same.

    Raises:
        ConfigError: the folder cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        handle = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.write(handle, text)
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.link(new, path)
        except FileExistsError:
            pass
        finally:
            new.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r}: {error.strerror}") from None


def read_private(path: Path, what: str) -> bytes:
    """The bytes of a file that nobody else may read.

    Raises:
        ConfigError: it is missing, unreadable, or open to others.
    """
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {what} at {str(path)!r}: {error.strerror}") from None
    if mode & 0o077:
        raise ConfigError(
            f"{what} at {str(path)!r} can be read by others (mode {mode:o}); chmod 600 it"
        )
    return text


def _decoded(text: bytes, where: str) -> bytes:
    try:
        secret = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
    except ValueError:
        raise ConfigError(f"the secret in {where} is not base64url") from None
    if len(secret) < SECRET_BYTES:
        raise ConfigError(f"the secret in {where} has {len(secret)} bytes; {SECRET_BYTES} do")
    return secret
