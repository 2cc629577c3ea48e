"""`cosilo fit`: build a small model from a larger one, sized to this machine."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosilo.errors import ConfigError

if TYPE_CHECKING:
    from cosilo.models.fit.fitting import Built
    from cosilo.models.white_box.training import TrainingProgress

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "fit",
        help="build a small model from a larger one, sized to this machine",
        description=(
            "Measure this machine, choose the depth and the quantisation that hold the limits, drop\n"
            "the layers that are missed the least, teach what is left with the whole model's own\n"
            "predictions, write a GGUF for the llamacpp back end, and measure what was built.\n"
            "Stopped at any moment, the same command goes on.\n\n"
            "    cosilo fit smollm2-135m-instruct --ms-per-token 15 --memory 1GB --out small\n\n"
            "With --for, nothing is built: the settings of a strategy are chosen under the machine's\n"
            "limits and a limit on what leaks, measured at each candidate on public texts, by the\n"
            "attack that fits what crosses. The point is written to OUT/point.toml.\n\n"
            "    cosilo fit smollm2-135m-instruct --for federated --leak 20% --ms-per-step 2000 \\\n"
            "        --memory 2GB --out fitted"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a GGUF: its name in the catalog, or a path")
    parser.add_argument(
        "--ms-per-token", type=float, metavar="MS", help="of decoding, at most; without --for"
    )
    parser.add_argument(
        "--for",
        dest="strategy",
        metavar="STRATEGY",
        help="choose its settings: split_learning, split, federated",
    )
    parser.add_argument(
        "--leak",
        metavar="SHARE",
        help="with --for: of the tokens of a text, at most (0.2 or 20%%), by the attack's 95 %% "
        "interval and beyond what is guessed without the record",
    )
    parser.add_argument(
        "--ms-per-step", type=float, metavar="MS", help="with --for: of CPU at home, at most"
    )
    parser.add_argument(
        "--memory", required=True, metavar="SIZE", help="of the whole process, at most: 800MB, 1GB"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="what is built")
    parser.add_argument(
        "--text",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="public text to choose layers and to teach with: .txt, or .jsonl with a key text; the "
        "nearer to the later use, the better; Python's manual if none is given",
    )
    for name, default, what in (
        ("--threads", None, "of decoding; all cores by default"),
        ("--context", 2048, "tokens of prompt and reply that memory is measured for (2048)"),
        ("--steps", 60, "of teaching; 0 for none (60)"),
        ("--batch", 2, "sequences per step (2)"),
        ("--length", 128, "tokens per sequence (128)"),
        ("--seed", 0, "of the order of the text (0)"),
    ):
        parser.add_argument(name, type=int, default=default, metavar="N", help=what)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.strategy is not None:
        return _for_a_strategy(arguments)
    if arguments.ms_per_token is None:
        raise ConfigError("give --ms-per-token, or --for STRATEGY with --leak and --ms-per-step")
    from cosilo.models.fit.fitting import FitTarget, fit, loads, source_of
    from cosilo.models.fit.sizing import SizeLimits
    from cosilo.models.present import require_present
    from cosilo.report.screen import Screen

    if not arguments.ms_per_token > 0:
        raise ConfigError(f"--ms-per-token must be above 0, not {arguments.ms_per_token:g}")
    for name, least in (("context", 64), ("steps", 0), ("batch", 1), ("length", 8), ("seed", 0)):
        if getattr(arguments, name) < least:
            raise ConfigError(f"--{name} must be {least} or more, not {getattr(arguments, name)}")
    require_present(loads(arguments.model))
    limits = SizeLimits(arguments.ms_per_token, memory_size(arguments.memory))
    threads = arguments.threads or len(os.sched_getaffinity(0))
    wanted = FitTarget(
        source=source_of(arguments.model),
        limits=limits,
        out=arguments.out,
        text=tuple(arguments.text),
        threads=threads,
        context=arguments.context,
        steps=arguments.steps,
        batch=arguments.batch,
        length=arguments.length,
        seed=arguments.seed,
    )
    _note(arguments.out, arguments.text)
    built = fit(wanted, say=_say, progress=TrainingLines())
    for line in summary(built, limits):
        Screen().say(line, indent=2)
    print(
        "\nIn a plan or a gateway's configuration:\n\n"
        f'    kind = "llamacpp"\n    path = "{built.gguf}"\n    n_ctx = {arguments.context}\n'
        f"    threads = {threads}\n    parallel = 1\n    prompt_cache_mib = 0"
    )
    return 0 if limits.hold(built.speed) else 1


def _for_a_strategy(arguments: argparse.Namespace) -> int:
    from cosilo.benchmark.leak_limit.candidates import HEAD, HomeLimits, nearest, rows
    from cosilo.benchmark.leak_limit.choosing import LeakTarget, fit_to_leak
    from cosilo.models.present import require_present
    from cosilo.models.white_box import files as torch_files
    from cosilo.registry import Loads
    from cosilo.report.screen import Column, Screen, ScreenRow

    if arguments.leak is None or arguments.ms_per_step is None:
        raise ConfigError("--for takes --leak SHARE and --ms-per-step MS")
    if not arguments.ms_per_step > 0:
        raise ConfigError(f"--ms-per-step must be above 0, not {arguments.ms_per_step:g}")
    known = () if Path(arguments.model).exists() else (arguments.model,)
    require_present(Loads(known, torch_files.PACKAGES))
    limits = HomeLimits(
        memory_size(arguments.memory), arguments.ms_per_step, _share(arguments.leak)
    )
    wanted = LeakTarget(
        model=arguments.model,
        strategy=arguments.strategy,
        limits=limits,
        out=arguments.out,
        text=tuple(arguments.text),
    )
    _note(arguments.out, arguments.text)
    found = fit_to_leak(wanted, say=lambda text: print(text, file=sys.stderr, flush=True))
    screen = Screen()
    columns = [Column((name,), right=i not in (0, 6)) for i, name in enumerate(HEAD)]
    table = [ScreenRow(first, tuple(rest)) for first, *rest in rows(found.candidates, limits)]
    screen.table(HEAD[0], columns[1:], table)
    if found.choice is None:
        near = nearest(found.candidates, limits)
        screen.say(
            "no candidate is within the limits"
            + (f"; the nearest: {near.said()}" if near is not None else "")
        )
        return 1
    print(f"\nwritten to {found.file}:\n\n{found.text}", end="")
    return 0


def _note(out: Path, files: list[Path]) -> None:
    """Note beside the files that `out` is made of them, for `cosilo forget` to find."""
    from cosilo.lineage.beside import note_fitted

    for file in note_fitted(out, files):
        print(
            f"not noted beside {file}, where nothing can be noted: whoever forgets a text of it has "
            f"to delete {out}",
            file=sys.stderr,
        )


def _share(text: str) -> float:
    """0.2 of "0.2" or "20%".

    Raises:
        ConfigError: it is no share.
    """
    whole = text.strip()
    try:
        found = float(whole.removesuffix("%")) / (100 if whole.endswith("%") else 1)
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1:
        raise ConfigError(f"--leak must be a share from 0 to 1, not {text!r}")
    return found


def summary(built: Built, limits: Any) -> list[str]:
    """What was built, in words."""
    from cosilo.models.fit.sizing import megabytes

    speed = built.speed
    within = "within" if limits.hold(speed) else "NOT within"
    lines = [
        f"built {built.gguf}: {built.size.layers} of {built.of_layers} layers, "
        f"{built.size.quantisation}, {megabytes(built.gguf.stat().st_size)}",
        f"measured: {speed.ms_per_token:.1f} ms per token and {megabytes(speed.memory)}, {within} "
        f"the limits of {limits.ms_per_token:g} ms and {megabytes(limits.memory)}",
    ]
    if built.dropped:
        gap = built.cut - built.whole
        back = f"{(built.cut - built.healed) / gap:.0%}" if gap > 0 else "nothing was lost"
        lines.append(
            f"held-out text, perplexity before quantisation: {math.exp(built.whole):,.1f} whole, "
            f"{math.exp(built.cut):,.1f} without the layers, {math.exp(built.healed):,.1f} as built "
            f"({back} of the lost nats)"
        )
    return lines


def memory_size(text: str) -> int:
    """Bytes of "1GB", "800 MB" or "512MiB".

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text.lower())
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"--memory must be a size such as 800MB or 1GB, not {text!r}")
    return round(float(match[1]) * _UNITS[match[2] or ""])


def _say(text: str) -> None:
    print(text, flush=True)


class TrainingLines:
    """A line on stderr for every tenth of the steps of a training.

    Args:
        measured: what its validation measures.
    """

    def __init__(self, measured: str = "held-out") -> None:
        self._measured = measured
        self._tenth = 0

    def __call__(self, progress: TrainingProgress) -> None:
        tenth = progress.step * 10 // progress.steps
        if tenth > self._tenth:
            self._tenth = tenth
            left = f", about {progress.seconds_left:.0f} s left" if progress.seconds_left else ""
            found = progress.validation
            held = f", {self._measured} {found:.3f}" if found is not None else ""
            print(
                f"  step {progress.step} of {progress.steps}: loss {progress.loss:.3f}{held}{left}",
                file=sys.stderr,
                flush=True,
            )
