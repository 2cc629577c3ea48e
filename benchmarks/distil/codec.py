"""Real teacher logits through the codec: bytes a token against what is lost.

SmolLM2 reads the answers of PubMedQA and the summaries of MTS-Dialog; each reply is one message. Logits
are kept in runs/distil/logits, so a second run only packs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cosilo.boundary.wire.logits import TopK, pack, top_k, unpack
from cosilo.models.base import Access, Array, require
from cosilo.objectives import intervals
from cosilo.session import ModelConfig, make_model
from cosilo.types import user
from kept import Kept

DATA = Path("../shared/data")
PRECISION = "float32"
"""Where `auto` takes bfloat16 (a processor that has it), the logits lie on the codec's own grid, and
its error looks twenty-five times smaller than it is."""

REPLIES = {"pubmedqa": ("question", "long_answer"), "mts_dialog": ("dialogue", "summary")}


def texts(each: int) -> Iterator[tuple[str, str, str]]:
    """(name, question, reply): the first `each` rows of either training split."""
    for name, (asked, said) in REPLIES.items():
        with (DATA / name / "train.jsonl").open() as rows:
            for i, line in zip(range(each), rows, strict=False):
                row = json.loads(line)
                yield f"{name}-{i}", row[asked], row[said]


async def read(folder: Path, model: str, each: int) -> list[Path]:
    """The logits of every reply, one file each; those that are there stay."""
    missing = [t for t in texts(each) if not (folder / f"{t[0]}.npy").exists()]
    if missing:
        teacher = require(
            make_model(ModelConfig(kind="torch", options={"model": model, "precision": PRECISION})),
            Access.LOGITS,
            by="codec",
        )
        for name, question, reply in missing:
            (found,) = await teacher.logits([teacher.tokenize(user(question), reply)])
            np.save(folder / f"{name}.npy", found)
        await teacher.close()
    return [folder / f"{name}.npy" for name, _, _ in texts(each)]


def beyond(logits: Array, exact: TopK) -> tuple[np.ndarray, np.ndarray]:
    """Of the tokens left out at each place: Σ p log p, and Σ p."""
    assert exact.ids is not None
    p = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    p -= np.log(np.exp(p).sum(axis=1, keepdims=True))
    np.put_along_axis(p, exact.ids.astype(np.int64), -np.inf, axis=1)
    weights = np.exp(p)
    return (weights * np.maximum(p, -1e3)).sum(axis=1), weights.sum(axis=1)


def rows(files: list[Path], k: int, steps: Sequence[float]) -> Iterator[dict[str, float]]:
    """One row per step: bytes, errors of kept values, divergences from the exact teacher in nats.

    The rest mass is spread evenly over the tokens that were not named.
    """
    found: dict[float, list[tuple[float, ...]]] = {step: [] for step in steps}
    for path in files:
        logits = np.load(path)
        exact, few = top_k(logits, k), top_k(logits, k, ids=False)
        entropy, mass = beyond(logits, exact)
        kept = np.exp(exact.logprobs.astype(np.float64))
        many = logits.shape[1] - kept.shape[1]

        def divergence(
            top: TopK,
            e: TopK = exact,
            p: Any = kept,
            h: Any = entropy,
            m: Any = mass,
            n: int = many,
        ) -> float:
            named = (p * (e.logprobs - top.logprobs.astype(np.float64))).sum(axis=1)
            return float((named + h - m * (top.rest.astype(np.float64) - np.log(n))).sum())

        for step in steps:
            data = pack(exact, step=step)
            back = unpack(data)
            found[step].append(
                (
                    len(exact),
                    len(data),
                    len(pack(few, step=step)),
                    float(np.abs(back.logprobs - exact.logprobs).mean(axis=1).sum()),
                    divergence(back),
                    divergence(exact),
                    float(-np.log(kept.sum(axis=1)).sum()),
                )
            )
    for step in steps:
        table = np.array(found[step])

        def each(weights: np.ndarray, t: Any = table) -> np.ndarray:
            return (weights @ t[:, 1]) / (weights @ t[:, 0])

        low, high = intervals.bootstrap(each, len(files))
        n = table[:, 0].sum()
        size, small, error, kl, kl_of_k, no_rest = table[:, 1:].sum(axis=0) / n
        yield {
            "n": n, "bytes": size, "low": low, "high": high, "sorted": small, "error": error,
            "kl": kl, "kl_of_k": kl_of_k, "no_rest": no_rest, "step": step,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--each", type=int, default=10, help="replies of either data set")
    parser.add_argument("--k", type=int, nargs="*", default=[16, 32, 64, 128, 256])
    parser.add_argument("--folder", type=Path, default=Path("runs/distil/logits"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    files = asyncio.run(read(options.folder, options.model, options.each))
    print(
        "k     step     n   bytes/token [95 %]       error    KL      KL of k  no rest  sorted only"
    )
    kept = Kept("codec", settings={"precision": PRECISION, "replies of each set": options.each})
    for k in options.k:
        for f in rows(files, k, (0.25, 0.125, 0.0625, 0.03125)):
            print(
                f"{k:<4} {f['step']:8} {f['n']:5.0f}"
                f"  {f['bytes']:6.1f} [{f['low']:.1f}, {f['high']:.1f}]"
                f"  {f['error']:8.4f}  {f['kl']:.4f}  {f['kl_of_k']:.4f}  {f['no_rest']:.4f}"
                f"  {f['sorted']:6.1f}",
                flush=True,
            )
            row, n = f"k = {k}, step {f['step']:g}", int(f["n"])
            kept.put(row, "bytes", f["bytes"], n=n, low=f["low"], high=f["high"])
            for what in ("error", "kl", "kl_of_k", "no_rest", "sorted"):
                kept.put(row, what, f[what], n=n)
    kept.write()


if __name__ == "__main__":
    main()
