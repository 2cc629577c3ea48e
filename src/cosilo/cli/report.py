"""`cosilo report`: everything a run found, in one HTML file, on the console, as CSV or Parquet."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosilo.benchmark.results import Results
    from cosilo.objectives import Reliability
    from cosilo.objectives.base import Run
    from cosilo.report.data import Crossed, ModelFacts, Prepared, Report
    from cosilo.report.made_from import MadeFromRecords
    from cosilo.selection import Certificate, Limit

DESCRIPTION = """\
Write what a run found: the front, every point with intervals, limits and the certificate, what left
the building, cost and latency, how far the small model's confidence can be believed, and what was made
from the records. The HTML is
one file that loads nothing from the network, and like the run it is its owner's alone to read (mode
0600). Where a record is not whole, its point has no numbers, nothing is certified, and the exit code
is 4.

Messages are quoted with --quote only: the secrets that the data name are masked then, but what is left
of a free text is still private. Where the data name whole texts as secrets, examples are shown anyway.

    cosilo report RUN                          RUN/report.html
    cosilo report RUN -o report.html --csv points.csv
    cosilo report RUN --limit privacy=0.02     with another limit than the plan's"""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "report",
        help="write a run's report: HTML, CSV, Parquet",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the HTML file")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="all points and numbers as CSV")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="the same as Parquet")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE", help="at most; repeatable"
    )
    parser.add_argument(
        "--at-least", action="append", default=[], metavar="NAME=VALUE", help="repeatable"
    )
    parser.add_argument(
        "--quote", action="store_true", help="show example messages, the secrets in them masked"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    from cosilo.benchmark.noting import note_made, of_file
    from cosilo.benchmark.results import opened
    from cosilo.errors import StoreError, of_point
    from cosilo.lineage.artifacts import ArtifactKind
    from cosilo.report.html import write_html
    from cosilo.report.tables import write_csv, write_parquet

    target = arguments.output or arguments.run / "report.html"
    with opened(arguments.run) as results:
        report = make_report(results, arguments.limit, arguments.at_least, quote=arguments.quote)
        trials = [point.id for point in report.points]
        for path in (target, arguments.csv, arguments.parquet):
            if path is not None:
                made = of_file(ArtifactKind.REPORT, path, arguments.run, made_by="cosilo report")
                note_made(arguments.run, made, trials)
        write_html(replace(report, made_from=_made_from(arguments.run)), target)
        print(f"report: {target}")
        if arguments.csv is not None:
            write_csv(report, arguments.csv)
            print(f"CSV: {arguments.csv}")
        if arguments.parquet is not None:
            write_parquet(report, arguments.parquet)
            print(f"Parquet: {arguments.parquet}")
        if results.damaged:
            for name, wrong in results.damaged.items():
                print(f"cosilo: {of_point(name, wrong)}", file=sys.stderr)
            raise StoreError(f"nothing is certified, as a record is not whole: {results.way_on}")
    return 0


def _made_from(run: Path) -> MadeFromRecords:
    """What was made from the run's records, this report included; with what a request beside the data
    says of what another party has."""
    from cosilo.forget.picture import known_of
    from cosilo.lineage.store import Lineage
    from cosilo.report.made_from import made_from

    with Lineage(run, write=False) as lineage:
        graph = lineage.graph()
    return made_from(graph, known_of(run, graph))


def make_report(
    results: Results,
    at_most: Sequence[str] = (),
    at_least: Sequence[str] = (),
    *,
    delta: float | None = None,
    full: bool = True,
    quote: bool = False,
) -> Report:
    """What a report shows of `results`.

    Args:
        at_most, at_least: limits; with neither, those of the plan.
        delta: of the certificate, instead of the plan's.
        full: also read what crossed, item by item, which the console does not show.
        quote: show messages with their secrets masked, also where what is left of them is private.

    Raises:
        ConfigError: a limit names an unknown objective or point.
    """
    from cosilo.benchmark.noting import forgotten_of
    from cosilo.benchmark.results import ceilings_of, compared, limits_for
    from cosilo.report.data import Report, TaskFacts
    from cosilo.selection import certify, pareto_front

    about = results.store.about(results.task)
    described = results.store.read_json("run.json")
    points = results.points
    limits: tuple[Limit, ...] = ()
    certificate: Certificate | None = None
    if points:
        limits = limits_for(results, at_most, at_least)
        sure = results.plan.delta if delta is None else delta
        if limits and not results.damaged:
            certificate = certify(points, limits, delta=sure, ceilings=ceilings_of(results))
    objectives = compared(points)
    crossed, costs = {}, {}
    quote = quote or (full and _whole_texts_are_secret(results))
    for name, shown in _crossings(results, quote=quote) if full else ():
        crossed[name], costs[name] = shown
    prepared = dict(_prepared(results))
    return Report(
        title=results.plan.name,
        task=TaskFacts(
            name=about.name,
            kind=about.kind,
            items=about.items,
            labels=len(about.labels),
            gold_secrets=about.gold_secrets,
            notes=about.notes,
        ),
        models=tuple(_models(results)),
        link=results.plan.link,
        points=points,
        front=frozenset(p.name for p in pareto_front(points, objectives))
        if objectives
        else frozenset(),
        front_objectives=objectives,
        limits=limits,
        certificate=certificate,
        crossed=crossed,
        costs={name: cost for name, cost in costs.items() if cost is not None},
        prepared=prepared,
        reliability=dict(_reliability(results)) if full else {},
        unfinished=results.unfinished,
        notes=(*map(str, forgotten_of(results.store.path)), *_faults(results)),
        damaged=results.damaged,
        versions=_versions(described),
        seed=results.plan.seed,
        quoted=quote,
        commands=(
            f"cosilo bench {shlex.quote(str(results.plan.path))}",
            f"cosilo report {shlex.quote(str(results.store.path))}",
        ),
    )


def _faults(results: Results) -> Iterator[str]:
    """What is amiss with points' replies, where anything is."""
    from cosilo.report.words import amiss

    for point in results.points:
        found = results.store.faults(results.trial(point.name).id, "test")
        if found:
            yield amiss(point.name, point.test["utility"].n, found)


def _whole_texts_are_secret(results: Results) -> bool:
    """Whether the data name all that their texts say as secret, so that a masked text says nothing."""
    from cosilo.report.masking import covers
    from cosilo.tasks.base import SPLITS

    store, task = results.store, results.task
    examples = (e for split in SPLITS for e in store.examples(task, split))
    return store.about(task).gold_secrets and all(map(covers, examples))


def _crossings(results: Results, *, quote: bool) -> Iterator[tuple[str, tuple[Crossed, Any]]]:
    from cosilo.benchmark.measure import load_run
    from cosilo.report.cost import cost
    from cosilo.report.crossed import crossed
    from cosilo.report.masking import Masker
    from cosilo.tasks.base import SPLITS

    store, task = results.store, results.task
    examples = (e for split in SPLITS for e in store.examples(task, split))
    mask = Masker(secret for example in examples for secret in example.secrets)
    for point in results.points:
        trial = results.trial(point.name)
        run = load_run(results.plan, store, task, trial, "test")
        refused = store.refused(trial.id, "test")
        yield point.name, (crossed(run, mask, refused=refused, quote=quote), cost(run))


def _prepared(results: Results) -> Iterator[tuple[str, Prepared]]:
    """What preparing found, where it found anything, beside the small model alone."""
    from cosilo.benchmark.measure import load_run
    from cosilo.objectives.links import over_links
    from cosilo.report.data import Prepared
    from cosilo.report.gain import gain

    def run(name: str) -> Run:
        return load_run(results.plan, results.store, results.task, results.trial(name), "test")

    small = next((p.name for p in results.points if p.strategy == "small"), None)
    for point in results.points:
        cards = results.store.cards(results.trial(point.name).id)
        if cards:
            after = run(point.name)
            found = gain(run(small), after) if small else None
            # Where nothing was sent to prepare it, nothing was bought.
            bought = found if found is not None and found.size else None
            over = None if after.sides else over_links(after.prepare(), results.plan.links)
            effort = results.store.preparing(results.trial(point.name).id)
            yield point.name, Prepared(cards=cards, gain=bought, over_links=over, effort=effort)


def _reliability(results: Results) -> Iterator[tuple[str, Reliability]]:
    """The small model's confidence, where it answers alone."""
    from cosilo.benchmark.measure import load_run
    from cosilo.objectives import reliability

    for point in results.points:
        if point.strategy != "small":
            continue
        run = load_run(results.plan, results.store, results.task, results.trial(point.name), "test")
        found = reliability(run.items)
        if found is not None:
            yield f"{point.name}: the small model alone, test items", found


def _models(results: Results) -> Iterator[ModelFacts]:
    from cosilo.models import catalog
    from cosilo.report.data import ModelFacts

    plan = results.plan
    known = catalog.entries()
    large = [("large", peer, config) for peer, config in plan.peers.items()]
    described = [("small", "", plan.small), *large, ("embedder", "", plan.embedder)]
    for role, peer, config in described:
        if config is None:
            continue
        named = [str(v) for k, v in config.options.items() if k in ("model", "name", "path")]
        name = named[0] if named else config.kind
        yield ModelFacts(
            role=role,  # type: ignore[arg-type]
            name=f"{peer}: {name}" if len(large) > 1 and peer else name,
            access=str(config.exposes) if role == "large" else "its owner's own",
            kind=config.kind,
            licence=known[name].licence if name in known else "",
            price=config.price,
        )


def _versions(described: dict[str, object]) -> dict[str, str]:
    found = {k: str(described[k]) for k in ("cosilo", "python", "machine") if k in described}
    packages = described.get("packages")
    return {**found, **(packages if isinstance(packages, dict) else {})}
