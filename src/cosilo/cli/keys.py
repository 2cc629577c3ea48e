"""`cosilo keys`: who may use the gateway, and how much they may spend."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cosilo.gateway.accounts import Spend
    from cosilo.gateway.keys import KeyState
    from cosilo.gateway.store_records import GatewayStore

T = TypeVar("T")


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "keys",
        help="make, list and revoke the gateway's keys",
        description=(
            "Keys of the gateway, with what each may spend. A key is shown once, when it is made.\n\n"
            "    cosilo keys create ward-7 --usd 5 --per day --requests-per-minute 60\n"
            "    cosilo keys list\n"
            "    cosilo keys revoke ID"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a key and show it, once")
    create.add_argument("name", help="who it is for")
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
    create.add_argument("--admin", action="store_true", help="sees everything at /ui")
    create.set_defaults(command=_create)
    lister = actions.add_parser("list", help="every key with what it has spent")
    lister.set_defaults(command=_list)
    revoke = actions.add_parser("revoke", help="refuse a key from now on")
    revoke.add_argument("id", help="as `cosilo keys list` shows it")
    revoke.set_defaults(command=_revoke)
    for action in (create, lister, revoke):
        add_store_arguments(action)


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
    from cosilo.gateway.accounts import Limits

    limits = Limits(
        usd=arguments.usd,
        tokens=arguments.tokens,
        requests_per_minute=arguments.requests_per_minute,
        entities=arguments.entities,
        epsilon=arguments.epsilon,
        period=arguments.per,
    )
    made = _with_store(
        arguments,
        lambda store: store.create_key(
            arguments.name,
            limits=limits,
            points=tuple(arguments.point),
            admin=arguments.admin,
            expires=arguments.expires,
        ),
        make=True,
    )
    print(f"key {made.key.id} for {arguments.name!r}; it is not shown again:", file=sys.stderr)
    print(made.bearer)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    states = _with_store(arguments, lambda store: store.list_keys())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "name", "state", "spent", "limits"):
        table.add_column(column, overflow="fold")
    now = time.time()
    for state in states:
        table.add_row(state.key.id, state.key.name, *_about(state, now))
    Console(highlight=False, markup=False).print(table if states else "no keys yet")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    state = _with_store(arguments, lambda store: store.revoke_key(arguments.id))
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
    from cosilo.gateway.store import default_url, open_store

    async def run() -> T:
        url = arguments.store or default_url()
        store = await open_store(url, secret=arguments.secret, work=False, make=make)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount from 0 on")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value < 10**15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count from 0 on")
    return value


_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def _expiry(text: str) -> float:
    match = re.fullmatch(r"(\d{1,5})([hdw])", text)
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
