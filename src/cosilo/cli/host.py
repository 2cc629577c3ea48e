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
    parser.add_argument("source", metavar="FILE", help="lm.toml, or the word certs")
    parser.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="certs: where they are written"
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
    if arguments.folder or arguments.host or arguments.client:
        raise ConfigError("DIR, --host and --client are for `cosilo host certs DIR`")
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
