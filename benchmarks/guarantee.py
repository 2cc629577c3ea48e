"""Does a promised share of wrong answers hold, and how much is kept at home for it?

    python benchmarks/guarantee.py [--dev]

Mixtral-8x7B and GPT-4 as recorded (RouteLLM): which of 2,585 MMLU questions, and of GSM8K's, the small
one gets wrong. A gate learns from the train file (of GSM8K, which has one file, from three tenths of it
chosen by hash); the rest is divided at random a thousand times into as many items to calibrate with as
to evaluate on, and each time a threshold is chosen for every limit. A *violation*: more than the
promised share of what is kept is wrong. For a promise "in the long run" the items to calibrate with
and to evaluate on together stand for the long run; for one about the items ahead it is what is
evaluated on.

Gates: Cosilo's (words, opening, shape of the question), and a logistic regression on MiniLM's vectors
(penalty by cross-validation on what it learns from). Rules: Cosilo's fixed sequence; and, beside it,
the threshold that keeps most among all whose Clopper–Pearson bound is below the limit, which chooses
among many tests as if it were one. `--dev` divides a part of what is learned from, for settings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import cross_val_predict

from cosilo.models.encoder.encoder import Encoder
from cosilo.objectives.intervals import clopper_pearson
from cosilo.strategies.inference.gain import fit_gain
from cosilo.strategies.inference.guarantee import Bools, Promise, safe_threshold, steps_from
from kept import Kept

Floats = NDArray[np.float64]
LIMITS = tuple(round(0.05 * k, 2) for k in range(1, 11))
DELTA = 0.05
RUN, AHEAD, EACH = "in the long run", "among those ahead", "Clopper–Pearson of each"


def load(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def divisions(data: Path, name: str, dev: bool) -> tuple[list[dict[str, object]], ...]:
    """What is learned from, and what is divided."""
    if name == "mmlu":
        learn, rest = load(data / "train.jsonl"), load(data / "test.jsonl")
    else:
        rows = load(data / "gsm8k_outputs.jsonl")
        learn = [r for r in rows if _tenth(r) < 3]
        rest = [r for r in rows if _tenth(r) >= 3]
    if dev:
        return [r for r in learn if _tenth(r) % 2], [r for r in learn if not _tenth(r) % 2]
    return learn, rest


def _tenth(row: dict[str, object]) -> int:
    return int(hashlib.sha256(str(row["id"]).encode()).hexdigest(), 16) % 10


def wrong(rows: list[dict[str, object]]) -> Bools:
    return np.array([not r["small_correct"] for r in rows])


def bounds(scores: Floats, losses: Bools) -> tuple[Floats, Floats]:
    """The scores in falling order, and the Clopper–Pearson bound of keeping each and all before."""
    order = np.argsort(-scores, kind="stable")
    lost, kept = np.cumsum(losses[order]), np.arange(1, len(order) + 1)
    return scores[order], beta.ppf(1 - DELTA, lost + 1, np.maximum(kept - lost, 1e-9))


def gates(
    learn: list[dict[str, object]], rest: list[dict[str, object]]
) -> dict[str, tuple[Floats, Floats]]:
    """Gate → (scores of what is learned from, each predicted without it; scores of the rest)."""
    texts, others = ([str(r["prompt"]) for r in rows] for rows in (learn, rest))
    targets = wrong(learn).astype(np.float64)
    model, held_out = fit_gain(texts, targets)
    encoder = Encoder()
    vectors, asked = (np.asarray(encoder.embed(t).vectors) for t in (texts, others))
    logistic = LogisticRegressionCV(
        Cs=10,
        cv=5,
        scoring="neg_log_loss",
        max_iter=5000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )
    inside = cross_val_predict(logistic, vectors, targets, cv=5, method="predict_proba")
    logistic.fit(vectors, targets)
    return {
        "Cosilo's gate": (-held_out, -model.predict(others)),
        "logistic gate": (inside[:, 0], logistic.predict_proba(asked)[:, 0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/routellm_mmlu"))
    parser.add_argument("--divisions", type=int, default=1000)
    parser.add_argument("--dev", action="store_true")
    arguments = parser.parse_args()
    kept = Kept(
        "guarantee_dev" if arguments.dev else "guarantee",
        seed=0,
        settings={"divisions": arguments.divisions, "delta": DELTA},
    )
    for name in ("mmlu", "gsm8k"):
        measure(name, arguments, kept)
        kept.write()


def measure(name: str, arguments: argparse.Namespace, kept: Kept) -> None:
    learn, rest = divisions(arguments.data, name, arguments.dev)
    losses, learned = wrong(rest), wrong(learn)
    scored = gates(learn, rest)
    kept.put(f"{name}, all kept", "wrong", float(losses.mean()), n=len(rest))
    kept.put(f"{name}, learned from", "items", len(learn), n=len(learn))
    half = len(rest) // 2
    orders = [
        np.random.default_rng(seed).permutation(len(rest)) for seed in range(arguments.divisions)
    ]
    for gate, (inside, scores) in scored.items():
        found: dict[str, list[tuple[float, bool]]] = {}
        for order in orders:
            now, ahead = order[:half], order[half:]
            ranked, bound = bounds(scores[now], losses[now])
            for limit in LIMITS:
                fine = np.flatnonzero(bound <= limit)
                chosen = {EACH: float(ranked[fine[-1]]) if len(fine) else np.inf}
                for rule, among in ((RUN, None), (AHEAD, len(ahead))):
                    promise = Promise(wrong=limit, delta=DELTA, ahead=among)
                    steps = steps_from(inside, learned, promise, half)
                    safe = safe_threshold(scores[now], losses[now], promise, steps=steps)
                    chosen[rule] = safe.threshold
                for rule, threshold in chosen.items():
                    judged = ahead if rule == AHEAD else order
                    inner = losses[judged][scores[judged] >= threshold]
                    broken = bool(len(inner) and inner.mean() > limit)
                    share = float((scores[ahead] >= threshold).mean())
                    found.setdefault(f"{name}, {limit:.2f}, {gate}, {rule}", []).append(
                        (share, broken)
                    )
        for row, each in found.items():
            shares, broken_ones = zip(*each, strict=True)
            broken, n = sum(broken_ones), len(each)
            low, high = clopper_pearson(broken, n)
            kept.put(row, "violations", broken / n, n=n, low=low, high=high)
            kept.put(row, "kept at home", float(np.mean(shares)), n=n)
            print(f"{row:70s} kept {np.mean(shares):.3f}, violations {broken / n:.3f}", flush=True)


if __name__ == "__main__":
    main()
