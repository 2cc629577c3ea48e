"""The vote of private evolution, simulated many times: how well can it be told who voted?

    python benchmarks/distil/vote_attack.py [--epsilon 4] [--trials 200] [--ideal]

The candidates are held fixed and only the vote is repeated: two rounds, six labels, 600 records a time.
They are those of a real run (ε = ∞) that `private_evolution.py measure` has kept, three of each label
chosen; or, with `--ideal`, 40 real texts of each label and round, ten chosen, as an LM would give that
writes like the data. Two attackers who know the method, the encoder, the candidates, and what was
chosen:

* one who holds 1,200 texts, half of which are records, drawn anew each time (the attack `votes`);
* one who knows every record but one, and that one's text. It is asked "in or out?" many times with
  fresh noise, about those records, of many data sets, whose vote shows most.

Beside them stands what (ε, δ) allows anybody. The noise is numpy's, seeded: this is a simulation, and
nothing is protected by it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from private_evolution import DATA, FOLDER, LABELS, rows

from cosilo.attacks.membership import Poll, likelihood_ratios
from cosilo.models.encoder.encoder import Encoder
from cosilo.objectives.base import Floats
from cosilo.objectives.membership import auc, tpr
from cosilo.privacy.accountant import best_auc, best_tpr, noise_for, usual_delta
from cosilo.strategies.downward.private_evolution import ranked
from cosilo.types import last_user
from kept import Kept, Number

EACH = 200  # texts of each label that the first attacker holds
IDEAL = 40  # candidates of each label, with --ideal
ROUNDS = 2
DATA_SETS = 200  # among which the most exposed records are looked for
EXPOSED = 5  # records that the second attacker is tried on


@dataclass(frozen=True)
class Ballot:
    """One vote: the texts of a label, the candidate nearest to each, and how many there are and are
    kept."""

    mine: NDArray[np.int64]
    nearest: NDArray[np.int64]
    count: int
    kept: int


def ballots(folder: Path, data: Path, *, ideal: bool) -> list[Ballot]:
    """Every vote among the texts that the attackers hold."""
    train, encoder = rows("train", data), Encoder()
    drawn = {} if ideal else dict(np.load(folder / "candidates.npz"))
    found = []
    for at, label in enumerate(LABELS):
        texts = [last_user(e.chat) for e in train[label]]
        mine = encoder.embed(texts[:EACH]).vectors
        for number in range(ROUNDS):
            start = EACH + number * IDEAL
            candidates = (
                encoder.embed(texts[start : start + IDEAL]).vectors
                if ideal
                else drawn[f"inf/{number}/{label}"]
            )
            keeps = IDEAL // 4 if ideal else 3
            if len(candidates) > keeps:  # otherwise all are kept, whoever votes
                nearest = (mine @ candidates.T).argmax(axis=1)
                here = np.arange(at * EACH, (at + 1) * EACH)
                found.append(Ballot(here, nearest, len(candidates), keeps))
    return found


def counted(ballot: Ballot, member: NDArray[np.bool_]) -> Floats:
    """The members' votes for each candidate."""
    voters = ballot.nearest[member[ballot.mine]]
    return np.bincount(voters, minlength=ballot.count).astype(np.float64)


def voted(
    ballot: Ballot, member: NDArray[np.bool_], sigma: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Which candidates the members' vote keeps, 1 or 0."""
    chosen = np.zeros(ballot.count, np.int64)
    order = ranked(counted(ballot, member), sigma, noise=lambda n, s: rng.normal(0.0, s, n))
    chosen[order[: ballot.kept]] = 1
    return chosen


def halves(texts: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A data set: half of the texts of each label."""
    member = np.zeros(texts, bool)
    for start in range(0, texts, EACH):
        member[start + rng.permutation(EACH)[: EACH // 2]] = True
    return member


def unknown_others(
    cast: list[Ballot], sigma: float, trials: int, rng: np.random.Generator
) -> tuple[Number, Number]:
    """AUC and TPR at 1 % FPR of the attack `votes` on half of the texts, drawn anew in each trial."""
    texts = EACH * len(LABELS)
    areas, rates = [], []
    for _ in range(trials):
        member = halves(texts, rng)
        polls = []
        for ballot in cast:
            votes = np.bincount(ballot.nearest, minlength=ballot.count)
            chosen = voted(ballot, member, sigma, rng)
            polls.append((ballot.mine, Poll(votes, chosen, ballot.nearest)))
        scores = likelihood_ratios(polls, texts)
        inside, outside = scores[member], scores[~member]
        order = np.sign(inside[:, None] - outside[None, :])
        areas.append(float((order.mean() + 1) / 2))
        rates.append(tpr(inside, outside)[0])
    return over(areas), over(rates)


def over(each: list[float]) -> Number:
    """The mean over runs, and its interval."""
    mean = float(np.mean(each))
    half = 1.96 * float(np.std(each, ddof=1)) / math.sqrt(len(each))
    return Number(mean, len(each), mean - half, mean + half)


def known_others(
    cast: list[Ballot], sigma: float, trials: int, rng: np.random.Generator
) -> Iterator[tuple[Number, Number]]:
    """AUC and TPR at 1 % FPR of one record in or out, all others known, for the records whose vote
    shows most."""
    for member, record in exposed(cast, sigma, rng):
        mine = [b for b in cast if record in b.mine]
        without = member.copy()
        without[record] = False
        drawn = {
            inside: np.array(
                [[_passes(b, who, record, sigma, rng) for b in mine] for _ in range(2 * trials)],
                dtype=np.float64,
            )
            for inside, who in ((True, member), (False, without))
        }
        # Learned on one half of the trials, and put to the test on the other.
        chance = {k: (d[:trials].sum(axis=0) + 0.5) / (trials + 1) for k, d in drawn.items()}
        kept = np.log(chance[True] / chance[False])
        dropped = np.log((1 - chance[True]) / (1 - chance[False]))
        scores = {
            k: (d[trials:] * kept + (1 - d[trials:]) * dropped).sum(axis=1)
            for k, d in drawn.items()
        }
        value, low, high = auc(scores[True], scores[False])
        rate, *ends = tpr(scores[True], scores[False])
        yield Number(value, 2 * trials, low, high), Number(rate, 2 * trials, *ends)


def exposed(
    cast: list[Ballot], sigma: float, rng: np.random.Generator
) -> list[tuple[NDArray[np.bool_], int]]:
    """The data sets and records in them where a vote moves the chance of being kept most, by a
    normal approximation against the count at the cut."""
    found: list[tuple[float, NDArray[np.bool_], int]] = []
    for _ in range(DATA_SETS):
        member = halves(EACH * len(LABELS), rng)
        shows = np.zeros(len(member))
        for b in cast:
            votes = counted(b, member)
            # A candidate is kept when it beats the last of the best `kept` of the others.
            order = np.sort(votes)[::-1]
            cut = np.where(votes >= order[b.kept - 1], order[b.kept], order[b.kept - 1])
            scale = max(sigma * math.sqrt(2), 1e-3)
            moved = [
                math.erf((v - c) / (scale * math.sqrt(2)))
                - math.erf((v - 1 - c) / (scale * math.sqrt(2)))
                for v, c in zip(votes, cut, strict=True)
            ]
            inside = member[b.mine]
            shows[b.mine[inside]] += np.array(moved)[b.nearest[inside]]
        best = int(shows.argmax())
        found.append((float(shows[best]), member, best))
    found.sort(key=lambda each: -each[0])
    return [(member, record) for _, member, record in found[:EXPOSED]]


def _passes(
    ballot: Ballot,
    member: NDArray[np.bool_],
    record: int,
    sigma: float,
    rng: np.random.Generator,
) -> int:
    """Whether the record's candidate is kept."""
    return int(voted(ballot, member, sigma, rng)[ballot.nearest[record - ballot.mine[0]]])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--epsilon", type=float, nargs="+", default=[1.0, 4.0, math.inf])
    parser.add_argument("--ideal", action="store_true")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folder", type=Path, default=FOLDER / "smollm2-135m-instruct")
    arguments = parser.parse_args()
    cast = ballots(arguments.folder, arguments.data, ideal=arguments.ideal)
    records = EACH * len(LABELS) // 2
    delta = usual_delta(records)
    print(f"{ROUNDS} rounds, {records} records, δ = {delta:.3g}, {len(cast)} votes that can differ")
    kind = "ideal" if arguments.ideal else "drawn"
    kept = Kept(f"vote_attack_{kind}", seed=1, settings={"rounds": ROUNDS, "records": records})
    for epsilon in arguments.epsilon:
        row = f"ε = {epsilon:g}"
        sigma = noise_for(epsilon, delta, rounds=ROUNDS)
        rng = np.random.default_rng(1)
        print(f"ε = {epsilon:g}, σ = {sigma:.3f}")
        if sigma:
            mu = math.sqrt(ROUNDS) / sigma
            kept.put(row, "σ", sigma)
            kept.put(row, "anybody AUC", best_auc(mu))
            kept.put(row, "anybody TPR", best_tpr(0.01, mu))
            print(
                f"  what anybody can reach who sees the noisy counts: AUC {best_auc(mu):.3f}, TPR at "
                f"1 % FPR {best_tpr(0.01, mu):.3f} (ε and δ alone allow {loose(epsilon, delta):.3f})"
            )
        found = {"others unknown": unknown_others(cast, sigma, arguments.trials, rng)}
        known = known_others(cast, sigma, arguments.trials, rng)
        found |= {f"others known, record {i}": each for i, each in enumerate(known, start=1)}
        for who, (area, rate) in found.items():
            print(f"  {who}: AUC {said(area)}, TPR at 1 % FPR {said(rate)}", flush=True)
            for what, number in (("AUC", area), ("TPR", rate)):
                kept.put(row, f"{who}, {what}", number.value, n=number.n, low=number.low,
                         high=number.high)  # fmt: skip
    kept.write()
    return 0


def said(number: Number) -> str:
    return f"{number.value:.4f} [{number.low:.4f}, {number.high:.4f}] ({number.n} runs)"


def loose(epsilon: float, delta: float) -> float:
    """The TPR at 1 % FPR that (ε, δ) by itself allows."""
    return min(1.0, math.exp(epsilon) * 0.01 + delta, 1 - math.exp(-epsilon) * (0.99 - delta))


if __name__ == "__main__":
    sys.exit(main())
