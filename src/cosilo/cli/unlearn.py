"""`cosilo unlearn`: weights that cannot be trained again, without what they learned of some records."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosilo.cli.fit import TrainingLines
from cosilo.errors import ConfigError

if TYPE_CHECKING:
    from cosilo.forget.verifying import NumberWithInterval, Verification
    from cosilo.report.screen import Screen

_FEWEST = 4  # records: with fewer, a Kolmogorov-Smirnov test is never below 5 %

DESCRIPTION = """\
Unlearn records: train weights that learned them until they look, by a measure on the records
themselves, like weights that never saw them. For weights whose training cannot be repeated; where it
can, `cosilo forget` makes them again exactly. What comes out is approximate, and nothing here calls it
erased.

    cosilo unlearn BASE --adapter FOLDER --forget gone.jsonl --keep rest.jsonl --out without
    cosilo unlearn TUNED --untuned BASE --forget gone.jsonl --keep rest.jsonl --out without

The files (JSONL, JSON, CSV, TSV, Parquet) have `messages` as models are tuned with them, or a column
question and a column answer. OUT/adapter or OUT/model is what is to be used instead; OUT/unlearned.json
says what was measured, and nothing of what the records say. --verify holds the new weights against
the old ones, and attacks both: trained again on a few of the records, rounded to 8 and 4 bits, old and
new held against each other, sixteen replies drawn. How much should be left only weights say that were
trained without the records: --retrained. Stopped at any moment, the same command
goes on. Exit code: 0 done; 1 nothing better than what came was found, and no weights are written."""


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "unlearn",
        help="train weights until they look as if they had never seen some records",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="its name in the catalog; a GGUF or a Hugging Face folder"
    )
    parser.add_argument(
        "--adapter", type=Path, metavar="FOLDER", help="what learned the records (peft)"
    )
    parser.add_argument(
        "--untuned",
        metavar="MODEL",
        help="the model before it learned them; needed without --adapter",
    )
    parser.add_argument(
        "--forget", type=Path, required=True, metavar="FILE", help="records that were learned"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        required=True,
        metavar="FILE",
        help="others that were learned, and are to stay; the more like those to forget, the better",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the weights")
    parser.add_argument(
        "--verify", action="store_true", help="measure and attack what comes out, beside what came"
    )
    parser.add_argument(
        "--retrained",
        metavar="WEIGHTS",
        help="to verify against: trained without the records; with --adapter an adapter's folder, "
        "else a model",
    )
    parser.add_argument(
        "--never",
        type=Path,
        metavar="FILE",
        help="to verify with: records that nothing here learned",
    )
    parser.add_argument("--question", default="question", metavar="COLUMN", help="(question)")
    parser.add_argument("--answer", default="answer", metavar="COLUMN", help="(answer)")
    parser.add_argument(
        "--method",
        default="bad_teacher",
        metavar="NAME",
        help="bad_teacher, dpo, ga, graddiff, kl, npo, rmu, simnpo, task_vector or undial "
        "(bad_teacher)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="of the method, such as forget=2; repeatable",
    )
    parser.add_argument(
        "--epochs", type=float, default=3.0, metavar="N", help="over what is to be forgotten (3)"
    )
    parser.add_argument("--learning-rate", type=float, default=3e-3, metavar="RATE", help="(3e-3)")
    for name, default, what in (
        ("--batch", 8, "records a step (8)"),
        ("--layers", 8, "that are changed where there is no adapter: the last so many (8)"),
        ("--threads", None, "of torch; as torch chooses by default"),
        ("--seed", 0, "of the order, and of what is drawn (0)"),
    ):
        parser.add_argument(name, type=int, default=default, metavar="N", help=what)
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16"], default="float32", help="(float32)"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    from cosilo.forget.weights import REPORT, WeightsToUnlearn, unlearn_weights
    from cosilo.models.present import require_present
    from cosilo.models.white_box import files as torch_files
    from cosilo.registry import Loads
    from cosilo.report.screen import Column, Screen, ScreenRow

    if arguments.adapter is None and arguments.untuned is None:
        raise ConfigError(
            "give --adapter FOLDER, which learned the records, or --untuned MODEL, the model before it "
            "did: without either nothing says how weights look that never saw them"
        )
    if arguments.seed < 0:
        raise ConfigError(f"--seed must be 0 or more, not {arguments.seed}")
    named = [arguments.model, arguments.untuned]
    packages: tuple[str, ...] = torch_files.PACKAGES
    if arguments.retrained:
        named += [arguments.retrained] if arguments.adapter is None else []
        packages += ("scipy",)
    known = tuple(name for name in named if name and not Path(name).exists())
    require_present(Loads(known, packages))
    found, seen = unlearn_weights(
        WeightsToUnlearn(
            model=arguments.model,
            adapter=arguments.adapter,
            untuned=arguments.untuned,
            forget=arguments.forget,
            keep=arguments.keep,
            verify=arguments.verify or bool(arguments.retrained or arguments.never),
            retrained=arguments.retrained,
            never=arguments.never,
            out=arguments.out,
            question=arguments.question,
            answer=arguments.answer,
            method=arguments.method,
            options=dict(map(_option, arguments.option)),
            training={
                "epochs": arguments.epochs,
                "batch": arguments.batch,
                "learning_rate": arguments.learning_rate,
                "layers": arguments.layers,
            },
            precision=arguments.precision,
            threads=arguments.threads,
            seed=arguments.seed,
        ),
        report=TrainingLines("distance"),
        say=lambda name: print(f"  verified: {name}", file=sys.stderr, flush=True),
    )
    screen = Screen()
    rows = [
        (what, f"{getattr(found.before, name):.3f}", f"{getattr(found.after, name):.3f}")
        for what, name in (
            ("far from never having seen them", "margins"),
            ("true replies likelier than wrong ones, beyond never seen", "margin"),
            ("their replies", "forget"),
            ("replies to keep", "retain"),
        )
    ]
    screen.table(
        "nats a token",
        [Column(("before",), right=True), Column(("after",), right=True)],
        [ScreenRow(first, tuple(rest)) for first, *rest in rows],
    )
    if not (found.improved and found.best_step):
        screen.say(
            f"nothing better than what came was found in {found.steps} steps of {found.method}, and no "
            "weights are written: try more --epochs, another --learning-rate or another --method"
        )
        if (arguments.out / REPORT).exists():
            screen.say(f"what lies in {arguments.out} is of an earlier call")
        return 1
    if found.after.too_much:
        screen.say(
            "too much was forgotten: true replies are less likely beside wrong ones than where they "
            "were never seen, and that tells who was forgotten; try fewer --epochs or a lower "
            "--learning-rate"
        )
    if seen is not None:
        _tell(screen, seen)
    screen.say(
        f"{found.records} records unlearned by {found.method}, {found.kept} kept, step "
        f"{found.best_step} of {found.steps}, {found.seconds:.0f} s; approximate, not erased; in "
        f"{arguments.out}"
    )
    return 0


def _tell(screen: Screen, seen: Verification) -> None:
    """The table of what was verified, and what it says beside retrained weights."""
    from cosilo.forget.verifying import CAME
    from cosilo.report.screen import Column, ScreenRow

    names = list(seen.measures)
    rows = [
        ScreenRow(what, (str(each[CAME][what].n), *(_number(each[name][what]) for name in names)))
        for each in (seen.measures, seen.attacks)
        for what in each[CAME]
    ]
    screen.table("of n records", [Column((name,), right=True) for name in ("n", *names)], rows)
    if seen.quality is not None and seen.records < _FEWEST:
        screen.say(
            f"forget quality: nothing can be told by {seen.records} of the records: {_FEWEST} or more "
            "would do"
        )
    elif seen.quality is not None:
        told = "cannot be told" if seen.quality >= 0.05 else "can be told"
        screen.say(
            f"forget quality: truth ratios {told} from those of the retrained weights "
            f"(Kolmogorov-Smirnov, p = {seen.quality:.2g})"
        )
    if seen.leak is not None:
        screen.say(
            f"privacy leak: {seen.leak:+.2f}; above 0 the records still look learned, below 0 "
            "they look pushed away, which tells who was forgotten, too"
        )


def _number(found: NumberWithInterval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _option(text: str) -> tuple[str, float]:
    """("beta", 0.1) of "beta=0.1".

    Raises:
        ConfigError: it is no name with a number.
    """
    name, _, value = text.partition("=")
    try:
        return name.strip().replace("-", "_"), float(value)
    except ValueError:
        raise ConfigError(f"--option takes NAME=NUMBER, not {text!r}") from None
