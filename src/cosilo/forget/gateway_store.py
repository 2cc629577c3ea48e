"""Requests that a gateway answered, forgotten in its store: SQLite in a folder, or PostgreSQL.

    ids of requests ──▶ their entries' keys are deleted ──▶ read back, searched for ──▶ a certificate
                        the chains verify as before         messages sent on are out of reach

What requests cost and when they came stays, as budgets are made of it; it holds no text.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cosilo import interrupts
from cosilo.benchmark.lock import take_lock
from cosilo.boundary.record.ledger import Entry
from cosilo.boundary.record.shredding import shred
from cosilo.errors import ConfigError, CosiloError, RunBusyError, StoreError
from cosilo.forget import erasure
from cosilo.forget.asked import refuse_unknown
from cosilo.forget.searching import drop_kept, holding, keep_pieces, pieces_file, pieces_of
from cosilo.gateway.record.audit import open_record
from cosilo.gateway.record.store import folder_of, is_postgres, open_store
from cosilo.lineage.artifacts import ArtifactKind
from cosilo.lineage.requests import Evidence, ForgetRequest, ForgetStep, Method, StepState
from cosilo.lineage.store import Lineage
from cosilo.record_keys import Shredded


@dataclass(frozen=True)
class GatewayHome:
    """A gateway's store.

    Attributes:
        url: its folder, or postgresql://…
        folder: where requests to forget and their certificates are kept.
        secret: the file of the gateway's secret, which PostgreSQL takes.
    """

    url: str
    folder: Path
    secret: Path | None = None

    @property
    def place(self) -> str:
        """What it is called; a password in a URL is no part of that."""
        if not is_postgres(self.url):
            return str(self.folder)
        found = urlsplit(self.url)
        return f"postgresql://{found.hostname or ''}{found.path}"

    def names(self, request: str) -> Path:
        """Where the ids, and what is searched for, are kept while a request is under way."""
        return pieces_file(self.folder, request)


def gateway_at(target: str, *, beside: Path | None, secret: Path | None) -> GatewayHome | None:
    """The gateway's store that `target` names; None where it names none.

    Raises:
        ConfigError: one in PostgreSQL, and no folder to keep the certificate in.
    """
    if is_postgres(target):
        if beside is None or not beside.is_dir():
            raise ConfigError(
                "a store in PostgreSQL: give --beside DIR, a folder in which the request and its "
                "certificate are kept"
            )
        return GatewayHome(target, beside.resolve(), secret)
    if target.startswith("sqlite:") or (Path(target) / "accounts.sqlite").is_file():
        folder = folder_of(target).resolve()
        if not (folder / "ledger.sqlite").is_file():
            raise ConfigError(f"there is no gateway's ledger in {str(folder)!r}")
        return GatewayHome(str(folder), folder, secret)
    return None


@contextmanager
def alone(home: GatewayHome) -> Iterator[None]:
    """Nothing else forgets here meanwhile; the gateway may go on.

    Raises:
        RunBusyError: something does.
    """
    try:
        lock = take_lock(home.folder / "forget.lock")
    except RunBusyError:
        raise RunBusyError(
            f"another `cosilo forget` works on {home.place!r}; wait for it"
        ) from None
    try:
        yield
    finally:
        os.close(lock)


@dataclass(frozen=True)
class StoredRequests:
    """What a store has of some requests.

    Attributes:
        ids: of them.
        entries, sent: messages on record, and how many of these went to a large model.
        texts: that are kept.
        others: of other requests, as far as they are kept in clear.
    """

    ids: tuple[str, ...]
    entries: int
    sent: int
    texts: tuple[str, ...]
    others: tuple[str, ...]


def stored(home: GatewayHome, ids: Mapping[str, int]) -> StoredRequests:
    """What there is of the requests of these ids, each with the number of its line.

    Raises:
        ConfigError: there is none of that id, by the number of its line.
        StoreError: the store cannot be read.
    """
    found: set[str] = set()
    texts: list[str] = []
    others: list[str] = []
    entries = sent = 0
    with open_record(home.url) as record:
        for id in ids:
            for left in record.left(request=id):
                found.add(id)
                entries += len(left.entries)
                sent += sum(entry.direction == "up" for entry in left.entries)
                texts += (text for entry in left.entries for text in _texts(entry))
        for entry in record.entries():  # what has a key is sealed, and in no file as it is
            if entry.key_id is None and entry.request not in ids:
                others += _texts(entry)
    refuse_unknown(
        [line for id, line in ids.items() if id not in found],
        "request on record",
        "what the header x-request-id was, and what `cosilo audit show` says",
    )
    return StoredRequests(tuple(sorted(found)), entries, sent, tuple(texts), tuple(others))


def forgotten_before(
    home: GatewayHome, lineage: Lineage, ids: Collection[str]
) -> dict[str, ForgetRequest]:
    """Those of `ids` that a request was about, with it, and of which nothing can be read now."""
    about = [r for r in lineage.requests() if _is_of_store(r)]
    whose = {name: request for request in about for name in lineage.names_of(request.id)}
    known = {id: whose[name] for id in ids if (name := lineage.name(id)) in whose}
    if not known:
        return {}
    with open_record(home.url) as record:
        read = {
            id
            for id in known
            if any(map(_readable, (e for left in record.left(request=id) for e in left.entries)))
        }
    return {id: request for id, request in known.items() if id not in read}


def steps_for(home: GatewayHome, found: StoredRequests) -> tuple[ForgetStep, ...]:
    """What would be done."""
    steps = [
        ForgetStep(
            method=Method.SHRED,
            kind=ArtifactKind.SEALED,
            place=home.place,
            note=f"{found.entries} messages on record",
        ),
        ForgetStep(method=Method.VERIFY, place=home.place, note="read back, and searched for"),
    ]
    if found.sent:
        steps.append(
            ForgetStep(
                method=Method.NONE,
                state=StepState.UNREACHABLE,
                kind=ArtifactKind.ABROAD,
                place=home.place,
                note=f"{found.sent} messages were sent to large models; what these kept is not known",
            )
        )
    return tuple(steps)


def begin_at(home: GatewayHome, lineage: Lineage, found: StoredRequests) -> ForgetRequest:
    """Keep the request, so that it is carried out whatever happens from here on."""
    id = os.urandom(16).hex()
    pieces, without = pieces_of(dict.fromkeys(found.texts), dict.fromkeys(found.others))
    kept = {"requests": found.ids, "pieces": [p.hex() for p in pieces], "without": without}
    keep_pieces(home.names(id), kept)
    return lineage.begin([lineage.name(i) for i in found.ids], steps_for(home, found), id=id)


def left_at(home: GatewayHome, lineage: Lineage) -> list[ForgetRequest]:
    """Requests with something left to do, the oldest first."""
    requests = lineage.requests()
    drop_kept(home.folder, requests)
    return [
        request
        for request in requests
        if _is_of_store(request) and not erasure.finished(request, home.folder)
    ]


def _is_of_store(request: ForgetRequest) -> bool:
    """Whether it is about requests on record; else it is about data that lie there."""
    return bool(request.steps) and request.steps[0].method is Method.SHRED


def carry_out_at(
    home: GatewayHome, lineage: Lineage, request: ForgetRequest, say: Callable[[str], None]
) -> ForgetRequest:
    """Do what is left of `request`, and write its certificate; the caller holds `alone`.

    Raises:
        StoreError: something cannot be read or written; the request goes on where it stopped.
    """
    began, cpu = time.time(), time.process_time()
    # One of a request that goes on is another in the end; without it, `left_at` has it go on to there.
    erasure.certificate_at(home.folder, request.id).unlink(missing_ok=True)
    path = home.names(request.id)
    if path.is_file():
        kept = json.loads(path.read_text("utf-8"))
        ids = frozenset(kept["requests"])
        for number, step in enumerate(request.steps):
            if step.settled:
                continue
            lineage.move(request.id, number, StepState.DOING)
            if step.method is Method.SHRED:
                told = _shredded(home, ids)
                say(f"{home.place}: {told.records} messages are forgotten")
                state = StepState.UNREACHABLE if told.guessable else StepState.DONE
                note = (
                    f"{told.guessable} messages of an earlier version: contents are deleted, and the "
                    "digests that the chain is made of confirm a guess"
                )
                lineage.move(
                    request.id,
                    number,
                    state,
                    evidence=Evidence(
                        what="keys and contents deleted", count=told.records, digest=told.after
                    ),
                    note=note if told.guessable else None,
                )
            else:
                _verify(home, lineage, request.id, number, kept, say)
    (now,) = (r for r in lineage.requests() if r.id == request.id)
    drop_kept(home.folder, lineage.requests())
    erasure.certify(lineage, now, home.folder, began=began, cpu=cpu)
    return now


def _shredded(home: GatewayHome, ids: Collection[str]) -> Shredded:
    if not is_postgres(home.url):
        return shred(home.folder / "ledger.sqlite", ids, chains=None)[-1]

    async def there() -> Shredded:
        store = await open_store(home.url, secret=home.secret, work=False, make=False)
        try:
            return await store.shred(ids)
        finally:
            await store.close()

    return interrupts.run(there)


def _verify(
    home: GatewayHome,
    lineage: Lineage,
    request: str,
    number: int,
    kept: Mapping[str, list[str]],
    say: Callable[[str], None],
) -> None:
    """Read the requests back, and look for their texts in all files of the store."""
    ids = frozenset(kept["requests"])
    with open_record(home.url) as record:
        known = sum(_readable(entry) for entry in record.entries() if entry.request in ids)
    if known:
        raise StoreError(f"{known} messages of {home.place!r} can still be read; forget again")
    what = "none of the messages can be read"
    if not is_postgres(home.url):
        pieces = [bytes.fromhex(piece) for piece in kept["pieces"]]
        files = [f for f in home.folder.rglob("*") if f.is_file() and f != home.names(request)]
        looked = holding(pieces, files)
        if looked.note:
            lineage.move(request, number, StepState.OPEN, note=looked.note)
            say(looked.note)
            return
        what += (
            f"; byte search of {looked.read} files found nothing of {len(pieces)} pieces of text"
        )
    lineage.move(request, number, StepState.DONE, evidence=Evidence(what=what, count=len(ids)))


def _readable(entry: Entry) -> bool:
    """Whether anything that could be forgotten tells what was in it."""
    return entry.payload is not None or (
        entry.key_id is not None and entry.content_digest is not None
    )


def _texts(entry: Entry) -> list[str]:
    if entry.payload is None:
        return []
    try:
        return [passage.text for passage in entry.message.passages()]
    except CosiloError:  # sealed by the gateway's own content keys besides
        return []
