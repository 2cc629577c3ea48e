"""Real teacher logits through the codec: bytes a token against what is lost.

SmolLM2 reads the answers of PubMedQA and the summaries of MTS-Dialog; each reply is one message. Logits
are kept in runs/distil/logits, so a second run only packs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cosilo.boundary.logits import TopK, pack, top_k, unpack
from cosilo.models.base import Access, Array, require
from cosilo.objectives import intervals
from cosilo.session import ModelConfig, make_model
from cosilo.types import user

DATA = Path("../shared/data")
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
            make_model(ModelConfig(kind="torch", options={"model": model})),
            Access.LOGITS,
            by="codec",
        )
        for name, question, reply in missing:
            (found,) = await teacher.logits([teacher.tokenize(user(question), reply)])
            np.save(folder / f"{name}.npy", found)
        await teacher.close()
    return [folder / f"{name}.npy" for name, _, _ in texts(each)]


def lost(logits: Array, exact: TopK, back: TopK) -> dict[str, float]:
    """Sums over the places: errors of kept values, and divergences from the exact teacher in nats."""
    assert exact.ids is not None
    p = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    p -= np.log(np.exp(p).sum(axis=1, keepdims=True))
    kept = np.exp(exact.logprobs.astype(np.float64))
    others = p.copy()
    np.put_along_axis(others, exact.ids.astype(np.int64), -np.inf, axis=1)
    with np.errstate(invalid="ignore"):
        entropy = np.nansum(np.exp(others) * others, axis=1)  # of what is left out, Σ p log p
    mass, many = np.exp(others).sum(axis=1), logits.shape[1] - kept.shape[1]

    def divergence(top: TopK) -> np.ndarray:
        spread = top.rest.astype(np.float64) - np.log(many)
        named = (kept * (exact.logprobs - top.logprobs.astype(np.float64))).sum(axis=1)
        return named + entropy - mass * spread

    return {
        "error": float(np.abs(back.logprobs - exact.logprobs).mean(axis=1).sum()),
        "kl": float(divergence(back).sum()),
        "kl_of_k": float(divergence(exact).sum()),
        "kl_without_rest": float(-np.log(kept.sum(axis=1)).sum()),
    }


def row(files: list[Path], k: int, step: float) -> dict[str, float]:
    sizes, places, sums = [], [], []
    for path in files:
        logits = np.load(path)
        exact = top_k(logits, k)
        data = pack(exact, step=step)
        sizes.append(len(data))
        places.append(len(exact))
        sums.append(lost(logits, exact, unpack(data)))
    n = sum(places)
    found = {key: sum(s[key] for s in sums) / n for key in sums[0]}

    def each(weights: np.ndarray) -> np.ndarray:
        return (weights @ np.array(sizes)) / (weights @ np.array(places))

    low, high = intervals.bootstrap(each, len(files))
    sorted_only = sum(len(pack(top_k(np.load(p), k, ids=False), step=step)) for p in files) / n
    return {
        "n": n,
        "bytes": sum(sizes) / n,
        "low": low,
        "high": high,
        **found,
        "sorted": sorted_only,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("runs/distil/logits"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    files = asyncio.run(read(options.folder, options.model, options.each))
    print(
        "k     step     n   bytes/token [95 %]       error    KL      KL of k  no rest  sorted only"
    )
    for k in (16, 32, 64, 128, 256):
        for step in (0.25, 0.125, 0.0625, 0.03125):
            f = row(files, k, step)
            print(
                f"{k:<4} {step:8} {f['n']:5.0f}  {f['bytes']:6.1f} [{f['low']:.1f}, {f['high']:.1f}]"
                f"  {f['error']:8.4f}  {f['kl']:.4f}  {f['kl_of_k']:.4f}  {f['kl_without_rest']:.4f}"
                f"  {f['sorted']:6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
