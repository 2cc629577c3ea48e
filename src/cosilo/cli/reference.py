"""The page docs/cli.md, made from the parser itself.

    python -m cosilo.cli.reference > docs/cli.md

It is put together here and not by argparse's own formatter, whose layout differs between versions of
Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from cosilo.cli import make_parser

HEAD = """\
# The command line

Made by `python -m cosilo.cli.reference > docs/cli.md`; do not edit. Every page is also
`cosilo COMMAND --help`.
"""


def page() -> str:
    """The whole page, as Markdown."""
    parser = make_parser()
    parts = [HEAD, f"```text\n{parser.description}\n```\n"]
    parts += [section for name, verb in _verbs(parser) for section in _sections(name, verb, 2)]
    return "\n".join(parts)


def _sections(name: str, parser: argparse.ArgumentParser, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {name}\n"
    if parser.description:
        yield f"```text\n{parser.description}\n```\n"
    rows = [_row(a) for a in parser._actions if a.help != argparse.SUPPRESS and not _skipped(a)]
    if rows:
        yield "\n".join(["| argument | what it does |", "|---|---|", *rows]) + "\n"
    for action, verb in _verbs(parser):
        yield from _sections(f"{name} {action}", verb, depth + 1)


def _verbs(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _skipped(action: argparse.Action) -> bool:
    return isinstance(action, argparse._SubParsersAction | argparse._HelpAction)


def _row(action: argparse.Action) -> str:
    value = action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else None)
    names = ", ".join(action.option_strings)
    if not action.option_strings:
        names = str(value or action.dest)
    elif action.nargs != 0:
        names = f"{names} {value or action.dest.upper()}"
    text = (action.help or "").replace("|", "\\|")
    return f"| `{names}` | {text} |"


if __name__ == "__main__":
    print(page(), end="")
