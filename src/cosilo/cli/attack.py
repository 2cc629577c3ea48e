"""`cosilo attack`: score an old run again, with today's attacks and measures."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from cosilo import interrupts

DESCRIPTION = """\
Attack and measure a run again, from its record alone. No model is called and nothing is paid for, so
a new attack or a corrected measure costs minutes, not money. A point whose record is not whole is left
out, and the exit code is 4 then.

    cosilo attack RUN                      every attack of the plan, and any made since
    cosilo attack RUN --attack NAME        make this attack anew, or for the first time; repeatable.
                                           What the others guessed stays on record and counts"""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "attack",
        help="score an old run again: new attacks or measures, no model called",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--attack", action="append", metavar="NAME", help="one of `list attacks`")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    from cosilo.attacks.base import attacks
    from cosilo.benchmark.loads import scoring
    from cosilo.benchmark.measure import attackers_encoder, measure
    from cosilo.benchmark.results import opened, read_results
    from cosilo.cli.select import show
    from cosilo.errors import ConfigError, StoreError
    from cosilo.models.present import require_present
    from cosilo.registry import unknown

    for name in arguments.attack or ():
        if name not in attacks.names():
            raise ConfigError(unknown("attack", name, attacks.names()))
    with opened(arguments.run, write=True) as results:
        only = None if arguments.attack is None else tuple(arguments.attack)
        require_present(scoring(results.plan, only))
        encoder = attackers_encoder(results.plan)
        for name, wrong in results.damaged.items():
            print(f"cosilo: {name} is not attacked: {wrong}", file=sys.stderr)
        done = {
            n: t
            for n, t in results.trials.items()
            if t.state == "done" and n not in results.damaged
        }
        for number, (name, trial) in enumerate(done.items(), 1):
            print(f"{number}/{len(done)} {name}")
            scored = partial(measure, results.plan, results.store, results.task, trial)
            interrupts.run(partial(scored, encoder=encoder, again=arguments.attack))
        show(read_results(results.store))
        if results.damaged:
            raise StoreError(f"a record is not whole: {results.way_on}")
    return 0
