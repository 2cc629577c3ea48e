"""`cosilo audit`: is the record whole, and what left."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosilo import interrupts
from cosilo.errors import ConfigError
from cosilo.report.screen import Screen

if TYPE_CHECKING:
    from cosilo.boundary.record.ledger import Entry
    from cosilo.gateway.record.audit import OpenRecord, RequestRecord
    from cosilo.gateway.record.retention import SealVault

DAY = 86400.0

VERIFY = """\
Find any entry that was altered, is missing, or was moved: by the chain of
hashes, by the sealed heads, and by the counts of finished requests. Exits with 1
if there is any.
"""

SHOW = """\
What left for a request, a key, a day, and what each request cost. Give at least
one; all that are given must fit. Exits with 1 if the request is not on record.

    cosilo audit show LEDGER --key ward-7 --day 2026-11-23
"""

HEADS = """\
How far each chain has come, as lines of JSON. Kept where the record's keeper
cannot write, they show later if a chain was taken away whole or the record put
back to an earlier day:

    cosilo audit heads LEDGER > elsewhere/heads.jsonl
    cosilo audit verify LEDGER --heads elsewhere/heads.jsonl
"""

PURGE = """\
Forget the kept contents of what crossed more than N days ago; this cannot be
undone. Entries, their digests and the chain stay, so the record still verifies,
and a content kept elsewhere can still be held against it. What was freed in the
file is overwritten. The gateway may run meanwhile; `[store] retention_days` does
the same by itself.

    cosilo audit purge LEDGER --days 90
"""


COMPARE = """\
Whether the record of a data owner says the same as that of the LM's owner: every
request and every reply, by their digests. CLIENT is a run, a gateway's folder or a
ledger, and may be several: name all that asked under this client's name, since what
HOST has and they have not is a difference. HOST is the folder or the ledger of
`cosilo host`. Exits with 1 if they differ. Clocks that differ, and requests that
overtook one another, are told and no difference.

    cosilo audit compare runs/desk host --client clinic
"""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "audit",
        help="check the record of what left, and read it",
        description=(
            "The record of everything that crossed. LEDGER is a gateway's folder, a run's folder,\n"
            "a ledger's file, or postgresql://…. A run's is held against what the run noted of it.\n\n"
            "    cosilo audit verify LEDGER\n"
            "    cosilo audit show LEDGER --request ID\n"
            "    cosilo audit show LEDGER --key ID --day 2026-11-23\n"
            "    cosilo audit heads LEDGER > elsewhere/heads.jsonl\n"
            "    cosilo audit verify LEDGER --heads elsewhere/heads.jsonl\n"
            "    cosilo audit archive STORE archive/2026-11\n"
            "    cosilo audit compare RUN HOST"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    verify = actions.add_parser(
        "verify",
        help="find any entry that was altered, is missing, or was moved",
        description=VERIFY.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument(
        "--heads", type=Path, metavar="FILE", help="heads noted earlier with `cosilo audit heads`"
    )
    verify.set_defaults(command=_verify)
    show = actions.add_parser(
        "show",
        help="what left for a request, a key, a day",
        description=SHOW.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument(
        "--request", default="", metavar="ID", help="x-cosilo-request-id of the answer"
    )
    show.add_argument("--key", default="", metavar="ID", help="or its name: see `cosilo keys list`")
    show.add_argument("--day", type=_day, metavar="DATE", help="a day of UTC: 2026-11-23")
    show.add_argument("--content", action="store_true", help="also what was kept of the contents")
    show.set_defaults(command=_show)
    heads = actions.add_parser(
        "heads",
        help="how far each chain has come, to be noted elsewhere",
        description=HEADS.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    heads.set_defaults(command=_heads)
    purge = actions.add_parser(
        "purge",
        help="forget contents older than some days; digests stay",
        description=PURGE.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    purge.add_argument(
        "--days",
        type=float,
        required=True,
        metavar="N",
        help="keep the contents of the last N days",
    )
    purge.set_defaults(command=_purge)
    archive = actions.add_parser(
        "archive",
        help="move the record so far into a folder of its own",
        description=(
            "Move the record so far into a new folder; its chains go on in the store. The gateway\n"
            "must not run meanwhile. That the store goes on where the archive ends, its heads show:\n\n"
            "    cosilo audit archive STORE ARCHIVE\n"
            "    cosilo audit verify ARCHIVE --secret STORE/secret\n"
            "    cosilo audit heads ARCHIVE > elsewhere/heads.jsonl\n"
            "    cosilo audit verify STORE --heads elsewhere/heads.jsonl"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    archive.set_defaults(command=_archive)
    compare = actions.add_parser(
        "compare",
        help="whether the data owner's record and the LM owner's say the same",
        description=COMPARE.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("ours", nargs="+", metavar="CLIENT", help="a run, a gateway, a ledger")
    compare.add_argument("theirs", metavar="HOST", help="the folder or the ledger of the host")
    compare.add_argument(
        "--client", default="", metavar="NAME", help="whose chain in HOST; needed if it has several"
    )
    compare.add_argument(
        "--peer", default="", metavar="NAME", help="which of the plan's large models, if several"
    )
    compare.set_defaults(command=_compare)
    for action in (verify, show, heads, purge, archive):
        action.add_argument(
            "ledger", metavar="LEDGER", help="a gateway's or a run's folder, or postgresql://…"
        )
    archive.add_argument(
        "folder", type=Path, metavar="ARCHIVE", help="the folder to move it to; made anew"
    )
    for action in (verify, show):
        action.add_argument(
            "--content-keys", type=Path, metavar="FILE", help="what contents are sealed with"
        )
    for action in (verify, purge, archive):
        action.add_argument("--secret", type=Path, metavar="FILE", help="the gateway's secret")
    content_key = actions.add_parser(
        "content-key",
        help="make the file of content keys, or put a new key into it",
        description="Contents are sealed with the file's last key; all of its keys unseal.",
    )
    content_key.add_argument("file", type=Path, metavar="FILE", help="made when absent")
    content_key.set_defaults(command=_content_key)


def _verify(arguments: argparse.Namespace) -> int:
    import msgspec

    from cosilo.gateway.record.audit import Anchor

    anchors: list[Anchor] = []
    if arguments.heads:
        try:
            lines = arguments.heads.read_bytes().splitlines()
            anchors = [msgspec.json.decode(line, type=Anchor) for line in lines if line.strip()]
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"cannot read the heads in {str(arguments.heads)!r} ({type(error).__name__})"
            ) from None
    with _record(arguments, sealed=True) as record:
        verdict = record.verify(anchors)
    noted, unnoted = _against_run(arguments.ledger)
    faults = [*verdict.faults, *noted]
    screen = Screen()
    for fault in faults:
        screen.say(fault, indent=2)
    entries = sum(verdict.chains.values())
    screen.say(
        f"{len(faults) or 'no'} faults in {entries} entries of {len(verdict.chains)} chains"
        f" and {verdict.requests} finished requests"
    )
    if not verdict.unsealed:
        screen.say(
            "heads were checked without a secret: whoever can write the file can make them anew"
        )
    if verdict.archived:
        screen.say(f"{verdict.archived} noted heads lie in an archive: verify that with them too")
    if verdict.unread:
        screen.say(f"{verdict.unread} sealed contents were not checked: give --content-keys")
    if verdict.forgotten:
        screen.say(
            f"{verdict.forgotten} entries are forgotten: nothing tells any more what was in them"
        )
    if verdict.guessable:
        screen.say(
            f"{verdict.guessable} entries are guessable, and cannot be reached: their digests are not"
            " masked, so they confirm a guess of what crossed"
        )
    if unnoted:
        screen.say(f"{unnoted} trials of an older version could not be held against the run")
    return 1 if faults else 0


def _against_run(ledger: str) -> tuple[list[str], int]:
    """Where a run's folder holds the ledger, what it lacks of what the run noted; and how many trials
    noted nothing."""
    from cosilo.benchmark.record import OLDER, fault
    from cosilo.benchmark.store import Store

    folder = _run_of(ledger)
    if folder is None:
        return [], 0
    store = Store(folder, write=False)
    try:
        done = [trial for trial in store.trials().values() if trial.state == "done"]
        found = [(trial.point, fault(store, trial)) for trial in done]
    finally:
        store.close()
    faults = [f"{point}: {wrong}" for point, wrong in found if wrong and wrong != OLDER]
    return faults, sum(wrong == OLDER for _, wrong in found)


def _run_of(ledger: str) -> Path | None:
    """The run's folder that holds the ledger; None where it is a gateway's."""
    from cosilo.gateway.record.store import folder_of, is_postgres

    if is_postgres(ledger):
        return None
    path = folder_of(ledger)
    folder = path if path.is_dir() else path.parent
    return folder if (folder / "run.sqlite").is_file() else None


def _show(arguments: argparse.Namespace) -> int:
    if not (arguments.request or arguments.key or arguments.day):
        raise ConfigError("say what to show: --request ID, --key ID or --day DATE")
    screen = Screen()
    since = arguments.day or 0.0
    until = since + DAY if arguments.day else 1e18
    requests, sent, usd = 0, 0, 0.0
    kinds: Counter[str] = Counter()
    served, sides = _run_of(arguments.ledger) is None, _sides(arguments.ledger)
    with _record(arguments) as record:
        key = record.key_id(arguments.key) if arguments.key else ""
        for left in record.left(request=arguments.request, key=key, since=since, until=until):
            requests += 1
            sent += sum(entry.size for entry in left.entries if entry.direction == "up")
            if left.row is not None:
                usd += left.row.spent.usd
                kinds.update(left.row.kinds)
            for line in _about(left, sides, served=served, content=arguments.content):
                if line.lstrip().startswith("content: "):  # JSON: a line break would change it
                    print(line)
                else:
                    screen.say(line, indent=2)
    if not requests and arguments.request:
        print(f"cosilo: no request {arguments.request!r} is on record there", file=sys.stderr)
        return 1
    if not requests:
        print("nothing is on record for that")
        return 0
    what = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "no entities"
    screen.say(f"{requests} requests; {sent} bytes left; {what}; ${usd:.6f}")
    return 0


def _sides(ledger: str) -> dict[str, str]:
    """Chain → the name of the other side that it is of, where a run speaks to several."""
    from cosilo.benchmark.record import chain_of
    from cosilo.benchmark.rows import PASSES
    from cosilo.benchmark.store import Store

    folder = _run_of(ledger)
    if folder is None:
        return {}
    store = Store(folder, write=False)
    try:
        return {
            chain_of(trial.id, road): side
            for trial in store.trials().values()
            for which in PASSES
            for side, road in zip(trial.sides, trial.roads(which), strict=False)
        }
    finally:
        store.close()


def _about(
    left: RequestRecord, sides: Mapping[str, str], *, served: bool, content: bool
) -> Iterator[str]:
    row = left.row
    if row is None:
        yield f"{left.request}: {'not a finished request' if served else 'of a run'}"
    else:
        by = f", answered by {row.by}" if row.by else ""
        yield (
            f"{left.request}: {_when(row.at)}, key {row.key}, {row.point or '?'}"
            f" ({row.strategy or '?'}), {row.outcome} {row.status}{by}, {row.lm_calls} calls,"
            f" {row.spent.tokens} tokens, ${row.spent.usd:.6f}"
        )
        yield f"  processed: {row.processed}"
        if row.disputes:
            yield (
                f"  disputed: {row.disputes} replies claimed more tokens than there can be, or no"
                " number of them; booked is the most it can be"
            )
        if row.kinds:
            yield "  entities that left: " + ", ".join(f"{n} {k}" for k, n in row.kinds.items())
        if row.withheld:
            told = ", ".join(f"{n} {k}" for k, n in row.withheld.items())
            yield f"  placeholders left in answers: {told}"
    for entry in left.entries:
        way = "left" if entry.direction == "up" else "came"
        if side := sides.get(entry.chain):
            way += f" {'for' if entry.direction == 'up' else 'from'} {side}"
        digest = entry.content_digest
        told = f"sha256 {digest.hex()[:16]}…" if digest is not None else "forgotten"
        yield (
            f"  {_when(entry.at)} {way}: {entry.kind}, {entry.size} bytes,"
            f" {told}, {entry.chain} #{entry.number}"
        )
        if content:
            yield f"    {_content(entry.payload)}"


def _content(payload: bytes | None) -> str:
    import msgspec

    if payload is None:
        return "content: not kept, or sealed (--content-keys)"
    # As JSON, so that nothing in it can steer the terminal.
    return "content: " + msgspec.json.encode(msgspec.msgpack.decode(payload)).decode()


def _heads(arguments: argparse.Namespace) -> int:
    import msgspec

    with _record(arguments) as record:
        for anchor in record.anchors():
            print(msgspec.json.encode(anchor).decode())
    return 0


def _purge(arguments: argparse.Namespace) -> int:
    from cosilo.gateway.record.retention import purge_sqlite
    from cosilo.gateway.record.store import folder_of, is_postgres, open_store

    if not 0 <= arguments.days < math.inf:
        raise ConfigError(f"--days {arguments.days:g} is not a number of days")
    before = time.time() - arguments.days * DAY

    async def on_postgres() -> int:
        store = await open_store(arguments.ledger, secret=arguments.secret, work=False, make=False)
        try:
            return await store.purge(before=before)
        finally:
            await store.close()

    if is_postgres(arguments.ledger):
        count = interrupts.run(on_postgres)
    else:
        path = folder_of(arguments.ledger)
        file = path / "ledger.sqlite" if path.is_dir() else path
        if not file.is_file():
            raise ConfigError(f"there is no ledger at {str(file)!r}")
        count = purge_sqlite(file, before)
    print(f"{count} contents forgotten; their digests stay")
    return 0


def _archive(arguments: argparse.Namespace) -> int:
    from cosilo.gateway.accounts.keys import read_secret
    from cosilo.gateway.record.archive import archive
    from cosilo.gateway.record.store import folder_of, is_postgres

    if is_postgres(arguments.ledger):
        raise ConfigError(
            "a record in PostgreSQL is archived with its own tools: pg_dump, partitions"
        )
    store = folder_of(arguments.ledger)
    secret = read_secret(arguments.secret or store / "secret", make=False)
    count = archive(store, arguments.folder, secret)
    print(
        f"{count} entries are in {str(arguments.folder)!r} now; the chains go on in {str(store)!r}"
    )
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from cosilo.boundary.record.agreement import compare, missing
    from cosilo.gateway.record.audit import open_record
    from cosilo.parties.remote import NETWORK

    ours: list[Entry] = []
    faults: list[str] = []
    files = [Path(name) / NETWORK for name in arguments.ours]
    peer = f"{arguments.peer}/" if arguments.peer else ""
    by_id = all(file.is_file() for file in files)
    for name, file in zip(arguments.ours, files, strict=True):
        with open_record(str(file) if by_id else name) as record:
            found = [e for e in record.entries() if not peer or e.chain.startswith(peer)]
        ours += found
        if by_id:
            with open_record(name) as record:
                # What is asked for the run as a whole crossed in none of its trials.
                trials = (e for e in found if e.kind not in ("Forget", "Forgotten"))
                lacking = missing(trials, record.entries())
            if lacking:
                faults.append(f"{lacking} messages that crossed are not on the record of {name!r}")
    if peer and not ours:
        raise ConfigError(f"nothing on record here was sent to a host named {arguments.peer!r}")
    with open_record(arguments.theirs) as record:
        chains = list(record.heads())
        chain = arguments.client or (chains[0] if len(chains) == 1 else "")
        if chain not in chains:
            known = ", ".join(map(repr, chains)) or "no client"
            raise ConfigError(
                f"say whose chain it is, --client NAME: {arguments.theirs!r} has {known}"
            )
        agreement = compare(ours, record.entries(chain), by_id=by_id)
    screen = Screen()
    faults += agreement.faults
    for fault in faults:
        screen.say(fault, indent=2)
    screen.say(f"{len(faults) or 'no'} differences; {agreement.agreed} exchanges are the same")
    if agreement.unheard:
        screen.say(f"{agreement.unheard} requests without a reply are on one record alone")
    if agreement.forgotten:
        screen.say(
            f"{agreement.forgotten} exchanges are forgotten on one side: what was in them cannot be"
            " compared any more"
        )
    if agreement.overtook:
        screen.say(f"{agreement.overtook} requests overtook others on the way")
    if abs(agreement.clock) > 1:
        ahead = "ahead of" if agreement.clock > 0 else "behind"
        screen.say(f"the host's clock is {abs(agreement.clock):.0f} s {ahead} the client's")
    return 1 if faults else 0


def _content_key(arguments: argparse.Namespace) -> int:
    from cosilo.gateway.record.retention import add_content_key

    print(f"key {add_content_key(arguments.file)} seals from now on", file=sys.stderr)
    return 0


@contextmanager
def _record(arguments: argparse.Namespace, *, sealed: bool = False) -> Iterator[OpenRecord]:
    from cosilo.gateway.record.audit import open_record, secret_of

    secret = secret_of(arguments.ledger, arguments.secret) if sealed else None
    with open_record(arguments.ledger, secret=secret, vault=_vault(arguments)) as record:
        yield record


def _vault(arguments: argparse.Namespace) -> SealVault | None:
    from cosilo.gateway.record.retention import read_vault

    path = getattr(arguments, "content_keys", None)
    return read_vault(path) if path else None


def _day(text: str) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2026-11-23") from None


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
