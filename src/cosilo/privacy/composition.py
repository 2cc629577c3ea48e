"""What several releases spend together on one record, at a given δ.

    all Gaussian ──▶ √ Σ (Δ/σ)² = μ ──▶ the exact curve (`privacy.accountant`)
    others, too  ──▶ distributions of the privacy loss, convolved (dp-accounting) ──▶ an upper bound

Gaussian noise of any σ composes exactly, adaptively too (Dong, Roth and Su, arXiv 1905.02383). For the
others the distributions of the privacy loss are convolved numerically (Koskela, Jälkö and Honkela,
arXiv 1906.03049; Doroshenko et al., arXiv 2207.04380), rounded upwards, so that never less is stated
than was spent. Of a mechanism of which only (ε, δ) is known, the worst one with that guarantee counts
(Kairouz, Oh and Viswanath, arXiv 1311.0776): never more than basic or advanced composition would say.

**Neighbours.** What is stated for adding or removing a record holds for replacing one when it is
counted as both: twice the sensitivity; of a stated (ε, δ), 2ε and (1 + e^ε) δ; of DP-SGD, the
distribution for a replaced record. The other way round nothing follows, so releases under both
relations have one figure, for replacing a record. Releases for each record and for each group have a
figure each, and mean different things.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from cosilo.errors import ConfigError
from cosilo.privacy.accountant import spent
from cosilo.privacy.mechanisms import (
    Gaussian,
    Laplace,
    Mechanism,
    Neighbours,
    RadialNoise,
    Release,
    SampledGaussian,
    Stated,
    Unit,
    WordNoise,
)

_FINEST = 1e-4
_CELLS = 200_000
_NOTHING = 300.0
"""A stated ε from which on nothing is promised; e^ε must be a number."""

_TAIL = 10.0
"""Standard deviations of noise beyond which its mass is negligible, for the size of a table."""


@dataclass(frozen=True)
class Figure:
    """What releases spend together on one record or group.

    Attributes:
        epsilon: at `delta`; ∞ where one of them promises nothing.
        neighbours: what one more or less means.
        unit: of what.
        releases: how many were composed.
        exact: it is no upper bound, but what was spent.
    """

    epsilon: float
    delta: float
    neighbours: Neighbours
    unit: Unit
    releases: int
    exact: bool


def composed(releases: Iterable[Release], delta: float) -> tuple[Figure, ...]:
    """A figure for each unit that `releases` are about, none where there are none.

    Args:
        releases: each counts, repeated draws too: leave out what was booked before.
        delta: at which ε is stated.

    Raises:
        ConfigError: some are not Gaussian, and dp-accounting is missing.
    """
    found: dict[Unit, list[Release]] = {}
    for release in releases:
        found.setdefault(release.unit, []).append(release)
    return tuple(_figure(some, unit, delta) for unit, some in sorted(found.items()))


def _figure(releases: Sequence[Release], unit: Unit, delta: float) -> Figure:
    related: set[Neighbours] = {release.neighbours for release in releases}
    neighbours: Neighbours = "replace" if "replace" in related else "add_or_remove"
    mechanisms = [_under(release, neighbours) for release in releases]
    gaussian = all(isinstance(m, Gaussian) for m in mechanisms)
    epsilon = _epsilon(mechanisms, neighbours, delta)
    exact = gaussian or math.isinf(epsilon)
    return Figure(epsilon, delta, neighbours, unit, len(mechanisms), exact)


def _under(release: Release, neighbours: Neighbours) -> Mechanism:
    """The release's mechanism, its sensitivity stated for `neighbours`."""
    found = release.mechanism
    if release.neighbours == neighbours:
        return found
    match found:
        case Gaussian() | Laplace():
            return replace(found, sensitivity=2 * found.sensitivity)
        case Stated():
            # Once removed, once added: group privacy of two.
            delta = (1 + math.exp(min(found.epsilon, _NOTHING))) * found.delta
            return replace(found, epsilon=2 * found.epsilon, delta=delta)
    return found  # DP-SGD says what one record adds, and has a distribution under each relation


def _epsilon(mechanisms: Sequence[Mechanism], neighbours: Neighbours, delta: float) -> float:
    """The least ε at `delta` of all together; an upper bound where not all are Gaussian."""
    if any(isinstance(mechanism, WordNoise | RadialNoise) for mechanism in mechanisms):
        return math.inf  # how long a text is can be seen, so nothing is promised of a record
    mu = 0.0
    others: Counter[Mechanism] = Counter()
    for mechanism in mechanisms:
        if not isinstance(mechanism, Gaussian):
            others[mechanism] += 1
        elif mechanism.sigma == 0:
            return math.inf
        else:
            mu = math.hypot(mu, mechanism.sensitivity / mechanism.sigma)
    if not others:
        return spent(1.0, delta, rounds=1, sensitivity=mu)
    stated = [(m, n) for m, n in others.items() if isinstance(m, Stated)]
    if any(m.epsilon > _NOTHING for m, _ in stated):
        return math.inf
    if math.fsum(m.delta * n for m, n in stated) >= delta:
        return math.inf
    return _convolved(mu, others, neighbours, delta)


def _convolved(
    mu: float, others: Counter[Mechanism], neighbours: Neighbours, delta: float
) -> float:
    try:
        from dp_accounting.pld import common
        from dp_accounting.pld import privacy_loss_distribution as pld
        from dp_accounting.privacy_accountant import NeighboringRelation
    except ImportError:
        raise ConfigError(
            "ε of noise other than Gaussian is composed by dp-accounting: pip install 'cosilo[dp]'"
        ) from None
    # Wide losses get coarser cells, so that a table has a bounded size; rounding is upwards.
    width = math.fsum([mu * mu / 2 + _TAIL * mu, *(_width(m) * n for m, n in others.items())])
    cell = max(_FINEST, width / _CELLS)
    relation = NeighboringRelation.ADD_OR_REMOVE_ONE
    if neighbours == "replace":
        relation = NeighboringRelation.REPLACE_ONE

    def distribution(mechanism: Mechanism) -> Any:
        match mechanism:
            case Laplace(scale=scale, sensitivity=sensitivity):
                return pld.from_laplace_mechanism(
                    scale, sensitivity, value_discretization_interval=cell
                )
            case SampledGaussian(noise=noise, rate=rate, steps=steps):
                one = pld.from_gaussian_mechanism(
                    noise,
                    value_discretization_interval=cell,
                    sampling_prob=rate,
                    neighboring_relation=relation,
                )
                return one.self_compose(steps) if steps > 1 else one
            case Stated(epsilon=epsilon, delta=mass):
                stated = common.DifferentialPrivacyParameters(epsilon, mass)
                return pld.from_privacy_parameters(stated, value_discretization_interval=cell)
        raise TypeError(f"no privacy loss distribution is known of a {type(mechanism).__name__}")

    whole = pld.identity(value_discretization_interval=cell)
    if mu:
        whole = pld.from_gaussian_mechanism(1.0, mu, value_discretization_interval=cell)
    for mechanism, count in others.items():
        one = distribution(mechanism)
        whole = whole.compose(one.self_compose(count) if count > 1 else one)
    return max(0.0, float(whole.get_epsilon_for_delta(delta)))


def _width(mechanism: Mechanism) -> float:
    """About how far the privacy loss of one use reaches; of DP-SGD, of one step."""
    match mechanism:
        case Laplace(scale=scale, sensitivity=sensitivity):
            return sensitivity / scale
        case SampledGaussian(noise=noise):
            return 2 / noise**2 + 2 * _TAIL / noise
        case Stated(epsilon=epsilon):
            return epsilon
    raise TypeError(f"how far the losses of a {type(mechanism).__name__} reach is not known")
