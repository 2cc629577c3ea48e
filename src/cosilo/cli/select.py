"""`cosilo select`: the front of a run, and the point that can be certified under limits."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosilo.benchmark.results import Results
    from cosilo.selection import Certificate

DESCRIPTION = """\
Choose an operating point of a run. Points are compared on the validation items; the chosen one is
certified on items that nothing else has used, with family-wise error --delta. The result is a
sentence: which point holds your limits with 95 % confidence, or how many items would be needed.

    cosilo select RUN --limit privacy=0.02 --limit usd_per_1k=0.40 --at-least utility=0.95x-large

A limit is NAME=NUMBER, or NAME=FACTORx-POINT: that many times the value of another point.
`cosilo list objectives` shows the names. Without limits, those of the plan are taken."""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "select",
        help="certify the best point of a run under limits",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE", help="at most; repeatable"
    )
    parser.add_argument(
        "--at-least", action="append", default=[], metavar="NAME=VALUE", help="repeatable"
    )
    parser.add_argument(
        "--delta", type=float, metavar="D", help="accepted error, 0.05 unless the plan says"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    from cosilo.benchmark.results import limits_for, opened
    from cosilo.errors import ConfigError
    from cosilo.selection import certify

    with opened(arguments.run) as results:
        limits = limits_for(results, arguments.limit, arguments.at_least)
        delta = results.plan.delta if arguments.delta is None else arguments.delta
        if not limits:
            raise ConfigError("no limit is given: add --limit NAME=VALUE or --at-least NAME=VALUE")
        if not results.points:
            raise ConfigError(f"{str(arguments.run)!r} holds no finished point yet")
        found = certify(results.points, limits, delta=delta)
        if arguments.json:
            print(json.dumps(as_json(results, found), indent=2))
        else:
            show(results)
            print(found.sentence())
    return 0


def as_json(results: Results, certificate: Certificate) -> dict[str, object]:
    """The certificate and every point's numbers, as JSON holds them."""
    from cosilo.benchmark.identity import plain

    return {
        "certificate": plain(certificate),
        "sentence": certificate.sentence(),
        "points": [
            {k: v for k, v in _fields(point).items() if k != "certificate"}
            for point in results.points
        ],
        "unfinished": dict(results.unfinished),
    }


def _fields(point: object) -> dict[str, object]:
    from cosilo.benchmark.identity import plain

    found = plain(point)
    assert isinstance(found, dict)
    return found


def show_points(folder: Path) -> None:
    """Print the table of a run's points."""
    from cosilo.benchmark.results import opened

    with opened(folder) as results:
        show(results)


def show(results: Results) -> None:
    """Print what the run's points were measured at on the test split, and which are on the front."""
    from rich.console import Console
    from rich.table import Table

    from cosilo.selection import objectives_of, pareto_front

    chosen: dict[str, str] = {}
    for name, objective in objectives_of(results.points).items():
        chosen.setdefault(objective.family, name)
    names = list(chosen.values())
    front = {p.name for p in pareto_front(results.points, names)} if names else set()
    table = Table("point", *names)
    for point in results.points:
        cells = [
            f"{m.value:.4g} [{m.low:.3g}, {m.high:.3g}]" if (m := point.test.get(n)) else "–"
            for n in names
        ]
        table.add_row(("* " if point.name in front else "  ") + point.name, *cells)
    Console().print(table)
    print("* not dominated on the validation items; numbers and 95 % intervals: test items")
    for name, why in results.unfinished.items():
        print(f"{name}: {why}")
