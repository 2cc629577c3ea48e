"""What a split and a federation leak at each way to set them, and what is chosen under a limit.

    python benchmarks/leak_limit.py [--model smollm2-135m-instruct] [--out /tmp/leak_limit]

`cosilo fit --for split_learning` and `--for federated` (int8, rank 8) on SmolLM2-135M, in float32
on one thread, over sequences of 16 tokens of Python's own manual: six that stand in for the owner's,
forty that the attacker has. Kept is each candidate: memory, CPU of a step, bytes, nats lost, leak with
its interval and base rate; and what is chosen under several limits. It goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cosilo.benchmark.leak_limit import cuts, updates
from cosilo.benchmark.leak_limit.candidates import HomeLimits, chosen
from cosilo.benchmark.leak_limit.choosing import LeakTarget, fit_to_leak
from kept import Kept

LEAKS = (1.0, 0.5, 0.3, 0.1)
MEMORY, MS = 4 * 10**9, 60_000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--out", type=Path, default=Path("/tmp/leak_limit"))
    given = parser.parse_args()
    # A part of what the command tries, whose other codecs and ranks differ in cost alone.
    cuts._CODECS, cuts._RANKS, updates._RANKS = ("int8",), (8,), (8,)
    kept = Kept("leak_limit", seed=0, settings={"model": given.model, "threads": 1})
    for strategy in ("split_learning", "federated"):
        wanted = LeakTarget(
            model=given.model,
            strategy=strategy,
            limits=HomeLimits(MEMORY, MS, 1.0),
            out=given.out / strategy,
            precisions=("float32",),
        )
        found = fit_to_leak(wanted, say=lambda text: print(text, file=sys.stderr, flush=True))
        for candidate in found.candidates:
            row = f"{strategy}: {candidate.said()}"
            leak = candidate.leak
            if leak is None:
                raise SystemExit(f"{row}: the leak was not measured ({candidate.failed})")
            low, high = leak.interval
            kept.put(row, "leak", leak.value, n=leak.of, low=low, high=high)
            kept.put(row, "base", leak.base, n=leak.of)
            kept.put(row, "nats", candidate.nats, n=leak.of)
            kept.put(row, "memory", candidate.memory)
            kept.put(row, "ms", candidate.ms, n=3)
            kept.put(row, "bytes", candidate.size)
        for limit in LEAKS:
            best = chosen(found.candidates, HomeLimits(MEMORY, MS, limit))
            row = f"{strategy}, leak of {limit:.0%} at most"
            kept.put(
                row,
                "within",
                sum(not HomeLimits(MEMORY, MS, limit).broken(c) for c in found.candidates),
                n=len(found.candidates),
            )
            if best is not None and best.leak is not None:
                low, high = best.leak.interval
                kept.put(
                    f"{row}: {best.said()}",
                    "leak",
                    best.leak.value,
                    n=best.leak.of,
                    low=low,
                    high=high,
                )
    kept.write()


if __name__ == "__main__":
    main()
