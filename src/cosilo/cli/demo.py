"""`cosilo demo`: generated data, real models, and everything from bench to report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosilo.benchmark.plan import Plan

DESCRIPTION = """\
See it work: writes the messages of a small private service desk (all made up) and a plan, fetches the
models, runs every point, certifies one and writes the report. Everything is in one folder, and a
second call finishes what the first left undone. A folder that something else made is left alone.

    cosilo demo              the large model has 1.5 billion parameters (1.2 GB to fetch)
    cosilo demo --tiny       a quick look, with a large model of 135 million parameters (0.2 GB)"""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "demo",
        help="see it work, on generated data and real models",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tiny", action="store_true", help="a much smaller large model")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="where it is written (cosilo-demo here)"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    from cosilo.benchmark.demo import write_demo
    from cosilo.benchmark.plan import load_plan
    from cosilo.cli import make_parser

    folder = arguments.dir or Path("cosilo-demo-tiny" if arguments.tiny else "cosilo-demo")
    path = write_demo(folder, tiny=arguments.tiny)
    print(f"a service desk's messages and a plan are in {folder}", flush=True)
    plan = load_plan(path)
    code = pull_models(plan)
    if code:
        return code
    run, page = str(folder / "run"), str(folder / "report.html")
    code = 0
    for words in (
        ["bench", str(path), "--run", run, "--yes"],
        ["select", run],
        ["report", run, "--output", page, "--quote"],  # every text of the demo is made up
    ):
        told = make_parser().parse_args(words)
        code = int(told.command(told))
        if code and words[0] != "select":  # which may find that nothing can be certified
            return code
    return code


def pull_models(plan: Plan) -> int:
    """Fetch the model files that `plan` loads and that are not here; the exit code.

    Raises:
        ConfigError: an optional package is missing; the message names all of them.
    """
    from cosilo.benchmark.loads import running
    from cosilo.cli import main
    from cosilo.models.present import missing, require_present
    from cosilo.registry import Loads

    absent = missing(running(plan))
    require_present(Loads(packages=absent.packages))
    return main(["models", "pull", *absent.models]) if absent.models else 0
