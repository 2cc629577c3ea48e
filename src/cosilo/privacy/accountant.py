"""How much privacy noisy counts spend, exactly: T Gaussian mechanisms composed, and their noise.

    σ, T ──▶ μ = Δ √T / σ ──▶ δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) ──▶ ε at a given δ

T adaptive Gaussian mechanisms of sensitivity Δ are together as private as one with μ (Dong, Roth and
Su, "Gaussian Differential Privacy", arXiv 1905.02383, corollary 3.3), and the curve of one is known in
closed form (Balle and Wang, arXiv 1805.06530, theorem 8). So nothing is bounded loosely: neither the
classic σ ≥ √(2 ln(1.25/δ))/ε, which holds for ε ≤ 1 only, nor √T on top of it, is used.

**Neighbours.** Two data sets are neighbours when one has a record more than the other (add or remove
one). A record that casts one vote changes one count by one, so the histogram's sensitivity is Δ = 1 in
the Euclidean norm, which is the norm a Gaussian needs. Replacing a record moves a vote from one count
to another: Δ = √2, not 2. Where only the first so many records vote, one that is added or removed among
them pushes another out or lets another in, so that Δ = √2 then too. See `sensitivity`.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import PrivacyError
from cosilo.privacy.mechanisms import Neighbours
from cosilo.types import Chosen

Floats = NDArray[np.float64]
Noise = Callable[[int, float], Floats]  # (how many, σ) → independent draws

_CDF = NormalDist().cdf
_PDF = NormalDist().pdf
_GRID = 2.0**-20
_DRAWS = 4


def sensitivity(neighbours: Neighbours, chosen: Chosen = "all") -> float:
    """How far a histogram in which every record casts one vote moves between neighbours, in L2.

    Args:
        chosen: which of the data's records vote: "all"; the "first" so many in an order that no
            record changes for the others; or some "sampled" by quotas that depend on all records.

    Raises:
        PrivacyError: they were sampled: one record more can then exchange several of the others.
    """
    if chosen == "sampled":
        raise PrivacyError(
            "max_items chose the training records by how common each class is, and one record more "
            "can exchange several of them, so no ε can be stated: leave 'train' out of max_items (it "
            "can be given by split), and limit the records with [models.small] train_items"
        )
    return 1.0 if neighbours == "add_or_remove" and chosen == "all" else math.sqrt(2)


def usual_delta(records: int) -> float:
    """1 / (N ln N), as Aug-PE has it. It tells N: state a δ of your own where N is private too.

    Raises:
        PrivacyError: fewer than three records, for which it would be no small number.
    """
    if records < 3:
        raise PrivacyError(f"{records} records are too few for δ = 1 / (N ln N); at least 3")
    return 1 / (records * math.log(records))


def noise_for(epsilon: float, delta: float, *, rounds: int, sensitivity: float = 1.0) -> float:
    """The least σ at which `rounds` noisy histograms together are (ε, δ)-private; 0 for ε = ∞.

    Raises:
        PrivacyError: ε or `rounds` is not positive, or δ is not between 0 and 1.
    """
    _check(delta, rounds, sensitivity)
    if not epsilon > 0:
        raise PrivacyError(f"ε = {epsilon!r} is not positive")
    if math.isinf(epsilon):
        return 0.0
    low, high = 1e-9, 1.0
    while delta_of(epsilon, high) < delta:
        high *= 2
    # The lower end is kept: δ(ε) is at most what was asked for there, to the last digit.
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(epsilon, middle) <= delta else (low, middle)
    return sensitivity * math.sqrt(rounds) / low


def spent(sigma: float, delta: float, *, rounds: int, sensitivity: float = 1.0) -> float:
    """The ε that `rounds` histograms with noise σ spend together at δ; ∞ without noise.

    Raises:
        PrivacyError: σ is negative, `rounds` is not positive, or δ is not between 0 and 1.
    """
    _check(delta, rounds, sensitivity)
    if not sigma >= 0:
        raise PrivacyError(f"σ = {sigma!r} is not a standard deviation")
    if sigma == 0:
        return math.inf
    mu = sensitivity * math.sqrt(rounds) / sigma
    if delta_of(0.0, mu) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(high, mu) > delta:
        high *= 2
    for _ in range(200):  # the upper end is kept: never less than is spent
        middle = (low + high) / 2
        low, high = (low, middle) if delta_of(middle, mu) <= delta else (middle, high)
    return high


def increments(sigma: float, delta: float, *, rounds: int, sensitivity: float = 1.0) -> list[float]:
    """What each further round adds to ε: they sum to `spent` of all, where a plain sum of single
    rounds would say far more. Every partial sum is what those rounds alone have spent."""
    so_far = [spent(sigma, delta, rounds=t + 1, sensitivity=sensitivity) for t in range(rounds)]
    return [b - a for a, b in zip([0.0, *so_far], so_far, strict=False)]


def delta_of(epsilon: float, mu: float) -> float:
    """The least δ at which a Gaussian mechanism with μ = Δ √T / σ is (ε, δ)-private; ε ≥ 0, μ > 0."""
    a, b = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    # e^ε φ(b) = φ(a), so e^ε Φ(−b) = φ(a) Φ(−b)/φ(b) neither over- nor underflows.
    if a > 0:
        return _PDF(a) * (_mills(a) - _mills(b))
    return _CDF(-a) - _PDF(a) * _mills(b)


def best_tpr(fpr: float, mu: float) -> float:
    """The largest true positive rate that any membership test can reach at `fpr` against a μ-GDP
    mechanism: Φ(Φ⁻¹(fpr) + μ); 0 < fpr < 1."""
    return _CDF(NormalDist().inv_cdf(fpr) + mu)


def best_auc(mu: float) -> float:
    """The largest area under the ROC curve that any membership test can reach: Φ(μ / √2)."""
    return _CDF(mu / math.sqrt(2))


def secret_noise(size: int, sigma: float, source: random.Random | None = None) -> Floats:
    """Independent Gaussian draws from a cryptographic source, shape (size,).

    Args:
        source: the operating system's when unset; `privacy.secret_key.KeyedRandom` where the same
            question must have the same answer again.

    Against attacks on floating-point noise: a Gaussian computed from one or two uniform doubles
    cannot take some values, and from the values that are missing an attacker can tell which count
    was below the noise (Mironov, "On Significance of the Least Significant Bits for Differential
    Privacy", 2012). Two measures prevent that. Each draw is half the sum of four independent ones:
    it has the same distribution, but can arise in far too many ways to be traced back (Holohan and
    Braghin, arXiv 2107.10138). And it is rounded to a multiple of 2⁻²⁰, which removes the low bits
    that would give a count away; a count is a whole number, so count + noise is such a multiple
    too. Besides, only the order of the noisy counts is ever released, not the counts.
    """
    source = source or secrets.SystemRandom()
    each = math.sqrt(_DRAWS)
    drawn = np.array(
        [sum(source.gauss(0.0, sigma) for _ in range(_DRAWS)) / each for _ in range(size)],
        dtype=np.float64,
    )
    rounded: Floats = np.round(drawn / _GRID) * _GRID
    return rounded


def _mills(x: float) -> float:
    """Φ(−x)/φ(x), for x > −6 or so."""
    if x < 25:
        return math.exp(x * x / 2) * math.erfc(x / math.sqrt(2)) * math.sqrt(math.pi / 2)
    y = 1 / (x * x)
    return (1 - y * (1 - 3 * y * (1 - 5 * y * (1 - 7 * y)))) / x


def _check(delta: float, rounds: int, sensitivity: float) -> None:
    if not 0 < delta < 1:
        raise PrivacyError(f"δ = {delta!r} is not between 0 and 1")
    if rounds < 1:
        raise PrivacyError(f"{rounds!r} rounds: there must be at least one")
    if not 0 < sensitivity < math.inf:
        raise PrivacyError(f"a sensitivity of {sensitivity!r} is not positive and finite")
