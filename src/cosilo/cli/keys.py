"""`cosilo keys`: who may use the gateway, and how much they may spend."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cosilo import interrupts
from cosilo.errors import ConfigError

if TYPE_CHECKING:
    from cosilo.gateway.accounts.accounts import Spend
    from cosilo.gateway.accounts.keys import KeyState, NewKey
    from cosilo.gateway.record.store_records import GatewayStore

T = TypeVar("T")


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "keys",
        help="make, list and revoke the gateway's keys",
        description=(
            "Keys of the gateway, with what each may spend. A key is shown once, when it is made.\n\n"
            "    cosilo keys create ward-7 --usd 5 --per day --requests-per-minute 60\n"
            "    cosilo keys list\n"
            "    cosilo keys revoke ward-7"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = _action(actions, "create", "make a key and show it, once")
    create.add_argument("name", help="who it is for; no two keys in use have the same")
    create.add_argument("--usd", type=_amount, help="dollars it may spend")
    create.add_argument("--tokens", type=_count, help="tokens of the large model, in and out")
    create.add_argument("--entities", type=_count, help="private values that may leave")
    create.add_argument("--epsilon", type=_amount, help="privacy it may spend, for all time")
    create.add_argument("--requests-per-minute", type=_count, metavar="N", help="in any minute")
    create.add_argument(
        "--per",
        choices=("total", "day", "month"),
        default="total",
        help="what dollars, tokens and entities are counted by (UTC; default: total)",
    )
    create.add_argument(
        "--expires",
        type=_expiry,
        metavar="WHEN",
        help="a date (2027-01-31) or a time from now (90d)",
    )
    create.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="NAME",
        help="may use this point only; repeatable",
    )
    create.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="what the gateway serves: its [store] is meant where --store is not given, and a --point "
        "that is not in there is refused",
    )
    create.add_argument(
        "--local-only",
        action="store_true",
        help="nothing of its requests may leave for a large model, whatever they say",
    )
    create.add_argument("--admin", action="store_true", help="sees everything at /ui")
    create.set_defaults(command=_create)
    lister = _action(actions, "list", "every key with what it has spent")
    lister.set_defaults(command=_list)
    revoke = _action(actions, "revoke", "refuse a key from now on")
    revoke.add_argument(
        "key", metavar="KEY", help="its id or its name, as `cosilo keys list` shows"
    )
    revoke.set_defaults(command=_revoke)
    for action in (create, lister, revoke):
        add_store_arguments(action)


def _action(actions: Any, name: str, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}."
    )
    return parser


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        metavar="STORE",
        help="the gateway's folder or postgresql://…  ($COSILO_STORE, or cosilo-gateway)",
    )
    parser.add_argument(
        "--secret", type=Path, metavar="FILE", help="the gateway's secret (in a folder: kept there)"
    )


def _create(arguments: argparse.Namespace) -> int:
    from cosilo.gateway.accounts.accounts import Limits
    from cosilo.gateway.process.config import load_gateway, store_url

    counted = (arguments.usd, arguments.tokens, arguments.entities)
    if arguments.per != "total" and all(limit is None for limit in counted):
        raise ConfigError(
            f"--per {arguments.per} counts --usd, --tokens and --entities, and none of them is given"
        )
    points = tuple(_point(name) for name in arguments.point)
    if arguments.config is not None:
        layout = load_gateway(arguments.config)
        _check_points(points, layout.points, arguments.config)
        if arguments.store is None:
            arguments.store = store_url(layout)
            if arguments.secret is None and layout.store.secret:
                arguments.secret = layout.base / layout.store.secret
    limits = Limits(
        usd=arguments.usd,
        tokens=arguments.tokens,
        requests_per_minute=arguments.requests_per_minute,
        entities=arguments.entities,
        epsilon=arguments.epsilon,
        period=arguments.per,
    )

    async def create(store: GatewayStore) -> tuple[NewKey, list[str]]:
        made = await store.create_key(
            arguments.name,
            limits=limits,
            points=points,
            admin=arguments.admin,
            expires=arguments.expires,
            local_only=arguments.local_only,
        )
        return made, await store.points_served()

    made, served = _with_store(arguments, create, make=True)
    if arguments.config is None:
        for name in points:
            if name not in served:
                print(f"note: {_not_served(name, served)}", file=sys.stderr)
    print(f"key {made.key.id} for {made.key.name!r}; it is not shown again:", file=sys.stderr)
    print(made.bearer)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from cosilo.report.screen import Column, Screen, ScreenRow

    states = _with_store(arguments, lambda store: store.list_keys())
    columns = [Column(("name",)), Column(("state",)), Column(("spent",), wraps=True)]
    columns.append(Column(("limits",), wraps=True))
    now = time.time()
    rows = [ScreenRow(s.key.id, (s.key.name, *_about(s, now))) for s in states]
    if rows:
        Screen().table("id", columns, rows)
    else:
        print("no keys yet")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    state = _with_store(arguments, lambda store: store.revoke_key(arguments.key))
    print(f"{state.key.id} ({state.key.name}) is refused from now on")
    return 0


def _about(state: KeyState, now: float) -> tuple[str, str, str]:
    key, limits = state.key, state.key.limits
    status: str = state.state(now)
    if state.revoked is not None:
        status += f" {_day(state.revoked)}"
    elif status == "active":
        status = "admin" if key.admin else "active"
        if state.expires is not None:
            status += f" until {_day(state.expires)}"
    allowed = [
        f"{value:g} {name}"
        for name, value in (
            ("usd", limits.usd), ("tokens", limits.tokens), ("entities", limits.entities),
            ("epsilon", limits.epsilon), ("requests a minute", limits.requests_per_minute),
        )
        if value is not None
    ]  # fmt: skip
    if limits.period != "total":
        allowed.append(f"per {limits.period}")
    if key.local_only:
        allowed.append("local only")
    if key.points:
        allowed.append(f"only {', '.join(key.points)}")
    spent = _spent(state.used)
    if state.total.requests != state.used.requests:
        spent += f" (ever: {_spent(state.total)})"
    return status, spent, ", ".join(allowed) or "none"


def _spent(spend: Spend) -> str:
    return f"${spend.usd:.6f}, {spend.requests} requests, {spend.tokens} tokens"


def _with_store(
    arguments: argparse.Namespace,
    work: Callable[[GatewayStore], Awaitable[T]],
    *,
    make: bool = False,
) -> T:
    from cosilo.gateway.record.store import default_url, open_store

    async def run() -> T:
        url = arguments.store or default_url()
        store = await open_store(url, secret=arguments.secret, work=False, make=make)
        try:
            return await work(store)
        finally:
            await store.close()

    return interrupts.run(run)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _point(name: str) -> str:
    """A point's own name; it may be given as clients name its model."""
    return name.strip().removeprefix("cosilo/")


def _check_points(points: Sequence[str], known: Sequence[str], config: Path) -> None:
    from cosilo.registry import unknown

    for name in points:
        if name not in known:
            raise ConfigError(f"{config.name}: {unknown('point', name, known)}")


def _not_served(name: str, served: Sequence[str]) -> str:
    if not served:
        return f"whether there is a point {name!r} is not checked: give --config FILE"
    return (
        f"no request on record was answered by a point {name!r} (but by {', '.join(served)});"
        " give --config FILE to check it"
    )


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value and not 1e-9 <= value < 1e9:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an amount from 0 on, in steps of a billionth"
        )
    return value


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a count, a whole number from 0 on")
    return int(text)


_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def _expiry(text: str) -> float:
    match = re.fullmatch(r"0*([1-9]\d{0,4})([hdw])", text, re.ASCII)
    if match:
        return time.time() + int(match[1]) * _UNITS[match[2]]
    try:
        end = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a date (2027-01-31) nor a time from now (12h, 90d, 4w)"
        ) from None
    if end <= time.time():
        raise argparse.ArgumentTypeError(f"{text!r} is past")
    return end
