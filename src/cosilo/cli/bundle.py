"""`cosilo bundle`: take a point out of its run, to be served elsewhere."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from cosilo import interrupts

DESCRIPTION = """\
Write what serving a point needs into a folder of its own: the strategy as preparing left it, the
trained small model, instructions, thresholds, defences and their keys. Models of others stand in it
by their hash. `cosilo serve OUT` serves it on any machine that has these models, without the run and
its data.

    cosilo bundle RUN --point NAME OUT

What was learned from private data is in the folder: it is yours alone to read (mode 0700), and says how
well its records can be told by the small model, or that this was not measured."""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "bundle",
        help="take a point out of its run, to be served elsewhere",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    parser.add_argument(
        "--point", required=True, metavar="NAME", help="a finished point of the run"
    )
    parser.add_argument(
        "--with-examples", action="store_true", help="also where prompts hold examples of yours"
    )
    parser.add_argument(
        "--with-models", action="store_true", help="copy the model files that plans name by a path"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    from cosilo.benchmark.bundling import make_bundle

    made = interrupts.run(
        partial(
            make_bundle,
            arguments.run,
            arguments.point,
            arguments.out,
            with_examples=arguments.with_examples,
            with_models=arguments.with_models,
        )
    )
    print(f"point {arguments.point!r} is in {arguments.out}; keep it as private as your data")
    for name, said in made.about.items():
        print(f"  {name.replace('_', ' ')}: {said}")
    print(f"next: cosilo serve {arguments.out}")
    return 0
