"""What people do with a store: make and revoke keys, log in at the page, look at past requests.

Answering a request needs none of this, so it need not be fast, and SQLite and PostgreSQL share the
queries here. A store only implements three methods of `Desk`: `ask` (read rows), `tell` (write in
one transaction) and `now` (its clock).
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cosilo.errors import ConfigError
from cosilo.gateway.accounts.accounts import Key, Limits
from cosilo.gateway.accounts.keys import (
    KeyState,
    NewKey,
    checked_limits,
    checked_name,
    derive,
    find_key,
    hash_bearer,
    make_bearer,
)
from cosilo.gateway.record.store_records import (
    KEY_COLUMNS,
    ROWS,
    SESSION_SECONDS,
    STATE_COLUMNS,
    RequestRow,
    Summary,
    active_key,
    key_state,
    limit_nano,
    period_start,
    row_of,
    summarise,
)

Marks = Mapping[str, object]

_CREATE = """
INSERT INTO keys (id, name, hash, admin, points, created, expires, limit_usd, limit_tokens,
    limit_entities, limit_epsilon, limit_rpm, period, since, local_only)
VALUES (:id, :name, :hash, :admin, :points, :created, :expires, :usd, :tokens, :entities, :epsilon,
    :rpm, :period, :since, :local_only)
"""


_STEP = 500
_FORGET = """
DELETE FROM requests WHERE number IN (SELECT number FROM requests WHERE at < :before LIMIT :most)
"""


class Desk(ABC):
    """Keys, sessions and summaries over any database.

    Args:
        secret: the gateway's secret, which the hashes of keys and sessions hang on.
    """

    def __init__(self, secret: bytes) -> None:
        self._pepper = derive(secret, "keys")
        self._session_pepper = derive(secret, "sessions")

    @abstractmethod
    async def ask(self, query: str, marks: Marks) -> Sequence[Sequence[Any]]:
        """The rows of `query`, whose parameters are written `:name`."""

    @abstractmethod
    async def tell(self, *changes: tuple[str, Marks]) -> None:
        """Make all `changes` in one transaction."""

    @abstractmethod
    async def now(self) -> float:
        """Seconds since the epoch, by the store's clock."""

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
        name, limits = checked_name(name), checked_limits(limits or Limits())
        now = await self.now()
        for state in await self.list_keys():
            if state.key.name == name and state.revoked is None:
                raise ConfigError(
                    f"key {state.key.id} is called {name!r} already; revoke it or take another name"
                )
        id, bearer = make_bearer()
        marks = {
            "id": id, "name": name, "hash": hash_bearer(self._pepper, bearer), "admin": int(admin),
            "points": msgspec.json.encode(points).decode(), "created": now, "expires": expires,
            "usd": limit_nano(limits.usd), "tokens": limits.tokens, "entities": limits.entities,
            "epsilon": limit_nano(limits.epsilon), "rpm": limits.requests_per_minute,
            "period": limits.period, "since": period_start(limits.period, now),
            "local_only": int(local_only),
        }  # fmt: skip
        await self.tell((_CREATE, marks))
        key = Key(
            id=id, name=name, limits=limits, points=points, admin=admin, local_only=local_only
        )
        return NewKey(key=key, bearer=bearer)

    async def list_keys(self) -> list[KeyState]:
        now = await self.now()
        rows = await self.ask(f"SELECT {STATE_COLUMNS} FROM keys ORDER BY created, id", {})
        return [key_state(row, now) for row in rows]

    async def revoke_key(self, given: str) -> KeyState:
        keys = await self.list_keys()
        in_use = [(s.key.id, s.key.name) for s in keys if s.revoked is None]
        every = [(s.key.id, s.key.name) for s in keys]
        id = find_key(given, in_use if any(given == name for _, name in in_use) else every)
        marks = {"id": id, "now": await self.now()}
        await self.tell(
            ("UPDATE keys SET revoked = :now WHERE id = :id AND revoked IS NULL", marks),
            ("DELETE FROM sessions WHERE key = :id", {"id": id}),
        )
        return next(state for state in await self.list_keys() if state.key.id == id)

    async def points_served(self) -> list[str]:
        rows = await self.ask("SELECT DISTINCT point FROM requests WHERE point != ''", {})
        return sorted(row[0] for row in rows)

    async def open_session(self, key: Key) -> str:
        token, now = secrets.token_urlsafe(32), await self.now()
        marks = {"hash": self._session(token), "key": key.id, "expires": now + SESSION_SECONDS}
        await self.tell(
            ("DELETE FROM sessions WHERE expires < :now", {"now": now}),
            ("INSERT INTO sessions VALUES (:hash, :key, :expires)", marks),
        )
        return token

    async def session_key(self, token: str) -> Key | None:
        now = await self.now()
        rows = await self.ask(
            f"SELECT {KEY_COLUMNS} FROM keys WHERE id ="
            " (SELECT key FROM sessions WHERE hash = :hash AND expires > :now)",
            {"hash": self._session(token), "now": now},
        )
        return active_key(rows[0], now) if rows else None

    async def close_session(self, token: str) -> None:
        marks = {"hash": self._session(token)}
        await self.tell(("DELETE FROM sessions WHERE hash = :hash", marks))

    async def summary(self, since: float, *, key: str | None = None, recent: int = 50) -> Summary:
        return await summarise(self.ask, since, key, recent)

    async def request_rows(
        self, *, request: str = "", key: str = "", since: float = 0.0, until: float = 1e18
    ) -> list[RequestRow]:
        marks = {
            "any_request": int(not request), "request": request, "any_key": int(not key),
            "key": key, "since": since, "until": until,
        }  # fmt: skip
        return [row_of(row) for row in await self.ask(ROWS, marks)]

    async def forget_requests(self, *, before: float) -> None:
        marks: Marks = {"before": before, "hour": before - 3600, "most": _STEP}
        while await self.ask("SELECT 1 FROM requests WHERE at < :before LIMIT 1", marks):
            await self.tell((_FORGET, marks))  # in small steps, so that no request waits long
        await self.tell(("DELETE FROM kinds WHERE at < :hour", marks))

    def _session(self, token: str) -> bytes:
        return hash_bearer(self._session_pepper, token)
