"""`cosilo host`: an LM owner that data owners ask over HTTPS."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cosilo import interrupts
from cosilo.errors import ConfigError

DESCRIPTION = """\
Serve a large model to the data owners named in a file, over HTTPS: each shows a
certificate, has limits of its own, and is asked for nothing else.

    cosilo host certs DIR                  an authority and certificates, for a trial
    cosilo host lm.toml                    serve the model that lm.toml describes
    cosilo host used DIR                   what clients took so far: DIR holds the books

In their plan the other side writes kind = "party", url, ca, cert and key for the
large model. SIGHUP reads clients and limits again, SIGTERM or Ctrl-C stops once the
requests under way are done."""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "host",
        help="serve a large model to its clients over HTTPS",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="FILE", help="lm.toml, or the word certs or used")
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="DIR",
        help="certs: where they are written; used: where the books are",
    )
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="certs: a DNS name or address of the host; repeatable (localhost)",
    )
    parser.add_argument(
        "--client",
        action="append",
        default=[],
        metavar="NAME",
        help="certs: a data owner; repeatable (data-owner)",
    )
    parser.add_argument(
        "--days", type=int, default=365, metavar="N", help="certs: how long they are good for (365)"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    from cosilo.models.present import require_present
    from cosilo.registry import Loads

    if arguments.source == "certs":
        require_present(Loads(packages=("cryptography",)))
        return _certificates(arguments)
    if arguments.source == "used":
        if arguments.folder is None or arguments.host or arguments.client:
            raise ConfigError("say where the books are, and no more: cosilo host used DIR")
        return _used(arguments.folder)
    if arguments.folder or arguments.host or arguments.client:
        raise ConfigError(
            "DIR, --host and --client are for `cosilo host certs DIR`, DIR for `cosilo host used DIR`"
        )
    return _serve(Path(arguments.source))


def _certificates(arguments: argparse.Namespace) -> int:
    from cosilo.host.certificates import make_certificates

    if arguments.folder is None:
        raise ConfigError("say where the certificates are written: cosilo host certs DIR")
    named = arguments.host or arguments.client
    written = make_certificates(
        arguments.folder,
        hosts=arguments.host if named else ["localhost"],
        clients=arguments.client if named else ["data-owner"],
        days=arguments.days,
    )
    for path in written:
        print(path)
    return 0


def _used(folder: Path) -> int:
    from cosilo.host.used import used
    from cosilo.report.screen import Column, Screen, ScreenRow
    from cosilo.report.words import in_seconds, size
    from cosilo.strategies.base import strategies

    strategies.names()  # loads plug-ins, and with them the kinds of messages that they bring
    found = used(folder)
    screen = Screen()
    turns = sorted({turn for client in found.clients.values() for turn in client.turns})
    heads = ["requests", "up", "down"]
    heads += [head for turn in turns for head in (f"{turn}s", f"up a {turn}", f"down a {turn}")]
    rows = []
    for name, client in found.clients.items():
        row = [f"{client.messages:,}", size(client.up), size(client.down)]
        for turn in turns:
            n = client.turns.get(turn, 0)
            each = [size(client.up / n), size(client.down / n)] if n else ["–", "–"]
            row += [f"{n:,}", *each]
        rows.append(ScreenRow(name, tuple(row), ""))
    if rows:
        screen.table("client", [Column((head,), right=True) for head in heads], rows)
    else:
        screen.say("No client has asked anything yet.")
    if found.effort is None:
        screen.say("An older version kept these books: it noted neither CPU nor memory.")
    else:
        screen.say(
            f"Served for {in_seconds(found.effort.seconds)} by {found.processes:,} process"
            f"{'' if found.processes == 1 else 'es'}: {in_seconds(found.effort.cpu_seconds)} of CPU, "
            f"{size(found.effort.memory)} of memory at most."
        )
    return 0


def _serve(path: Path) -> int:
    import logging

    from cosilo.host.config import load_host
    from cosilo.host.process import serve
    from cosilo.models.present import require_present
    from cosilo.session import loads_of
    from cosilo.strategies.base import strategies

    logging.basicConfig(format="cosilo: %(message)s", level=logging.WARNING)
    model = load_host(path).model
    require_present(loads_of([model] if model is not None else [], ()))
    strategies.names()  # loads plug-ins, and with them the messages and handlers that they bring

    try:
        import uvloop
    except ImportError:
        interrupts.run(lambda: serve(lambda: load_host(path)))
    else:
        interrupts.run(lambda: serve(lambda: load_host(path)), loop_factory=uvloop.new_event_loop)
    return interrupts.EXIT_CODE if interrupts.heard() else 0
