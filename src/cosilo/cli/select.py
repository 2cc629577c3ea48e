"""`cosilo select`: the front of a run, and the point that can be certified under limits."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosilo.benchmark.results import Results
    from cosilo.report.data import Report

DESCRIPTION = """\
Choose an operating point of a run. Points are compared on the validation items; the chosen one is
certified on items that nothing else has used, with family-wise error --delta. The result is a
sentence: which point holds your limits with 95 % confidence, or how many items would be needed.

    cosilo select RUN --limit privacy=0.02 --limit usd_per_1k=0.40 --at-least utility=0.95x-large

A limit is NAME=NUMBER, or NAME=FACTORx-POINT: that many times the value of another point. A share may
be written 0.02 or 2%. `cosilo list objectives` shows the names. Without limits, those of the plan are
taken.

Exit code: 0 a point is certified, and keeps as measured what can only be measured; 5 no point is; 2 a
limit is wrong, or there is no run; 4 the run's files, or a record of what crossed that is not whole."""

NOT_CERTIFIED = 5


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
    from cosilo.benchmark.results import opened
    from cosilo.cli.report import make_report
    from cosilo.errors import ConfigError, StoreError, of_point
    from cosilo.report import console

    with opened(arguments.run) as results:
        if results.damaged:
            for name, wrong in results.damaged.items():
                print(f"cosilo: {of_point(name, wrong)}", file=sys.stderr)
            raise StoreError(f"nothing is certified, as a record is not whole: {results.way_on}")
        if not results.points:
            raise ConfigError(f"{str(arguments.run)!r} holds no finished point yet")
        report = make_report(
            results, arguments.limit, arguments.at_least, delta=arguments.delta, full=False
        )
        if report.certificate is None:
            raise ConfigError("no limit is given: add --limit NAME=VALUE or --at-least NAME=VALUE")
        note_certificate(arguments.run, report)
        if arguments.json:
            print(json.dumps(as_json(report), indent=2))
        else:
            console.show(report)
    return 0 if report.chosen in report.certificate.certified else NOT_CERTIFIED


def note_certificate(run: Path, report: Report) -> None:
    """Note in the run's lineage that a certificate is given: a record of its items that is forgotten
    withdraws it."""
    from cosilo.benchmark.identity import hash_of, plain
    from cosilo.benchmark.noting import note_made
    from cosilo.lineage.artifacts import Artifact, ArtifactKind

    assert report.certificate is not None
    given = Artifact(
        id=f"certificate/{hash_of(plain(report.certificate))}",
        kind=ArtifactKind.CERTIFICATE,
        place="what `cosilo select` printed",
        made_by="cosilo select",
    )
    note_made(run, given, [point.id for point in report.points])


def as_json(report: Report) -> dict[str, object]:
    """The certificate and every point's numbers, as JSON holds them."""
    from cosilo.benchmark.identity import plain

    assert report.certificate is not None
    points = [plain(point) for point in report.points]
    return {
        "certificate": plain(report.certificate),
        "sentence": report.certificate.sentence(),
        "front": sorted(report.front),
        "passed_over": report.passed_over,
        "points": [
            {k: v for k, v in point.items() if k != "certificate"}
            for point in points
            if isinstance(point, dict)
        ],
        "unfinished": dict(report.unfinished),
    }


def show(results: Results) -> None:
    """Print every finished point of a run, the front marked."""
    from cosilo.cli.report import make_report
    from cosilo.report import console

    console.show(make_report(results, full=False), every=True)
