"""Open the store that a path or a URL names.

gateway/  or  sqlite:gateway/        a folder: one machine
postgresql://user@host/database      PostgreSQL: many machines
"""

from __future__ import annotations

import os
from pathlib import Path

from cosilo.boundary.record.ledger import Keep
from cosilo.errors import ConfigError
from cosilo.gateway.accounts.keys import read_secret
from cosilo.gateway.record.retention import SealVault
from cosilo.gateway.record.store_records import GatewayStore

DEFAULT = "cosilo-gateway"


def default_url() -> str:
    """$COSILO_STORE, or the folder `cosilo-gateway`; a folder is meant from where we are now."""
    url = os.environ.get("COSILO_STORE") or DEFAULT
    return url if is_postgres(url) else str(folder_of(url).absolute())


def is_postgres(url: str) -> bool:
    return url.startswith(("postgresql://", "postgres://"))


def folder_of(url: str) -> Path:
    """The folder that a URL without PostgreSQL names."""
    for prefix in ("sqlite://", "sqlite:"):
        if url.startswith(prefix):
            return Path(url.removeprefix(prefix))
    if "://" in url:
        raise ConfigError(
            f"{url.partition('://')[0]!r} is not a store; give a folder or postgresql://…"
        )
    return Path(url)


async def open_store(
    url: str,
    *,
    secret: Path | None = None,
    keep: Keep = "digest",
    vault: SealVault | None = None,
    work: bool = True,
    make: bool = True,
) -> GatewayStore:
    """The store at `url`.

    Args:
        secret: the file of the gateway's secret; $COSILO_SECRET comes first. In a folder it is
            `secret` in that folder; for PostgreSQL it must be given, the same on every machine.
        keep: whether the ledger keeps contents or only digests.
        vault: seals kept contents; without one they are kept in clear.
        work: claim a place among the workers; False for the command line, which only looks.
        make: make the store when there is none.

    Raises:
        ConfigError: no such store, or another secret than it was made with.
        StoreError: it cannot be read or written.
    """
    seal = vault.seal if vault is not None else None
    if is_postgres(url):
        from cosilo.gateway.record.store_postgres import open_postgres

        if secret is None and not os.environ.get("COSILO_SECRET"):
            raise ConfigError(
                "a store in PostgreSQL needs the gateway's secret from outside the database: give"
                " --secret FILE (made when absent), the same file on every machine"
            )
        key = read_secret(secret or Path(), make=make)
        return await open_postgres(url, secret=key, keep=keep, seal=seal, work=work)
    from cosilo.gateway.record.store_sqlite import SqliteStore

    folder = folder_of(url)
    if not make and not (folder / "accounts.sqlite").is_file():
        raise ConfigError(f"there is no gateway's store at {str(folder)!r}")
    if make:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make {str(folder)!r}: {error.strerror}") from None
    key = read_secret(secret or folder / "secret", make=make)
    return SqliteStore(folder, secret=key, keep=keep, seal=seal, work=work)
