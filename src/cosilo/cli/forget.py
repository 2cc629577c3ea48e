"""`cosilo forget`: a request to forget records, followed to everything that was made from them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosilo.errors import ConfigError

if TYPE_CHECKING:
    from cosilo.forget.asked import AskedRecords
    from cosilo.forget.carrying_out import Carried
    from cosilo.forget.gateway_store import GatewayHome
    from cosilo.forget.home import DataHome
    from cosilo.lineage.requests import ForgetRequest
    from cosilo.lineage.store import Lineage

DESCRIPTION = """\
Forget records: leave them out of the data files, make every run of these files again as if it had never
seen them (from recorded answers; no large model is called), delete bundles and reports, withdraw
certificates, have what serves a point prepare it again, search all files for what is left, ask the
parties elsewhere that runs spoke to, and sign what was done. What was made from what, the runs have
noted (lineage.sqlite).

    cosilo forget RUN --ids @ids.txt --plan        say what would be done, and what it costs
    cosilo forget RUN --ids @ids.txt --plan --page plan.html    the same, drawn as a graph
    cosilo forget RUN --ids @ids.txt               do it; the same command goes on after a kill
    cosilo forget data.jsonl --where @where.toml   records with  customer = "C-17"
    cosilo forget DATA --deleted RUN               go on without a run that you deleted since
    cosilo forget RUN --ids -                      ids from standard input, one a line
    cosilo forget STORE --ids @requests.txt        requests that a gateway answered, in its store
    cosilo forget status RUN                       what of earlier requests still stands
    cosilo forget verify erasure-….json            check the signature of a certificate
    cosilo forget verify forgotten-….json --ca CA  check what a party signed

Ids and conditions come from a file or standard input, never from the command line, and stand in no
log and no error: these name lines; parties elsewhere are told random ids and hashes. Exit code: 0 all
that can be done is done; 1 a step is open, as a party has not answered: the same command asks it again;
2 an id that no record has, or no run of these data; 4 a store that can only be read, or another forget
is under way."""

OPEN = 1


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "forget",
        help="forget records, and all that was made from them",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target",
        nargs="+",
        metavar="DATA|RUN|STORE",
        help="a data file, a folder of some, a run of them, or a gateway's store; or: status TARGET; "
        "verify FILE",
    )
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument(
        "--ids", metavar="@FILE|-", help="ids of records, or of a gateway's requests, one a line"
    )
    whom.add_argument(
        "--where", metavar="@FILE|-", help="a TOML table: column = value, or a list of values"
    )
    parser.add_argument(
        "--plan", action="store_true", help="say what would be done and stop; nothing is changed"
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="with --plan: draw what was made from the records, and what would become of it (HTML)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="where else runs of the data are; repeatable",
    )
    parser.add_argument(
        "--deleted",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a run or a data file that you deleted since a request began: what lay in it is not asked "
        "for any more, and the certificate says that you said so; repeatable",
    )
    parser.add_argument(
        "--no-retrain",
        action="store_true",
        help="empty the runs and make nothing again: `cosilo bench` does it later",
    )
    parser.add_argument(
        "--take-down",
        action="store_true",
        help="end what serves a point made from the records, instead of having it prepared again",
    )
    parser.add_argument(
        "--deadline-days",
        type=float,
        default=30.0,
        metavar="N",
        help="days that other parties have to answer before status says that the time is over",
    )
    parser.add_argument(
        "--secret", type=Path, metavar="FILE", help="of a gateway, for a store in PostgreSQL"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="DIR",
        help="where the request and its certificate are kept for a store in PostgreSQL",
    )
    parser.add_argument("--key", default="", metavar="HEX", help="verify: the key it must have")
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="verify: what a party signed (forgotten-….json), by the authority that vouches for it",
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    verb, *rest = arguments.target
    if verb == "verify" and rest:
        if arguments.ca is not None:
            return _verify_answers(Path(_only(rest)), arguments.ca)
        return _verify(Path(_only(rest)), arguments.key)
    if verb == "status" and rest:
        return _status(arguments, _only(rest))
    target = _only(arguments.target)
    if (gateway := _gateway(arguments, target)) is not None:
        return _forget_requests(arguments, gateway)
    return _forget(arguments, Path(target))


def _only(given: list[str]) -> str:
    if len(given) != 1:
        raise ConfigError(f"{len(given)} targets are given; one at a time")
    return given[0]


def _forget(arguments: argparse.Namespace, target: Path) -> int:
    from cosilo.forget.asked import read_ids, read_where
    from cosilo.forget.carrying_out import begin, carry_out, left, one_at_a_time
    from cosilo.forget.erasure import LOADS
    from cosilo.forget.home import (
        home_of,
        refuse_read_only,
        require_columns,
        require_runs,
        rows_of,
    )
    from cosilo.forget.picture import plan_page
    from cosilo.forget.planning import files_deleted, plan_for, said
    from cosilo.forget.remaking import refuse_under_way
    from cosilo.lineage.store import Lineage
    from cosilo.models.present import require_present
    from cosilo.report.html import write_page

    asked = None
    if arguments.ids is not None:
        asked = read_ids(arguments.ids)
    elif arguments.where is not None:
        asked = read_where(arguments.where)
    home = home_of(target, arguments.runs)
    deleted = _deleted(home, arguments.deleted)
    if not 0 < arguments.deadline_days < 36500:
        raise ConfigError(
            f"--deadline-days {arguments.deadline_days:g} is no number of days above 0"
        )
    retrain = not arguments.no_retrain
    planned = partial(
        plan_for,
        home,
        take_down=arguments.take_down,
        retrain=retrain,
        days=arguments.deadline_days,
    )
    if arguments.plan:
        if asked is None:
            raise ConfigError("--plan: say whom to forget, with --ids or --where")
        require_runs(home, target)
        require_columns(home, asked)
        records = rows_of(home, asked)
        if not records.rows:
            print("no record fits")
            return 0
        plan = planned(records)
        print("\n".join(said(plan, retrain=retrain)))
        if arguments.page is not None:
            write_page(plan_page(home, records, plan), arguments.page)
            print(f"page: {arguments.page}")
        return 0
    if arguments.page is not None:
        raise ConfigError("--page draws a plan: give it with --plan")
    require_present(LOADS)
    refuse_read_only(home)
    with one_at_a_time(home):
        for found in home.runs:
            refuse_under_way(found)
        done: list[Carried] = []
        gone, known = set[str](), False
        for folder in home.folders[::-1]:  # new requests are kept in the first
            there = replace(home, folder=folder, earlier=())
            with Lineage(folder) as lineage:
                for request in left(there, lineage):
                    print(f"request {request.id[:12]} goes on")
                    done.append(carry_out(there, lineage, request, _say, deleted=deleted))
                gone |= set() if asked is None else _gone_ids(lineage, asked)
                known = known or bool(lineage.requests())
        if asked is not None and not done:
            require_runs(home, target)
        with Lineage(home.folder) as lineage:
            if asked is not None and not known:  # else of what is gone, perhaps
                require_columns(home, asked)
            new = None if asked is None else rows_of(home, asked, gone)
            if new is not None and new.rows:
                plan = planned(new)
                _preflight(home, retrain=retrain)
                refuse_read_only(home, files_deleted(plan))
                for line in said(plan, retrain=retrain):
                    print(line)
                request = begin(home, lineage, new, plan)
                done.append(carry_out(home, lineage, request, _say))
            elif asked is None and not done:
                raise ConfigError("nothing is under way here; say whom to forget: --ids or --where")
            elif not done:
                print("no record fits, or all that do were forgotten before")
    for carried in done:
        print("\n".join(_summary(carried.request)))
        print(f"certificate: {carried.certificate}")
    return _code(carried.request for carried in done)


def _requests(home: DataHome) -> list[ForgetRequest]:
    """All requests about the data, the oldest first."""
    from cosilo.lineage.store import Lineage, has_lineage

    found: list[ForgetRequest] = []
    for folder in home.folders:
        if has_lineage(folder):
            with Lineage(folder, write=False) as lineage:
                found += lineage.requests()
    return sorted(found, key=lambda request: request.at)


def _deleted(home: DataHome, paths: Sequence[Path]) -> list[Path]:
    """The places that were deleted, as requests name them.

    Raises:
        ConfigError: one is still there, or no request names it.
    """
    named = {step.place for request in _requests(home) for step in request.steps} if paths else ()
    for path in paths:
        if path.exists():
            raise ConfigError(
                f"--deleted {str(path)!r}: it is still there; forget goes on with it as it is"
            )
        if str(path.resolve()) not in named:
            raise ConfigError(
                f"--deleted {str(path)!r}: no request names it; `cosilo forget status` lists the "
                "places that are asked for"
            )
    return [path.resolve() for path in paths]


def _code(requests: Iterable[ForgetRequest]) -> int:
    return 0 if all(step.settled for r in requests for step in r.steps) else OPEN


def _gateway(arguments: argparse.Namespace, target: str) -> GatewayHome | None:
    from cosilo.forget.gateway_store import gateway_at

    return gateway_at(target, beside=arguments.beside, secret=arguments.secret)


def _forget_requests(arguments: argparse.Namespace, home: GatewayHome) -> int:
    """Forget requests in a gateway's store."""
    from cosilo.forget import gateway_store
    from cosilo.forget.asked import read_ids
    from cosilo.forget.erasure import certificate_at
    from cosilo.lineage.store import Lineage, has_lineage

    if arguments.where is not None:
        raise ConfigError("--where: a gateway's requests have no columns; name them with --ids")
    asked = {} if arguments.ids is None else read_ids(arguments.ids).ids
    if arguments.plan:
        if not asked:
            raise ConfigError("--plan: say which requests to forget, with --ids")
        if has_lineage(home.folder):
            with Lineage(home.folder, write=False) as lineage:
                asked = _without_forgotten(home, lineage, asked)
        if not asked:
            return 0
        found = gateway_store.stored(home, asked)
        print(f"to forget {len(found.ids)} requests:")
        for step in gateway_store.steps_for(home, found):
            print(f"  {step.method}: {step.kind or 'all'} in {step.place} ({step.note})")
        return 0
    with gateway_store.alone(home), Lineage(home.folder) as lineage:
        requests = gateway_store.left_at(home, lineage)
        for request in requests:
            print(f"request {request.id[:12]} goes on")
        known = frozenset[bytes]().union(*(lineage.names_of(r.id) for r in requests))
        asked = {id: line for id, line in asked.items() if lineage.name(id) not in known}
        before = bool(asked)
        if asked and (asked := _without_forgotten(home, lineage, asked)):
            found = gateway_store.stored(home, asked)
            requests.append(gateway_store.begin_at(home, lineage, found))
        if not requests and not before:
            raise ConfigError("nothing is under way here; say which requests to forget: --ids")
        done = [gateway_store.carry_out_at(home, lineage, r, _say) for r in requests]
    for request in done:
        print("\n".join(_summary(request)))
        print(f"certificate: {certificate_at(home.folder, request.id)}")
    return _code(done)


def _without_forgotten(
    home: GatewayHome, lineage: Lineage, asked: Mapping[str, int]
) -> dict[str, int]:
    """Those that were not forgotten before; of the others it is said where their certificates are."""
    from cosilo.forget.erasure import certificate_at
    from cosilo.forget.gateway_store import forgotten_before
    from cosilo.forget.planning import counted

    before = forgotten_before(home, lineage, asked)
    if before:
        verb = "was" if len(before) == 1 else "were"
        print(
            f"{counted(len(before), 'request')} {verb} forgotten before: nothing is left to do there"
        )
    for id in dict.fromkeys(request.id for request in before.values()):
        print(f"certificate: {certificate_at(home.folder, id)}")
    return {id: line for id, line in asked.items() if id not in before}


def _say(text: str) -> None:
    print(text, flush=True)


def _gone_ids(lineage: Lineage, asked: AskedRecords) -> set[str]:
    known = lineage.forgotten()
    return {id for id in asked.ids if lineage.name(id) in known}


def _preflight(home: DataHome, *, retrain: bool) -> None:
    """Refuse what could not be made again for want of a model file, before anything is touched."""
    from cosilo.benchmark import loads
    from cosilo.models.present import require_present

    for found in home.runs if retrain else ():
        require_present(loads.running(found.plan))
        require_present(loads.scoring(found.plan))


def _summary(request: ForgetRequest) -> list[str]:
    """How a request stands."""
    from cosilo.forget.moved import NOT_THERE
    from cosilo.forget.planning import counted
    from cosilo.lineage.requests import Method, StepState

    begun = datetime.fromtimestamp(request.at, UTC).strftime("%Y-%m-%d %H:%M")
    done = len(request.steps) - len(request.standing)
    records, steps = counted(request.records, "record"), counted(len(request.steps), "step")
    lines = [f"request {request.id[:12]} of {begun} UTC, {records}: {done} of {steps} done"]
    if request.erased:
        return [*lines, "  erased: nothing stands"]
    for step in request.standing:
        state = str(step.state)
        if step.state is StepState.OPEN and step.deadline:
            late = " (passed)" if step.deadline < time.time() else ""
            state += f" until {datetime.fromtimestamp(step.deadline, UTC):%Y-%m-%d}{late}"
        lines.append(f"  {state}: {step.kind or 'all files'} in {step.place}: {step.note}")
    runs = {
        step.place
        for step in request.standing
        if step.kind and not step.settled and step.method is not Method.SHRED
    }
    lines += [f"  {place}: {NOT_THERE}" for place in sorted(runs) if not Path(place).exists()]
    return [*lines, "  not erased: what is listed stands"]


def _status(arguments: argparse.Namespace, target: str) -> int:
    from cosilo.forget.home import home_of
    from cosilo.lineage.store import Lineage, has_lineage

    requests: Sequence[ForgetRequest] = ()
    if (gateway := _gateway(arguments, target)) is None:
        requests = _requests(home_of(Path(target), arguments.runs))
    elif has_lineage(gateway.folder):
        with Lineage(gateway.folder, write=False) as lineage:
            requests = lineage.requests()
    for request in requests:
        print("\n".join(_summary(request)))
    if not requests:
        print("nothing was ever asked to be forgotten here")
    return _code(requests)


def _verify(path: Path, key: str) -> int:
    from cosilo.forget.erasure import checked, fingerprint
    from cosilo.forget.planning import counted

    told = checked(path, key=key)
    print(f"the signature is right, by the key {told['key']}")
    print(f"  (fingerprint {fingerprint(told['key'])}; compare it with one noted elsewhere)")
    records, steps = len(told["records"]), len(told["steps"])
    print(f"request {told['request']}: {counted(records, 'record')}, {counted(steps, 'step')}")
    standing = told["standing"]
    verb = "stands" if standing == 1 else "stand"
    print("  erased" if told["erased"] else f"  not erased: {counted(standing, 'step')} {verb}")
    return 0


def _verify_answers(path: Path, ca: Path) -> int:
    from cosilo.forget.elsewhere import signed_answers

    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r}")
    host, answers = signed_answers(path, ca)
    if not answers:
        print(
            "nothing is signed in it: the party had nothing that it could have been asked to forget"
        )
    for answer in answers:
        day = datetime.fromtimestamp(answer.at, UTC).strftime("%Y-%m-%d %H:%M")
        print(f"the signature is right, by {host!r}; signed {day} UTC by its clock")
        for told in answer.outcomes:
            left = f"; left there: {', '.join(told.left)}" if told.left else ""
            print(f"  {max(len(told.names), 1)} × {told.what}: {told.how}{left}")
    return 0
