"""DP-SGD in numbers: how much noise so many steps need, and what they are booked as.

Each step draws every record with the same chance, independently, cuts each drawn one's gradient to a
length, and adds noise to the sum (Abadi et al., arXiv 1607.00133). The ε is that of all steps together,
for one record added or removed; `privacy.composition` composes it with all else that was released.
"""

from __future__ import annotations

import math

from cosilo.errors import PrivacyError
from cosilo.privacy.accountant import spent
from cosilo.privacy.composition import composed
from cosilo.privacy.mechanisms import Release, SampledGaussian, Unit

_CLOSE = 1e-3
_LEAST = 0.05  # below it a table of losses grows beyond what it is good for


def release_of_steps(
    noise: float,
    rate: float,
    steps: int,
    *,
    unit: Unit = "record",
    series: str = "",
    draw: str = "",
) -> Release:
    """What the weights after so many steps are booked as.

    Args:
        noise: σ over the length that gradients are cut to.
        rate: the chance of each record to be drawn in a step.
        series, draw: see `Release`.
    """
    return Release(
        mechanism=SampledGaussian(noise=noise, rate=rate, steps=steps),
        unit=unit, series=series, draw=draw,
    )  # fmt: skip


def owner_level(noise: float, records: int, steps: int, delta: float) -> float:
    """ε at δ of all records together, added or removed: so many of them, each at most once in each of
    all steps. A bound, which mostly says that nothing is promised of them.
    """
    try:
        return spent(noise, delta, rounds=steps, sensitivity=float(records))
    except (OverflowError, ValueError, PrivacyError):
        return math.inf


def noise_for_steps(epsilon: float, delta: float, *, rate: float, steps: int) -> float:
    """The least noise, to a thousandth, at which all steps together spend no more than ε at δ. It is
    not looked for below 0.05.

    Raises:
        PrivacyError: ε is not positive, or so small that no noise up to 2¹⁰ is enough.
        ConfigError: dp-accounting is missing.
    """
    if not 0 < epsilon < math.inf or not 0 < delta < 1:
        raise PrivacyError(f"ε = {epsilon!r} at δ = {delta!r} is no budget")

    def spent(noise: float) -> float:
        (figure,) = composed([release_of_steps(noise, rate, steps)], delta)
        return figure.epsilon

    low = high = 1.0
    under = over = spent(high)  # what is spent at the upper end, and at the lower one
    while under > epsilon:
        low, over, high = high, under, 2 * high
        if high > 1 << 10:
            raise PrivacyError(f"no noise is enough for ε = {epsilon:g} in {steps} steps")
        under = spent(high)
    while over <= epsilon:
        high, under, low = low, over, low / 2
        if low < _LEAST:
            return high
        over = spent(low)
    while high - low > _CLOSE * high:  # the upper end is kept: never more is spent
        # Between the two ε is nearly a power of the noise, so few steps are enough; each lands a little
        # above, and the next one a little below.
        far = math.log(over / epsilon) / math.log(over / max(under, 1e-9))
        share = min(max(far, 0.02), 0.98)
        guess = low * (high / low) ** share * (1 + _CLOSE / 3)
        for middle in (guess, guess * (1 - 0.9 * _CLOSE)):
            if low < middle < high:
                found = spent(middle)
                if found > epsilon:
                    low, over = middle, found
                else:
                    high, under = middle, found
    return high
