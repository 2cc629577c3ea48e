"""What the host writes down: its ledger, what clients took, and answers to be asked for again.

    host/ledger.sqlite   entries, heads   one hash-chained chain for each client
                         requests         under way, or answered of late: a retry gets the same bytes
                         taken, prompts   for limits, by client and day
                         processes        what each took of this machine (`used.py`)
                         forgets          what clients asked to forget, and what they were told
         lock                             one process at a time

What belongs together is one transaction: a request's entry with what is set aside for it, a reply's
entry with what it took and the bytes of the answer. After a `kill -9` all of it is there, or nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cosilo.boundary.messages import Message
from cosilo.boundary.record.ledger import Keep, SqliteLedger, Statement, connect
from cosilo.databases import made_private
from cosilo.errors import StoreError
from cosilo.host.limits import NAMES, ClientAccount, ClientLimits, Taken, day_of, taken
from cosilo.host.used import LEDGER, OwnEffort
from cosilo.host.used import SCHEMA as USED

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS requests (
    client TEXT NOT NULL, id TEXT NOT NULL, pieces INTEGER NOT NULL, digest BLOB NOT NULL,
    held BLOB NOT NULL, at REAL NOT NULL, answer BLOB,
    PRIMARY KEY (client, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS taken (
    client TEXT NOT NULL, day TEXT NOT NULL, {", ".join(f"{name} NUMERIC NOT NULL" for name in NAMES)},
    PRIMARY KEY (client, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS prompts (
    client TEXT NOT NULL, prompt BLOB NOT NULL, request TEXT, PRIMARY KEY (client, prompt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forgets (
    client TEXT NOT NULL, id TEXT NOT NULL, part INTEGER NOT NULL, asked TEXT NOT NULL,
    planned BLOB NOT NULL, answer BLOB, PRIMARY KEY (client, id, part)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS salt (salt BLOB NOT NULL);
{USED}
"""
_TAKE = (
    f"INSERT INTO taken VALUES (?,?,{','.join('?' * len(NAMES))})"
    " ON CONFLICT (client, day) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in NAMES)
)
_BEGUN = "INSERT INTO requests VALUES (?,?,?,?,?,?,NULL)"
_REFUSED = "INSERT INTO requests VALUES (?,?,?,?,?,?,?)"
_ANSWERED = "UPDATE requests SET answer = ?, at = ? WHERE client = ? AND id = ?"
_FORGET = "DELETE FROM requests WHERE client = ? AND id = ?"
_PROMPT = "INSERT OR IGNORE INTO prompts (client, prompt, request) VALUES (?,?,?)"
_COLUMNS = "SELECT name FROM pragma_table_info('prompts')"


@dataclass(frozen=True, kw_only=True)
class KeptAnswers:
    """How long answers are kept for a client that did not receive them: until they are `seconds` old,
    or more than `count` or `bytes` of one client's are newer."""

    seconds: float = 600.0
    count: int = 1000
    bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.count < 1 or self.bytes < 1:
            raise ValueError("answers must be kept for some time: seconds, count and bytes above 0")


@dataclass(frozen=True)
class Begun:
    """A request on record.

    Attributes:
        pieces: the reply is wanted in pieces.
        digest: SHA-256 of its bytes.
        number: its entry in the ledger, where this process made it.
        held: what is set aside for it.
    """

    pieces: bool
    digest: bytes
    number: int | None
    held: Taken


class HostBooks:
    """The books of one host, open in one process.

    Raises:
        StoreError: the folder cannot be written, or another process has it.
    """

    def __init__(
        self, folder: Path, *, keep: Keep = "digest", kept: KeptAnswers | None = None
    ) -> None:
        self.path = folder / LEDGER
        self._keep: Keep = keep
        self._kept = kept or KeptAnswers()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot write to {str(folder)!r}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StoreError(f"another host has the books in {str(folder)!r}") from None
        try:
            self._db = connect(made_private(self.path))
            self._db.executescript(_SCHEMA)
            columns = {row[0] for row in self._db.execute(_COLUMNS)}
            if "request" not in columns:  # begun before it was noted
                self._db.execute("ALTER TABLE prompts ADD COLUMN request TEXT")
            found = self._db.execute("SELECT salt FROM salt").fetchone()
            if found is None:
                found = (secrets.token_bytes(32),)
                self._db.execute("INSERT INTO salt VALUES (?)", found)
            self._effort = OwnEffort(self._db)
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {str(self.path)!r}: {error}") from None
        self._salt: bytes = found[0]

    def of(self, client: str, total: ClientLimits, day: ClientLimits) -> ClientBooks:
        """The books of one client.

        Raises:
            StoreError: they cannot be read.
        """
        ledger = SqliteLedger(self.path, client, keep=self._keep)
        columns = ", ".join(f"sum({name})" for name in NAMES)
        query = f"SELECT {columns} FROM taken WHERE client = ?"
        today = day_of(time.time())
        try:
            before = _read(self._db.execute(query, (client,)).fetchone())
            now = _read(self._db.execute(f"{query} AND day = ?", (client, today)).fetchone())
            rows = self._db.execute(
                "SELECT id, pieces, digest, held, at, length(answer) FROM requests"
                " WHERE client = ? ORDER BY at",
                (client,),
            ).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {str(self.path)!r}: {error}") from None
        begun = {row[0]: Begun(bool(row[1]), row[2], None, taken(row[3])) for row in rows}
        open_ids = [row[0] for row in rows if row[5] is None]
        held = sum((begun[name].held for name in open_ids), Taken())
        account = ClientAccount(client, total, day, before=before, today=now, held=held)
        answered = OrderedDict((row[0], (row[4], row[5])) for row in rows if row[5] is not None)
        return ClientBooks(
            client, account, ledger, self._db, self._salt, self._effort, self._kept, begun, answered
        )

    def close(self) -> None:
        with suppress(sqlite3.Error):  # the disk is full: what was served stays served
            self._effort.close()
        self._db.close()
        os.close(self._lock)


class ClientBooks:
    """One client's chain, account, and requests that it may send again.

    Attributes:
        db: where they are.
        working: the ids of its requests that are worked on now.
    """

    def __init__(
        self,
        client: str,
        account: ClientAccount,
        ledger: SqliteLedger,
        db: sqlite3.Connection,
        salt: bytes,
        effort: OwnEffort,
        kept: KeptAnswers,
        begun: dict[str, Begun],
        answered: OrderedDict[str, tuple[float, int]],
    ) -> None:
        self.client = client
        self.account = account
        self.ledger = ledger
        self.db = db
        self._salt = salt
        self._effort = effort
        self._kept = kept
        self._begun = begun
        self._answered = answered  # when, and how many bytes
        self._bytes = sum(size for _, size in answered.values())
        self.working: Collection[str] = ()

    def begun(self, name: str) -> Begun | None:
        """The request `name`, where it is under way or its answer is kept."""
        return self._begun.get(name)

    def answer(self, name: str) -> bytes | None:
        """The answer to the request `name`, as it was; None where it has none yet.

        Raises:
            StoreError: it cannot be read.
        """
        if name not in self._answered:
            return None
        query = "SELECT answer FROM requests WHERE client = ? AND id = ?"
        try:
            row = self.db.execute(query, (self.client, name)).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"an answer cannot be read: {error}") from None
        if row is None or not isinstance(row[0], bytes):
            raise StoreError("an answer that was kept is gone")
        return row[0]

    def known(self, name: str) -> bool:
        """Whether the request `name` was ever worked on for this client."""
        query = "SELECT 1 FROM entries WHERE request = ? AND chain = ? LIMIT 1"
        try:
            return self.db.execute(query, (name, self.client)).fetchone() is not None
        except sqlite3.Error as error:
            raise StoreError(f"the ledger cannot be read: {error}") from None

    def new_prompts(self, prompts: Sequence[object]) -> list[bytes]:
        """Those prompts that this client has not sent before, as they are kept: keyed hashes."""
        hashed = {
            hmac.digest(self._salt, msgspec.msgpack.encode(prompt), hashlib.sha256)
            for prompt in prompts
        }
        query = "SELECT 1 FROM prompts WHERE client = ? AND prompt = ?"
        return [h for h in hashed if not self.db.execute(query, (self.client, h)).fetchone()]

    async def begin(
        self,
        name: str,
        message: Message,
        payload: bytes,
        *,
        pieces: bool,
        held: Taken,
        prompts: Sequence[bytes],
    ) -> Begun:
        """Put a request on record, with what is set aside for it.

        Raises:
            StoreError: that failed; it must not be worked on.
        """
        digest = hashlib.sha256(payload).digest()
        row = (self.client, name, pieces, digest, msgspec.msgpack.encode(held), time.time())
        beside: list[Statement] = [(_BEGUN, row)]
        beside += [(_PROMPT, (self.client, prompt, name)) for prompt in prompts]
        number = await self.ledger.append(name, "up", message, payload, beside=beside)
        begun = self._begun[name] = Begun(pieces, digest, number, held)
        return begun

    async def refused(
        self, name: str, message: Message, payload: bytes, answer: bytes, *, pieces: bool
    ) -> None:
        """Put a request on record that is not worked on, as `answer` says. It counts as a message."""
        cost, now = Taken(messages=1), time.time()
        begun = Begun(pieces, hashlib.sha256(payload).digest(), None, Taken())
        self.account.settle(Taken(), cost)
        held = msgspec.msgpack.encode(begun.held)
        beside: list[Statement] = [
            self._take(cost),
            (_REFUSED, (self.client, name, pieces, begun.digest, held, now, answer)),
        ]
        beside += self._forgotten(len(answer), now)
        await self.ledger.append(name, "up", message, payload, beside=beside)
        self._keep(name, begun, len(answer), now)

    async def end(
        self,
        name: str,
        begun: Begun,
        reply: Message | None,
        encoded: bytes,
        answer: bytes,
        cost: Taken,
    ) -> None:
        """Put what answers a request on record, with what it took.

        Args:
            reply: what the model answered, `encoded`; None where it answered nothing.
            answer: the bytes that a retry gets.
        """
        now = time.time()
        beside = [self._take(cost), (_ANSWERED, (answer, now, self.client, name))]
        beside += [*self._forgotten(len(answer), now), *self._effort.due()]
        if reply is None:
            self._write(beside)
        else:
            number = self._number(name) if begun.number is None else begun.number
            await self.ledger.append(name, "down", reply, encoded, number, beside=beside)
        self.account.settle(begun.held, cost)
        self._keep(name, begun, len(answer), now)

    def let_go(self, names: Sequence[str]) -> list[Statement]:
        """Keep no answers to these requests any longer, and what was set aside for those that a former
        process did not answer as taken; none is worked on now. What that takes in the database."""
        done: list[Statement] = []
        for name in names:
            begun = self._begun.pop(name, None)
            if begun is None:
                continue
            if name in self._answered:
                self._bytes -= self._answered.pop(name)[1]
            else:
                done.append(self._take(begun.held))
                self.account.settle(begun.held, begun.held)
            done.append((_FORGET, (self.client, name)))
        return done

    def close(self) -> None:
        self.ledger.close()

    def _take(self, cost: Taken) -> Statement:
        return _TAKE, (self.client, self.account.day(), *msgspec.structs.astuple(cost))

    def _keep(self, name: str, begun: Begun, size: int, now: float) -> None:
        self._begun[name] = begun
        self._answered[name] = (now, size)
        self._bytes += size

    def _forgotten(self, more: int, now: float) -> list[Statement]:
        """Forget the answers that are kept no longer once one of `more` bytes comes: an eighth at once
        where there are too many, as each that is deleted alone costs as much as all of them."""
        count, size = self._kept.count, self._kept.bytes
        if len(self._answered) >= count or self._bytes + more > size:
            count, size = count * 7 // 8, size * 7 // 8
        old: list[Statement] = []
        while self._answered:
            name, (at, long) = next(iter(self._answered.items()))
            few = len(self._answered) <= count and self._bytes + more <= size
            if few and now - at <= self._kept.seconds:
                break
            del self._answered[name], self._begun[name]
            self._bytes -= long
            old.append((_FORGET, (self.client, name)))
        return old

    def _number(self, name: str) -> int:
        query = "SELECT number FROM entries WHERE request = ? AND chain = ? AND direction = 'up'"
        return int(self.db.execute(query, (name, self.client)).fetchone()[0])

    def _write(self, statements: Sequence[Statement]) -> None:
        try:
            self.db.execute("BEGIN IMMEDIATE")
            for sql, values in statements:
                self.db.execute(sql, values)
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise StoreError(f"cannot write {LEDGER}: {error}") from None


def _read(row: tuple[float | None, ...]) -> Taken:
    values = dict(zip(NAMES, row, strict=True))
    return Taken(**{name: value or 0 for name, value in values.items()})  # type: ignore[arg-type]
