"""The vote of private evolution, simulated many times: how well can it be told who voted?

    python benchmarks/distil/vote_attack.py [--trials 400] [--folder …]

Needs the candidates that `private_evolution.py measure` keeps of a real run (ε = ∞). They are held
fixed and only the vote is repeated: two rounds, six labels, 600 records a time. Two attackers who
know the method, the encoder, the candidates, and what was chosen:

* one who holds 1,200 texts, half of which are records, drawn anew each time (the attack `votes`);
* one who knows every record but one, and that one's text, taken from those whose vote shows most. It is
  asked "in or out?" many times with fresh noise, and compared with what (ε, δ) allows anybody.

The noise is numpy's, seeded: this is a simulation, and nothing is protected by it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from private_evolution import DATA, FOLDER, LABELS, rows

from cosilo.attacks.membership import Poll, likelihood_ratios
from cosilo.boundary.accountant import best_auc, best_tpr, noise_for, usual_delta
from cosilo.models.encoder import Encoder
from cosilo.objectives.membership import auc, tpr
from cosilo.strategies.downward.private_evolution import ranked
from cosilo.types import last_user

EACH = 200  # texts of each label that the first attacker holds
KEPT = 3  # candidates of each label that a vote keeps
EXPOSED = 5  # records that the second attacker is tried on

Ballots = list[
    tuple[NDArray[np.int64], NDArray[np.int64], int]
]  # texts, their candidates, how many


def ballots(folder: Path, data: Path) -> tuple[Ballots, int, int]:
    """For each round and label: the texts with that label, their nearest candidates, and how many
    candidates there are; then the number of texts and of rounds."""
    train = rows("train", data)
    texts = [last_user(e.chat) for label in LABELS for e in train[label][:EACH]]
    vectors = Encoder().embed(texts).vectors
    found: Ballots = []
    with np.load(folder / "candidates.npz") as kept:
        names = [name for name in kept.files if name.startswith("inf/")]
        for name in sorted(names):
            if len(kept[name]) <= KEPT:
                continue  # all of them are kept whoever votes
            at = LABELS.index(name.rpartition("/")[2])
            mine = np.arange(at * EACH, (at + 1) * EACH)
            nearest = (vectors[mine] @ kept[name].T).argmax(axis=1)
            found.append((mine, nearest, len(kept[name])))
    return found, len(texts), len(names) // len(LABELS)


def voted(
    ballot: tuple[NDArray[np.int64], NDArray[np.int64], int],
    member: NDArray[np.bool_],
    sigma: float,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Which candidates the members' vote keeps, 1 or 0."""
    mine, nearest, count = ballot
    counts = np.bincount(nearest[member[mine]], minlength=count).astype(np.float64)
    chosen = np.zeros(count, np.int64)
    chosen[ranked(counts, sigma, noise=lambda n, s: rng.normal(0.0, s, n))[:KEPT]] = 1
    return chosen


def unknown_others(
    cast: Ballots, texts: int, sigma: float, trials: int, rng: np.random.Generator
) -> str:
    """The attack `votes` on half of the texts, drawn anew in each trial."""
    areas, rates = [], []
    for _ in range(trials):
        member = np.zeros(texts, bool)
        for start in range(0, texts, EACH):
            member[start + rng.permutation(EACH)[: EACH // 2]] = True
        polls = []
        for ballot in cast:
            mine, nearest, count = ballot
            votes = np.bincount(nearest, minlength=count)
            polls.append((mine, Poll(votes, voted(ballot, member, sigma, rng), nearest)))
        scores = likelihood_ratios(polls, texts)
        inside, outside = scores[member], scores[~member]
        order = np.sign(inside[:, None] - outside[None, :])
        areas.append(float((order.mean() + 1) / 2))
        rates.append(tpr(inside, outside)[0])
    return f"AUC {over(areas)}, TPR at 1 % FPR {over(rates)}, {trials} runs of {texts // 2} records"


def over(each: list[float]) -> str:
    """The mean over runs, and its interval."""
    mean, half = np.mean(each), 1.96 * np.std(each, ddof=1) / math.sqrt(len(each))
    return f"{mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]"


def known_others(
    cast: Ballots, texts: int, sigma: float, trials: int, rng: np.random.Generator
) -> Iterator[str]:
    """One record in or out, all others known, for the records whose vote shows most."""
    member = np.zeros(texts, bool)
    for start in range(0, texts, EACH):
        member[start : start + EACH // 2] = True
    shows = np.zeros(texts)
    for mine, nearest, count in cast:
        votes = np.bincount(nearest[member[mine]], minlength=count).astype(float)
        near = np.sort(votes)[::-1][
            KEPT - 1 : KEPT + 1
        ].mean()  # between the last kept and the next
        closeness = np.exp(-(((votes - 0.5 - near) / max(sigma, 0.5)) ** 2) / 2)
        shows[mine] += np.where(member[mine], closeness[nearest], 0)
    for record in np.argsort(-shows)[:EXPOSED]:
        mine = [b for b in cast if record in b[0]]
        without = member.copy()
        without[record] = False
        # Learned on one half of the trials, and put to the test on the other.
        drawn = {
            inside: np.array(
                [
                    [_passes(b, who, int(record), sigma, rng) for b in mine]
                    for _ in range(2 * trials)
                ],
                float,
            )
            for inside, who in ((True, member), (False, without))
        }
        chance = {k: (d[:trials].sum(axis=0) + 1) / (trials + 2) for k, d in drawn.items()}
        ratio = (
            np.log(chance[True] / chance[False]),
            np.log((1 - chance[True]) / (1 - chance[False])),
        )
        scores = {
            k: (d[trials:] * ratio[0] + (1 - d[trials:]) * ratio[1]).sum(axis=1)
            for k, d in drawn.items()
        }
        value, low, high = auc(scores[True], scores[False])
        rate, *ends = tpr(scores[True], scores[False])
        yield (
            f"AUC {value:.3f} [{low:.3f}, {high:.3f}], TPR at 1 % FPR {rate:.3f} "
            f"[{ends[0]:.3f}, {ends[1]:.3f}], {trials} runs with it and {trials} without"
        )


def _passes(
    ballot: tuple[NDArray[np.int64], NDArray[np.int64], int],
    member: NDArray[np.bool_],
    record: int,
    sigma: float,
    rng: np.random.Generator,
) -> int:
    """Whether the record's candidate is kept."""
    mine, nearest, _ = ballot
    return int(voted(ballot, member, sigma, rng)[nearest[record - mine[0]]])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folder", type=Path, default=FOLDER / "smollm2-135m-instruct")
    arguments = parser.parse_args()
    cast, texts, count = ballots(arguments.folder, arguments.data)
    delta = usual_delta(texts // 2)
    print(f"{count} rounds, {texts // 2} records, δ = {delta:.3g}")
    for epsilon in (1.0, 4.0, math.inf):
        sigma = noise_for(epsilon, delta, rounds=count)
        rng = np.random.default_rng(1)
        print(f"ε = {epsilon:g}, σ = {sigma:.3f}")
        if sigma:
            mu = math.sqrt(count) / sigma
            print(
                f"  what anybody can reach who sees the noisy counts: AUC {best_auc(mu):.3f}, TPR at "
                f"1 % FPR {best_tpr(0.01, mu):.3f} (ε and δ alone allow {loose(epsilon, delta):.3f})"
            )
        print(f"  others unknown: {unknown_others(cast, texts, sigma, arguments.trials, rng)}")
        for line in known_others(cast, texts, sigma, arguments.trials, rng):
            print(f"  others known: {line}", flush=True)
    return 0


def loose(epsilon: float, delta: float) -> float:
    """The TPR at 1 % FPR that (ε, δ) by itself allows."""
    return min(1.0, math.exp(epsilon) * 0.01 + delta, 1 - math.exp(-epsilon) * (0.99 - delta))


if __name__ == "__main__":
    sys.exit(main())
