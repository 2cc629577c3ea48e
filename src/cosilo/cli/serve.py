"""`cosilo serve`: an OpenAI-compatible endpoint for operating points."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosilo.errors import ConfigError, CosiloError

if TYPE_CHECKING:
    import mmap
    import socket

    from cosilo.gateway.process.config import Layout

DESCRIPTION = """\
Serve operating points as models of an OpenAI-compatible endpoint: point NAME is model 'cosilo/NAME'.

    cosilo serve RUN --point NAME          a point of a finished run, as it was measured
    cosilo serve BUNDLE                    a point that `cosilo bundle` took out of its run
    cosilo serve gateway.toml              points, models and limits from a file

Clients need a key: cosilo keys create NAME. SIGHUP reads the configuration again, SIGTERM or
Ctrl-C stops once the requests under way are done; a second Ctrl-C stops at once."""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "serve",
        help="an OpenAI-compatible endpoint for a point",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="a run, a bundle, or gateway.toml"
    )
    parser.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="NAME",
        help="a point of the run; repeatable",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="[server] and [store] tables, for a run or a bundle",
    )
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8400)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (1)")
    parser.add_argument("--prepare", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    import logging

    from cosilo.models.present import require_present
    from cosilo.registry import Loads

    require_present(Loads(packages=("uvicorn",)))

    from cosilo.bundle import is_bundle
    from cosilo.cli.front import front_of
    from cosilo.gateway.process.server import bind, work
    from cosilo.gateway.process.workers import run_many, run_one
    from cosilo.gateway.ui import pages

    logging.basicConfig(format="cosilo: %(message)s", level=logging.WARNING)
    changes = {
        name: value
        for name in ("host", "port", "workers")
        if (value := getattr(arguments, name)) is not None
    }

    def load() -> Layout:
        return checked(_layout(arguments))

    def checked(layout: Layout) -> Layout:
        require_present(layout.loads | layout.store.loads)
        try:
            return replace(layout, server=replace(layout.server, **changes))
        except ValueError as error:
            raise ConfigError(str(error)) from None

    if arguments.prepare is not None:
        return _prepare(arguments, load, arguments.prepare)

    server = load().server
    run = arguments.source.is_dir() and not is_bundle(arguments.source)
    page = pages(front_of(arguments.source) if run else None)
    listener = bind(server.host, server.port)
    if run:
        named = ", ".join(arguments.point)
        print(f"cosilo: preparing {named} from what the run recorded", file=sys.stderr, flush=True)

    main = os.getpid()

    def note(*, anew: bool) -> None:
        if run:
            _note_served(arguments.source, arguments.point, main, anew=anew)
        elif is_bundle(arguments.source) and not anew:
            _note_bundle(arguments.source, main)

    def serve(
        listener: socket.socket, memory: mmap.mmap, worker: int
    ) -> Coroutine[None, None, None]:
        note(anew=False)
        return work(
            load,
            listener,
            memory=memory,
            worker=worker,
            page=page,
            # A bundle is prepared already.
            preparer=None if is_bundle(arguments.source) else _Elsewhere(arguments, checked),
            adopted=lambda: note(anew=True),
        )

    if server.workers == 1:
        return run_one(listener, serve)
    return run_many(server.workers, listener, serve, drain_seconds=server.drain_seconds)


def _note_served(run: Path, points: list[str], main: int, *, anew: bool) -> None:
    """Note in the run's lineage that this process serves these points.

    Args:
        main: the process that a SIGTERM ends all of them by.
        anew: they were prepared again, and nothing serves what they were before.
    """
    from cosilo.benchmark.noting import note_made
    from cosilo.benchmark.results import opened
    from cosilo.lineage.artifacts import Artifact, ArtifactKind
    from cosilo.lineage.processes import this_process

    place = this_process(main)
    with opened(run) as results:
        trials = [results.trial(point).id for point in points]
    artifact = Artifact(
        id=f"served/{place}", kind=ArtifactKind.SERVED, place=place, made_by="cosilo serve"
    )
    note_made(run, artifact, trials, anew=anew)


def _note_bundle(bundle: Path, main: int) -> None:
    """Note beside the bundle that this process serves it."""
    from cosilo.lineage.beside import note_serving
    from cosilo.lineage.processes import this_process

    if not note_serving(bundle, this_process(main)):
        print(
            f"cosilo: nothing can be noted beside {bundle}, so `cosilo forget` will not know that it "
            "is served here",
            file=sys.stderr,
            flush=True,
        )


@dataclass(frozen=True)
class _Elsewhere:
    """Has points prepared by this same command, in a process of its own."""

    arguments: argparse.Namespace
    checked: Callable[[Layout], Layout]

    def command(self, folder: Path) -> list[str]:
        told = self.arguments
        points = [word for name in told.point for word in ("--point", name)]
        config = ["--config", str(told.config)] if told.config else []
        serve = [sys.executable, "-m", "cosilo", "serve", str(told.source), *points, *config]
        return [*serve, "--prepare", str(folder)]

    def layout(self, folder: Path) -> Layout:
        from cosilo.bundle import is_bundle
        from cosilo.gateway.process.preparing import with_prepared

        told = self.arguments
        if not told.source.is_dir():
            return self.checked(with_prepared(_layout(told), folder))
        bundles = [folder / str(i) for i, _ in enumerate(told.point)]
        if not all(map(is_bundle, bundles)):  # a point that only its run can be served from
            return self.checked(_layout(told))
        return self.checked(_joined([_bundle_layout(b, [], told.config) for b in bundles]))


def _joined(layouts: list[Layout]) -> Layout:
    """The points of all of `layouts`, which agree in everything else."""
    from cosilo.gateway.process.config import PointParts
    from cosilo.registry import Loads

    def load() -> PointParts:
        parts = [layout.load() for layout in layouts]
        upstreams = {name: u for p in parts for name, u in p.upstreams.items()}
        return PointParts(upstreams, [recipe for p in parts for recipe in p.recipes])

    loads = Loads()
    for layout in layouts:
        loads |= layout.loads
    return replace(layouts[0], load=load, loads=loads)


def _prepare(arguments: argparse.Namespace, load: Callable[[], Layout], folder: Path) -> int:
    """Prepare the points into `folder`; the exit code. Of what goes wrong only what may be read by
    others is said.
    """
    from cosilo import interrupts
    from cosilo.gateway.process.preparing import be_gentle, told, write_points
    from cosilo.gateway.process.server import open_layout_store

    async def from_a_run() -> None:
        from cosilo.benchmark.bundling import make_bundle

        for i, name in enumerate(arguments.point):
            with suppress(ConfigError):  # said, if it matters, where the run itself is read
                await make_bundle(arguments.source, name, folder / str(i), with_examples=True)

    async def from_a_file() -> None:
        layout = load()
        store = await open_layout_store(layout)
        try:
            await write_points(layout.load(), store.ledger, folder)
        finally:
            await store.close()

    be_gentle()
    source = arguments.source
    try:
        interrupts.run(from_a_run if source.is_dir() else from_a_file)
    except CosiloError as error:
        print(told(error), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        print(told(error), file=sys.stderr)
        return 1
    return 0


def _layout(arguments: argparse.Namespace) -> Layout:
    from cosilo.bundle import is_bundle
    from cosilo.gateway.process.config import load_gateway

    if is_bundle(arguments.source):
        return _bundle_layout(arguments.source, arguments.point, arguments.config)
    if arguments.source.is_dir():
        return _run_layout(arguments.source, arguments.point, arguments.config)
    if arguments.point or arguments.config:
        raise ConfigError("--point and --config are for a run; a file names its points itself")
    return load_gateway(arguments.source)


def _run_layout(path: Path, names: list[str], config: Path | None) -> Layout:
    """Points of the run in the folder `path`, prepared from its recorded answers."""
    from cosilo.benchmark.reopen import reopen
    from cosilo.gateway.process.config import (
        Layout,
        PointParts,
        for_serving,
        load_tables,
        open_upstream,
    )
    from cosilo.gateway.serving.points import Recipe

    if not (path / "run.sqlite").is_file():
        raise ConfigError(
            f"{str(path)!r} is neither a run nor a bundle: it has no run.sqlite and no bundle.json; "
            "`cosilo bench` makes a run, runs/NAME beside the plan"
        )
    if not names:
        raise ConfigError("name at least one point of the run: --point NAME (see cosilo select)")
    server, store, serving, privacy = load_tables(config)

    def load() -> PointParts:
        run = reopen(path, names)
        upstreams = {
            name: open_upstream(name, run.plan.peers[name], model=model)
            for name, model in run.peers.items()
        }
        recipes = [
            Recipe(
                config=replace(point, defences=tuple(for_serving(d) for d in point.defences)),
                owner=run.owner,
                upstreams=run.speaks_to(point),
                answers={name: run.recorded[name] for name in run.speaks_to(point)},
                sampling=run.task.sampling,
                serving=serving,
                budget=run.plan.request_budget.budget,
                system=run.system,
                privacy=privacy or run.plan.privacy,
            )
            for point in run.points
        ]
        return PointParts(upstreams, recipes)

    return Layout((config or path).absolute().parent, server, store, load)


def _bundle_layout(path: Path, names: list[str], config: Path | None) -> Layout:
    """The point of the bundle in the folder `path`, as it was prepared."""
    from cosilo.bundle import SEVERAL, read_bundle
    from cosilo.gateway.process.config import (
        Layout,
        PointParts,
        for_serving,
        load_tables,
        open_upstream,
    )
    from cosilo.gateway.serving.points import Recipe
    from cosilo.gateway.serving.upstreams import Absent
    from cosilo.models.base import Embedder
    from cosilo.parties.data_owner import DataOwner
    from cosilo.registry import unknown
    from cosilo.session import loads_of, make_model

    bundle = read_bundle(path)
    point, models = bundle.point, bundle.models
    for name in names:
        if name != point.name:
            raise ConfigError(unknown("point", name, [point.name]))
    server, store, serving, _ = load_tables(config)  # a bundle holds no records

    def load() -> PointParts:
        small = make_model(models["small"]) if "small" in models else Absent("small")
        embedder = make_model(models["embedder"]) if "embedder" in models else small
        large = {
            role.removeprefix(SEVERAL): config
            for role, config in models.items()
            if role == "large" or role.startswith(SEVERAL)
        }
        upstreams = {name: open_upstream(name, config) for name, config in large.items()}
        recipe = Recipe(
            config=replace(point, defences=tuple(for_serving(d) for d in point.defences)),
            owner=DataOwner(small, embedder=embedder if isinstance(embedder, Embedder) else None),
            upstreams=tuple(upstreams),
            sampling=bundle.sampling,
            serving=serving,
            budget=bundle.budget,
            system=bundle.system,
        )
        return PointParts(upstreams, [recipe])

    loads = loads_of(models.values(), [point])
    return Layout((config or path).absolute().parent, server, store, load, loads)
