"""The command line: one module per verb, each adding itself with `register`.

What goes wrong is one line on stderr and an exit code: 1 a failure on the way, 2 the run cannot start,
3 a budget is out, 4 the run's files, 5 `select` certified no point, 130 interrupted. A traceback may
quote private text, so it is shown only when COSILO_DEBUG is set.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

import cosilo
from cosilo import interrupts
from cosilo.errors import CosiloError
from cosilo.report.screen import never_fail

DESCRIPTION = """\
Large and small models, working together across silos: measured, certified, served.

    cosilo demo                       see it work, on generated data
    cosilo bench plan.toml            run a plan: every point, on your data
    cosilo select RUN --limit …       certify the best point under your limits
    cosilo report RUN                 one HTML file with everything
    cosilo serve RUN --point NAME     an OpenAI-compatible endpoint for that point"""

ORDER = (
    "bench",
    "select",
    "report",
    "attack",
    "list",
    "models",
    "engines",
    "fit",
    "demo",
    "bundle",
    "serve",
    "keys",
    "host",
    "audit",
    "privacy",
    "forget",
    "unlearn",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    never_fail()
    with interrupts.listening():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = make_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        code = arguments.command(arguments)
        sys.stdout.flush()
        return int(code or 0)
    except CosiloError as error:
        if _debugging():
            traceback.print_exc()
        print(f"cosilo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("cosilo: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return interrupts.EXIT_CODE
    except BrokenPipeError:  # the reader (a pager, `head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if _debugging():
            traceback.print_exc()
        print(f"cosilo: {_where(error)}", file=sys.stderr)
        return 1


def make_parser() -> argparse.ArgumentParser:
    """The parser with every verb that is installed."""
    parser = argparse.ArgumentParser(
        prog="cosilo",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cosilo {cosilo.__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    found = {m.name: import_module(f"{__name__}.{m.name}") for m in iter_modules(__path__)}
    for name in sorted(found, key=_place):
        if hasattr(found[name], "register"):
            found[name].register(verbs)
    return parser


def _place(module: str) -> tuple[int, str]:
    verb = module.rstrip("_")
    return (ORDER.index(verb) if verb in ORDER else len(ORDER), verb)


def _debugging() -> bool:
    return bool(os.environ.get("COSILO_DEBUG"))


def _where(error: Exception) -> str:
    """What an error nobody expected may say: its kind and place, not its text."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"internal error: {type(error).__name__} in {os.path.basename(last.filename)} line "
        f"{last.lineno}. Please report it. COSILO_DEBUG=1 shows the traceback, which may quote "
        "private text."
    )
