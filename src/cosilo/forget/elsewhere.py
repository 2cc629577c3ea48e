"""What parties on other machines have of a run's records, and asking them to forget it.

    before a run is made again   names of federations and adapters, from the record's contents
    afterwards                   ids of requests that the run does not make as it is now
         │ both kept in a file, so that whoever asks again asks the same
         ▼
    Forget ──▶ party ──▶ Forgotten, whose signature holds ──▶ kept beside the certificate
                                                                  └─▶ the ids' keys are deleted here

A run that was made again makes the requests of one that never saw the records. So what its party has
besides, and nothing else, may hold some of them. Names are random ids and hashes: no content crosses.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from cosilo import interrupts
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Forget, Forgotten, decode, encode
from cosilo.boundary.record.ledger import Entry, connect, read_entries
from cosilo.boundary.record.shredding import shred
from cosilo.boundary.record.signed import Trust, require_signed
from cosilo.databases import made_private
from cosilo.errors import CosiloError, StoreError
from cosilo.forget.files import replace_file
from cosilo.forget.home import DataRun
from cosilo.lineage.requests import Evidence, ForgetStep, StepState
from cosilo.parties.held_elsewhere import HeldElsewhere, held_elsewhere
from cosilo.parties.remote import NETWORK, PARTY, RemoteOwner, noted, way_to
from cosilo.parties.to_forget import StillOpen, ask_to_forget
from cosilo.session import make_large

_PATIENCE = 10.0  # seconds for a broken way: the request stays open, and is asked again another day


def peer_of(step: ForgetStep) -> str:
    """What the party that a step asks is called in its run's plan."""
    return step.artifact.partition("/sent/")[2]


def askable(run: DataRun, peer: str) -> bool:
    """Whether the party can be asked to forget: it is reached by its certificate, which its answer is
    checked by, and ids of requests to it are on record."""
    config = run.plan.peers.get(peer)
    if config is None or config.kind != PARTY or not config.options.get("ca"):
        return False
    return next(_sent(run, peer), None) is not None


def address_of(run: DataRun, peer: str) -> str:
    """Where the party is reached, as the plan says."""
    return str(run.plan.peers[peer].options["url"])


def held_of(run: DataRun, peer: str, trials: Collection[str]) -> HeldElsewhere:
    """What the party has of these trials besides requests, as far as contents are on record.

    Raises:
        StoreError: the record cannot be read.
    """
    crossed = (e for e in _crossed(run, peer) if e.chain.partition("/")[0] in trials)
    return held_elsewhere((), crossed)


def keep_names(path: Path, held: HeldElsewhere) -> None:
    """Keep what will be asked, but the ids of requests: these are known once the run is made again."""
    replace_file(path, msgspec.json.encode({"held": held, "requests": None}))


@dataclass(frozen=True)
class PartyAnswer:
    """What came of asking a party.

    Attributes:
        note: what is still there at its owner's, or why it is open; empty where nothing is.
    """

    state: StepState
    evidence: Evidence | None = None
    note: str = ""


def ask_party(
    run: DataRun, peer: str, *, forget: str, until: float, names: Path, answers: Path,
    say: Callable[[str], None],
) -> PartyAnswer:  # fmt: skip
    """Ask the party to forget what `names` has. Called again, it asks the same, or does nothing; the
    caller holds the run's lock.

    Args:
        forget: the id of what is asked, of this party alone.
        until: seconds since 1970 until which it is expected to answer.
        answers: where what it signed is kept.
        say: is told why it stays open.

    Raises:
        StoreError: something here cannot be read or written.
    """
    if not answers.is_file():
        held = _names(run, peer, names)
        asked = held.asked(forget)
        told = _asked(run, peer, asked, until) if asked else []
        if isinstance(told, StillOpen):
            say(f"{peer} at {address_of(run, peer)} has not forgotten: {told.why}")
            why = (
                "no answer so far" if told.answer is None else "an answer that is not signed by it"
            )
            return PartyAnswer(StepState.OPEN, note=f"{why}; the same command asks again")
        kept = {
            "format": 1,
            "host": _trust(run, peer).host,
            "answers": [encode(answer).hex() for answer in told],
        }
        replace_file(answers, (json.dumps(kept, indent=1) + "\n").encode())
    if names.is_file():
        requests = _names(run, peer, names).requests
        network = run.folder / NETWORK
        if network.is_file():  # it may have been deleted since, and what it held with it
            with closing(connect(network)) as db:
                chains = _roads(db, peer)  # another party may have the same ids
            shred(network, requests, chains=chains)
        names.unlink()
    return _verdict(answers)


def unasked(run: DataRun, asked: Collection[str]) -> list[str]:
    """The parties that the run spoke to over the network and that are not among `asked`."""
    network = run.folder / NETWORK
    if not network.is_file():
        return []
    with closing(connect(network)) as db:
        return sorted({chain.rpartition("/")[0] for chain in _chains(db)} - set(asked))


def shred_unasked(run: DataRun, peers: Collection[str]) -> tuple[int, int]:
    """Delete the keys of requests that went over the network to `peers`, which nobody asks, and that
    the run as it is now does not make: with them a guess of what was sent can be confirmed.

    Returns:
        How many messages on record these were, and how many of them had no key: an earlier version's,
        whose digests stay.

    Raises:
        StoreError: a file cannot be read or written.
    """
    count = bare = 0
    for peer in peers:
        with closing(connect(run.folder / NETWORK)) as db:
            chains = _roads(db, peer)
        for told in shred(run.folder / NETWORK, _no_more(run, peer), chains=chains):
            count, bare = count + told.records, bare + told.guessable
    return count, bare


def signed_answers(path: Path, ca: Path) -> tuple[str, list[Forgotten]]:
    """Which host signed, and what, as `ask_party` kept it; each signature is looked at.

    Args:
        ca: the file of the authority that vouches for the party.

    Raises:
        StoreError: it holds no answers.
        ConfigError: the authority's file cannot be read.
        UnexpectedReplyError: one is not signed by the host that the file names, or was changed.
    """
    host, found = _answers(path.read_bytes(), path)
    trust = Trust.of(f"https://{host}", ca, host)
    for answer in found:
        require_signed(answer, trust)
    return host, found


def _answers(data: bytes, path: Path) -> tuple[str, list[Forgotten]]:
    try:
        told = json.loads(data)
        found = [_forgotten(bytes.fromhex(answer)) for answer in told["answers"]]
        host = str(told["host"])
    except (ValueError, KeyError, TypeError, CosiloError) as error:
        raise StoreError(
            f"{str(path)!r} does not hold what a party signed ({type(error).__name__}); move it away "
            "to have it asked again"
        ) from None
    return host, found


def _forgotten(data: bytes) -> Forgotten:
    answer = decode(data)
    if not isinstance(answer, Forgotten):
        raise ValueError("another message")
    return answer


def _verdict(path: Path) -> PartyAnswer:
    data = path.read_bytes()
    _, found = _answers(data, path)
    outcomes = [o for answer in found for o in answer.outcomes]
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        counts[outcome.how] += max(len(outcome.names), 1)
    left = sorted({word for outcome in outcomes for word in outcome.left})
    what = ", ".join(f"{count} {how}" for how, count in sorted(counts.items()))
    evidence = Evidence(
        what=f"the party signed: {what}"
        if what
        else "it has nothing that the run would not ask now",
        count=sum(counts.values()),
        digest=hashlib.sha256(data).hexdigest(),
    )
    if counts["cannot"] or left:
        why = ", ".join(left) or "it says that it cannot"
        return PartyAnswer(StepState.UNREACHABLE, evidence, f"left there: {why}")
    if counts["approximate"]:
        why = "taken out of what was made with it, not made again without"
        return PartyAnswer(StepState.APPROXIMATE, evidence, why)
    return PartyAnswer(StepState.DONE, evidence)


# ── asking ───────────────────────────────────────────────────────────────────


def _asked(
    run: DataRun, peer: str, messages: Sequence[Forget], until: float
) -> list[Forgotten] | StillOpen:
    try:
        trust = _trust(run, peer)
        config = run.plan.peers[peer]
        patience = min(float(config.options.get("patience_s", _PATIENCE)), _PATIENCE)
        owner = make_large(replace(config, options={**config.options, "patience_s": patience}))
        assert isinstance(owner, RemoteOwner)
        owner = noted(owner, made_private(run.folder / NETWORK), peer)
    except CosiloError as error:  # a file of certificates is not there, for one
        return StillOpen(until, str(error))

    async def all_of_them() -> list[Forgotten] | StillOpen:
        found: list[Forgotten] = []
        try:
            for message in messages:
                told = await ask_to_forget(way_to(owner), message, until=until, trust=trust)
                if isinstance(told, StillOpen):
                    return told
                found.append(told)
        finally:
            await owner.close()
        return found

    return interrupts.run(all_of_them)


def _trust(run: DataRun, peer: str) -> Trust:
    options = run.plan.peers[peer].options
    return Trust.of(str(options["url"]), Path(options["ca"]), str(options.get("server_name", "")))


# ── names ────────────────────────────────────────────────────────────────────


class _Kept(msgspec.Struct):
    held: HeldElsewhere
    requests: tuple[str, ...] | None


def _names(run: DataRun, peer: str, path: Path) -> HeldElsewhere:
    """What is asked; the ids of requests are found at the first call, and stay the same."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"{str(path)!r} cannot be read ({type(error).__name__})") from None
    if kept.requests is None:
        kept.requests = _no_more(run, peer)
        replace_file(path, msgspec.json.encode(kept))
    return replace(kept.held, requests=kept.requests)


def _no_more(run: DataRun, peer: str) -> tuple[str, ...]:
    """The ids of requests to the party that the run as it is now does not make."""
    now = {entry.content_digest for entry in _crossed(run, peer) if entry.direction == "up"}
    now.add(None)  # was forgotten before
    there = [entry for entry in _sent(run, peer) if entry.content_digest not in now]
    return held_elsewhere(there, ()).requests


def _crossed(run: DataRun, peer: str) -> Iterator[Entry]:
    """What is on the run's record of messages to the party and back."""
    ledger = run.folder / "ledger.sqlite"
    if not ledger.is_file():
        return
    store = Store(run.folder, write=False)
    try:
        ours = tuple(run.plan.peers)
        first = {t.id for t in store.trials().values() if (t.named or ours)[:1] == (peer,)}
    finally:
        store.close()

    def of_it(chain: str) -> bool:
        trial, _, road = chain.partition("/")
        other = road.rpartition("peers/")[2] if "peers/" in road else ""
        return other == peer or (not other and (len(ours) == 1 or trial in first))

    with closing(connect(ledger)) as db:
        for chain in _chains(db):
            if of_it(chain):
                yield from read_entries(db, chain)


def _sent(run: DataRun, peer: str) -> Iterator[Entry]:
    """Requests that went over the network to the party."""
    network = run.folder / NETWORK
    if not network.is_file():
        return
    with closing(connect(network)) as db:
        for chain in _roads(db, peer):
            for entry in read_entries(db, chain):
                if entry.direction == "up" and entry.kind != Forget.__name__:
                    yield entry


def _roads(db: sqlite3.Connection, peer: str) -> list[str]:
    """The chains of what went over the network to the party."""
    return [chain for chain in _chains(db) if chain.rpartition("/")[0] == peer]


def _chains(db: sqlite3.Connection) -> list[str]:
    return [chain for (chain,) in db.execute("SELECT chain FROM heads ORDER BY chain").fetchall()]
