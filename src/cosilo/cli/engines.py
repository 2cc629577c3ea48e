"""`cosilo engines`: what computes on data that neither party may see."""

from __future__ import annotations

import argparse
from typing import Any


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "engines",
        help="install and list what computes on data that neither party may see",
        description=(
            "Engines compute on data and weights that neither party may see. Each has an\n"
            "environment of its own, with versions that are pinned, in $COSILO_ENGINES, or in\n"
            "cosilo/engines under $XDG_CACHE_HOME or ~/.cache.\n\n"
            "    cosilo engines list\n"
            "    cosilo engines install spu"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    help_ = "make an engine's environment, with pip as it is set up here; again, where it is broken"
    installer = actions.add_parser("install", help=help_, description=help_.capitalize() + ".")
    installer.add_argument("name", choices=["spu"], help="the engine")
    installer.set_defaults(command=_install, func=_install)
    lister = actions.add_parser("list", help="what there is, and whether it is here")
    lister.set_defaults(command=_list, func=_list)


def _install(arguments: argparse.Namespace) -> int:
    from cosilo.engines.spu import environment

    here = environment.install(lambda line: print(line, flush=True))
    print(f"{arguments.name}: here, {_versions(here)}, in {here.python.parent.parent}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from cosilo.engines.spu import environment

    here = environment.found()
    print(f"spu: {f'here, {_versions(here)}' if here else f'not here; {environment.INSTALL}'}")
    print("  aby3 (three parties, honest majority), cheetah (two parties); both semi-honest")
    print(f"\nfolder: {environment.directory()}")
    return 0


def _versions(here: Any) -> str:
    return ", ".join(f"{name} {here.versions[name]}" for name in ("spu", "jax", "numpy"))
