"""`cosilo engines`: what computes on data that neither party may see."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from cosilo import interrupts
from cosilo.errors import ConfigError


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "engines",
        help="install and list what computes on data that neither party may see",
        description=(
            "Engines compute on data and weights that neither party may see. Each has an\n"
            "environment of its own, with versions that are pinned, in $COSILO_ENGINES, or in\n"
            "cosilo/engines under $XDG_CACHE_HOME or ~/.cache.\n\n"
            "    cosilo engines list\n"
            "    cosilo engines install spu\n"
            "    cosilo engines serve spu network.toml"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    help_ = "make an engine's environment, with pip as it is set up here; again, where it is broken"
    installer = actions.add_parser("install", help=help_, description=help_.capitalize() + ".")
    installer.add_argument("name", choices=["spu"], help="the engine")
    installer.set_defaults(command=_install, func=_install)
    help_ = "be the third party of joint runs, which both owners open: it is told nothing"
    server = actions.add_parser("serve", help=help_, description=help_.capitalize() + ".")
    server.add_argument("name", choices=["spu"], help="the engine")
    server.add_argument("network", metavar="FILE", help="the network file (docs/host.md)")
    server.set_defaults(command=_serve, func=_serve)
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


def _serve(arguments: argparse.Namespace) -> int:
    from cosilo.engines.spu import environment
    from cosilo.parties.network import JointNetwork

    environment.require()
    interrupts.run(partial(_served, JointNetwork.load(Path(arguments.network))))
    return 0


async def _served(network: Any) -> None:
    """Help until told to stop."""
    helper, (host, port) = network.served()
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        at = await helper.open(host, port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host!r} port {port}: {error.strerror}") from None
    try:
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        names = ", ".join(sorted(network.owners))
        print(f"cosilo: a helper for {names} at {host}:{at}", file=sys.stderr, flush=True)
        with interrupts.stopping(lambda: loop.call_soon_threadsafe(stopped.set)):
            await stopped.wait()
    finally:
        await helper.close()


def _versions(here: Any) -> str:
    return ", ".join(f"{name} {here.versions[name]}" for name in ("spu", "jax", "numpy"))
