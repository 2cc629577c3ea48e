"""`cosilo privacy`: what all runs and the gateway have spent of whose privacy, composed."""

from __future__ import annotations

import argparse
import math
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosilo.errors import ConfigError
from cosilo.report.screen import Screen

if TYPE_CHECKING:
    from cosilo.privacy.account import PrivacyConfig
    from cosilo.privacy.book import PrivacyBook

DESCRIPTION = """\
The book of ε: for each data, the most that any of its records has spent with
everything that was booked, and the table of what made it. Data that have records
in common add up where they do. It reads the book alone, never the data.

    cosilo privacy                    the user's book
    cosilo privacy plan.toml          the book of a plan, at its δ
    cosilo privacy --book FILE
"""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "privacy",
        help="what was spent of ε on which records, by all runs together",
        description=DESCRIPTION.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("plan", nargs="?", type=Path, metavar="PLAN", help="a plan, for its book")
    parser.add_argument("--book", type=Path, metavar="FILE", help="another book")
    parser.add_argument("--delta", type=float, metavar="D", help="the δ at which ε is stated")
    parser.set_defaults(command=_privacy)


def _privacy(arguments: argparse.Namespace) -> int:
    from cosilo.privacy.book import PrivacyBook

    if arguments.plan and arguments.book:
        raise ConfigError("give a plan or --book, not both")
    config = _config(arguments.plan)
    if config.book is False:
        raise ConfigError("the plan keeps no book of ε: [privacy] book = false")
    delta = config.delta if arguments.delta is None else arguments.delta
    if not 0 < delta < 1:
        raise ConfigError(f"--delta {delta!r} is not between 0 and 1")
    path = arguments.book or config.file()
    screen = Screen()
    if not arguments.book and not path.exists():
        screen.say(f"nothing was spent: there is no book of ε in {path}")
        return 0
    with closing(PrivacyBook(path, write=False)) as book:
        _say(book, screen, delta, config.epsilon)
    return 0


def _config(plan: Path | None) -> PrivacyConfig:
    from cosilo.privacy.account import PrivacyConfig

    if plan is None:
        return PrivacyConfig()
    from cosilo.benchmark.plan import load_plan

    return load_plan(plan).privacy


def _say(book: PrivacyBook, screen: Screen, delta: float, budget: float | None) -> None:
    from cosilo.privacy.book import groups_of

    lines = book.lines()
    spent = list(dict.fromkeys(line.data for line in lines))
    screen.say(f"{book.path}: {len(lines)} releases over {len(spent)} data, at δ = {delta:g}")
    if budget is not None:
        screen.say(f"the plan lets a record spend ε = {budget:g} in all")
    for data in spent:
        near = book.lines(data)
        records = next(line.records for line in near if line.data == data)
        screen.say()
        screen.say(f"data {data}, {records} records", style="bold")
        for figure in book.figures(data, delta):
            bound = "" if figure.exact else "at most "
            screen.say(
                f"  ε of a {figure.unit}: {bound}{_said(figure.epsilon)} ({figure.neighbours}, "
                f"{figure.releases} releases)",
                indent=4,
            )
        screen.say("  made of, each alone:")
        for part in groups_of(near):
            screen.say(f"    {_said(part.alone(delta))}  {part}", indent=6)


def _said(epsilon: float) -> str:
    return "∞, no guarantee" if math.isinf(epsilon) else f"{epsilon:.4g}"
