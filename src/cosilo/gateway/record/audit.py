"""Questions to the record: is it whole, and what left for this request, this key, this day.

Three things show what was done to it, each where the one before cannot:

* the chain of hashes: an entry altered, missing or moved;
* the heads, sealed with the gateway's secret: entries cut off the end, a chain made anew;
* the finished requests' own counts, and heads noted elsewhere (`anchors`): a chain taken away whole,
  or the whole record put back to an earlier day.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from cosilo.boundary.messages import Message
from cosilo.boundary.messages.base import classes
from cosilo.boundary.record import ledger
from cosilo.boundary.record.faults import find_faults
from cosilo.boundary.record.ledger import BASES, Base, Entry, Head, connect, opened
from cosilo.errors import ConfigError, StoreError
from cosilo.gateway.accounts.keys import derive, find_key, id_of, read_secret
from cosilo.gateway.record.retention import SealVault, is_sealed
from cosilo.gateway.record.store import folder_of, is_postgres
from cosilo.gateway.record.store_records import ROWS, RequestRow, postgres, row_of, rows_of
from cosilo.record_keys import KeyReader

_ENTRY = "SELECT * FROM entries"  # a record begun by an earlier version has a column less


@dataclass(frozen=True)
class Verdict:
    """The result of verifying a record: what was checked, and the faults that were found.

    Attributes:
        chains: how many entries each holds.
        unread: contents that could not be checked, as they are sealed and no key was given.
        unsealed: whether heads were checked against a secret.
        archived: noted heads that lie before what is here, to be checked in the archive.
        forgotten: entries whose key was deleted: nothing tells any more what crossed.
        guessable: entries of an earlier version, whose digest confirms a guess of what crossed; that
            cannot be changed any more.
    """

    faults: Sequence[str]
    chains: Mapping[str, int]
    requests: int
    unread: int
    unsealed: bool
    archived: int = 0
    forgotten: int = 0
    guessable: int = 0


class Anchor(msgspec.Struct, frozen=True):
    """How far a chain had come when it was noted; hex."""

    chain: str
    count: int
    hash: str


@dataclass
class RequestRecord:
    """What crossed for one request. `row` is None while it is under way, and for preparation."""

    request: str
    row: RequestRow | None
    entries: list[Entry] = field(default_factory=list)


class OpenRecord:
    """A ledger, with the finished requests where there are any. Made by `open_record`.

    Args:
        entries: those of a chain, opened with their keys.
        columns: of the table of finished requests; none where there is no such table.
    """

    def __init__(
        self,
        query: Callable[[str, Mapping[str, object]], list[tuple[Any, ...]]],
        entries: Callable[[str], Iterator[Entry]],
        keys: KeyReader,
        *,
        columns: Collection[str],
        secret: bytes | None,
        vault: SealVault | None,
    ) -> None:
        self._query = query
        self._entries = entries
        self._keys = keys
        self._finished = bool(columns)
        self._finished_query = rows_of(columns)
        self._secret = secret
        self._vault = vault
        self._unread = self._forgotten = self._guessable = 0

    def verify(self, anchors: Sequence[Anchor] = ()) -> Verdict:
        """Whether every entry is there, unaltered and in its place."""
        self._unread = self._forgotten = self._guessable = 0
        # Finished requests first: all that they sent is on record by now.
        rows = self._rows(ROWS, any_request=1, request="", any_key=1, key="", since=0.0, until=1e18)
        heads = self.heads()
        chains = self._rows("SELECT chain, count(*) FROM entries GROUP BY chain")
        sealed = self._secret is not None
        key = derive(self._secret, "ledger") if self._secret is not None else b""
        bases = {row[0]: Base(*row) for row in self._rows(BASES)}
        faults = find_faults(
            heads, [row[0] for row in chains], self._checkable, key, self._open_content, bases
        )
        archived = [a for a in anchors if a.chain in bases and a.count < bases[a.chain].count]
        faults += self._against_anchors([a for a in anchors if a not in archived], bases)
        # What a request sent before the record was put into an archive is there, and checked there.
        begun = max((base.at for base in bases.values()), default=0.0)
        finished = [row for row in map(row_of, rows) if row.at >= begun]
        faults += self._against_requests(finished)
        return Verdict(
            faults, {c: n for c, n in chains}, len(finished), self._unread, sealed, len(archived),
            self._forgotten, self._guessable,
        )  # fmt: skip

    def entries(self, chain: str = "") -> Iterator[Entry]:
        """The entries of a chain in order, contents as they were kept; of all, one after the other."""
        for name in [chain] if chain else self.heads():
            yield from self._entries(name)

    def heads(self) -> dict[str, Head]:
        rows = self._rows("SELECT chain, count, hash, mac FROM heads ORDER BY chain")
        return {row[0]: Head(*row) for row in rows}

    def anchors(self) -> list[Anchor]:
        """The heads, to be noted somewhere that the record's keeper cannot write."""
        return [Anchor(h.chain, h.count, h.hash.hex()) for h in self.heads().values()]

    def left(
        self, *, request: str = "", key: str = "", since: float = 0.0, until: float = 1e18
    ) -> Iterator[RequestRecord]:
        """What crossed for each request that fits everything given, oldest first.

        Contents are unsealed where the key is given, else None.
        """
        if request:
            names = [request]
        elif key:
            names = [row.request for row in self._finished_rows(key=key, since=since, until=until)]
        else:
            found = self._rows(
                "SELECT request, min(at) FROM entries WHERE at >= :since AND at < :until"
                " GROUP BY request ORDER BY 2",
                since=since, until=until,
            )  # fmt: skip
            names = [row[0] for row in found]
            quiet = self._finished_rows(since=since, until=until)
            names += sorted({row.request for row in quiet} - set(names))
        for name in names:
            rows = self._finished_rows(request=name)
            entries = self._rows(
                f"{_ENTRY} WHERE request = :request AND at >= :since AND at < :until"
                " ORDER BY at, chain, number",
                request=name, since=since, until=until,
            )  # fmt: skip
            row = rows[0] if rows else None
            if key and row is not None and row.key != key:
                continue
            if row is not None or entries:
                yield RequestRecord(
                    name, row, [self._read(opened(Entry(*e), self._keys)) for e in entries]
                )

    def key_id(self, given: str) -> str:
        """The id of the key that `given` names: by its id, its name, or its whole text (of which
        only the id is used).

        Raises:
            ConfigError: no key or several keys of the record have it.
        """
        given = id_of(given) or given  # a whole key must not come back in an error
        known = self._query("SELECT id, name FROM keys", {}) if self._finished else []
        if not known:  # an archive has the requests, and not the keys
            if not self._finished_rows(key=given):
                raise ConfigError(
                    f"no request of a key {given!r} is here; an archive knows ids only"
                )
            return given
        return find_key(given, [(id, name) for id, name in known])

    def _finished_rows(
        self, *, request: str = "", key: str = "", since: float = 0.0, until: float = 1e18
    ) -> list[RequestRow]:
        rows = self._rows(
            ROWS, any_request=int(not request), request=request, any_key=int(not key), key=key,
            since=since, until=until,
        )  # fmt: skip
        return [row_of(row) for row in rows]

    def _against_anchors(self, anchors: Sequence[Anchor], bases: Mapping[str, Base]) -> list[str]:
        faults = []
        for anchor in anchors:
            if not anchor.count:
                continue
            base = bases.get(anchor.chain)
            if base is not None and base.count == anchor.count:
                found: list[tuple[Any, ...]] = [(base.hash,)]
            else:
                found = self._rows(
                    "SELECT hash FROM entries WHERE chain = :chain AND number = :number",
                    chain=anchor.chain, number=anchor.count - 1,
                )  # fmt: skip
            if not found or bytes(found[0][0]).hex() != anchor.hash:
                faults.append(
                    f"{anchor.chain}: entry {anchor.count - 1} is not the one that was noted"
                )
        return faults

    def _against_requests(self, rows: Sequence[RequestRow]) -> list[str]:
        """Faults: finished requests whose own count of bytes sent is not what the ledger holds, or
        whose reply is missing from it.
        """
        faults: list[str] = []
        ends = dict(self._rows("SELECT chain, max(at) FROM entries GROUP BY chain"))
        lost: dict[str, list[RequestRow]] = {}
        with_beside = {n for n, kind in classes().items() if kind.beside is not Message.beside}
        for row in rows:
            if row.outcome == "killed":  # its own count was lost with the worker
                continue
            query = "SELECT direction, kind, sum(size) FROM entries WHERE request = :request"
            found = self._rows(f"{query} GROUP BY direction, kind", request=row.request)
            sizes: dict[str, int] = {}
            for way, _, size in found:
                sizes[way] = sizes.get(way, 0) + int(size)
            up = sizes.get("up", 0)
            # What crosses beside messages is in the request's own count, and the ledger has it in the
            # content of replies, which need not be kept.
            beside = any(kind in with_beside for _, kind, _ in found)
            if row.bytes_up and not sizes and row.at > ends.get(row.worker, 0.0):
                lost.setdefault(row.worker, []).append(row)
            elif up > row.bytes_up if beside else up != row.bytes_up:
                faults.append(
                    f"request {row.request}: {row.bytes_up} bytes left by its own count,"
                    f" the ledger holds {up}"
                )
            elif _answered_by_lm(row) and "down" not in sizes:
                faults.append(f"request {row.request}: the reply to it is not on record")
        for worker, gone in lost.items():
            sent = f"{sum(row.bytes_up for row in gone)} bytes left for"
            if worker in ends:
                faults.append(
                    f"{worker}: {sent} its last {len(gone)} finished requests, and nothing of them is"
                    " on record: it was cut off, or the ledger is an older copy"
                )
            else:
                faults.append(
                    f"{worker}: {sent} {len(gone)} finished requests, and nothing is on record: the"
                    " ledger was deleted, or is an older copy"
                )
        return faults

    def _checkable(self, chain: str) -> Iterator[Entry]:
        for entry in self._entries(chain):
            self._forgotten += entry.key == "forgotten"
            self._guessable += entry.key_id is None
            if entry.payload is not None and is_sealed(entry.payload) and self._vault is None:
                self._unread += 1
                yield replace(entry, payload=None)
            else:
                yield entry

    def _read(self, entry: Entry) -> Entry:
        if entry.payload is None or not is_sealed(entry.payload):
            return entry
        content = self._vault.unseal(entry.payload) if self._vault is not None else None
        return replace(entry, payload=content)

    def _open_content(self, payload: bytes) -> bytes:
        if self._vault is not None and is_sealed(payload):
            return self._vault.unseal(payload)
        return payload

    def _rows(self, query: str, **marks: object) -> list[tuple[Any, ...]]:
        if query == ROWS:
            if not self._finished:
                return []
            query = self._finished_query
        return self._query(query, marks)


def _answered_by_lm(row: RequestRow) -> bool:
    return row.outcome == "ok" and row.by in ("large", "both") and not row.fallback


@contextmanager
def open_record(
    where: str, *, secret: bytes | None = None, vault: SealVault | None = None
) -> Iterator[OpenRecord]:
    """The record in a store's folder, a run's folder, a ledger's file or a PostgreSQL.

    Args:
        secret: what the heads are sealed with; None for a run's ledger, whose heads are plain.
        vault: unseals contents.

    Raises:
        ConfigError: there is no record there.
        StoreError: it cannot be read.
    """
    if is_postgres(where):
        from cosilo.boundary.record import ledger_postgres
        from cosilo.gateway.record.store_postgres import conninfo

        psycopg = ledger_postgres.import_psycopg()
        try:
            with psycopg.connect(conninfo(where), autocommit=True) as db:
                db.execute("SET statement_timeout = 0")  # a long record takes long to read
                found = db.execute(
                    "SELECT column_name FROM information_schema.columns"
                    " WHERE table_schema = 'cosilo' AND table_name = 'requests'"
                ).fetchall()
                yield OpenRecord(
                    lambda query, marks: db.execute(postgres(query), marks).fetchall(),
                    lambda chain: ledger_postgres.read_entries(db, chain),
                    ledger_postgres.StoredKeys(db),
                    columns=[row[0] for row in found], secret=secret, vault=vault,
                )  # fmt: skip
        except psycopg.Error as error:
            raise StoreError(f"PostgreSQL: {ledger_postgres.said(error)}") from error
        return
    path = folder_of(where)
    file = path / "ledger.sqlite" if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"there is no ledger at {str(file)!r}")
    accounts = file.with_name("accounts.sqlite")
    columns: list[tuple[Any, ...]] = []
    try:
        with ExitStack() as held:
            local = held.enter_context(closing(connect(file)))
            if accounts.is_file():
                local.execute("ATTACH DATABASE ? AS accounts", (str(accounts),))
                columns = local.execute(
                    "SELECT name FROM pragma_table_info('requests', 'accounts')"
                ).fetchall()
            local.execute("PRAGMA query_only = ON")
            keys = held.enter_context(closing(ledger.keys_of(local)))
            yield OpenRecord(
                lambda query, marks: local.execute(query, marks).fetchall(),
                lambda chain: ledger.read_entries(local, chain),
                keys,
                columns=[row[0] for row in columns], secret=secret, vault=vault,
            )  # fmt: skip
    except sqlite3.Error as error:
        raise StoreError(f"the ledger {str(file)!r} cannot be read: {error}") from error


def secret_of(where: str, given: Path | None) -> bytes | None:
    """The secret that the heads of the record `where` are sealed with; None for a run's ledger.

    Args:
        given: the secret's file; else it is $COSILO_SECRET, or the file in the store's folder.

    Raises:
        ConfigError: it is a gateway's record, and the secret is missing.
    """
    if given is not None:
        return read_secret(given, make=False)
    if is_postgres(where):
        if not os.environ.get("COSILO_SECRET"):
            raise ConfigError("the heads are sealed with the gateway's secret: give --secret FILE")
        return read_secret(Path(), make=False)
    path = folder_of(where)
    folder = path if path.is_dir() else path.parent
    if not (folder / "accounts.sqlite").is_file():
        return None
    return read_secret(folder / "secret", make=False)
