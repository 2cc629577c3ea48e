"""Fixed points never overflow and shares give their secret back, and no fewer than it takes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cosilo.federation.secure import shamir
from cosilo.federation.secure.fixed_point import FixedPoint


@given(st.integers(1, 1000), st.floats(1e-6, 1e6), st.sampled_from([32, 64]), st.randoms())
def test_the_largest_numbers_of_all_owners_sum_without_overflow(
    owners: int, largest: float, bits: int, dice: object
) -> None:
    try:
        encoding = FixedPoint(owners, largest, bits)
    except ValueError:
        assert bits == 32
        assert owners * 2**10 > 2**19
        return
    for sign in (-1, 1):
        words = encoding.encoded(np.array([sign * largest, sign * largest / 3]))
        signed = [int(w) - 2**bits * (int(w) >> (bits - 1)) for w in words]
        assert owners * abs(signed[0]) <= 2 ** (bits - 1) - 1
        summed = np.zeros(2, encoding.dtype)
        for _ in range(owners):
            summed += words
        total = encoding.decoded(summed)
        exact = [owners * sign * largest, owners * sign * largest / 3]
        assert np.abs(total - exact).max() <= owners * encoding.step / 2 + largest * owners * 1e-15
    # And there is no room for a finer step.
    finer = owners * (Fraction(largest) * Fraction(2) ** (encoding.fraction + 1) + Fraction(1, 2))
    assert finer > 2 ** (bits - 1) - 1


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=20))
def test_numbers_come_back_within_half_a_step(numbers: list[float]) -> None:
    encoding = FixedPoint(1, 8.0)
    found = encoding.decoded(encoding.encoded(np.array(numbers)))
    assert np.abs(found - numbers).max() <= encoding.step / 2


@pytest.mark.parametrize("number", [8.01, -8.01, float("nan"), float("inf")])
def test_a_number_that_there_is_no_room_for_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="larger than the 8"):
        FixedPoint(3, 8.0).encoded(np.array([0.0, number]))


@pytest.mark.parametrize(
    "numbers", [(0, 1.0, 32), (1, 0.0, 32), (1, float("inf"), 32), (1, 1.0, 16), (10**7, 1.0, 32)]
)
def test_an_encoding_without_room_is_refused(numbers: tuple[int, float, int]) -> None:
    with pytest.raises(ValueError, match=r"owners|positive"):
        FixedPoint(*numbers)


@settings(max_examples=60)
@given(st.integers(0, shamir.PRIME - 1), st.integers(1, 9), st.data())
def test_as_many_shares_as_the_threshold_give_the_secret(
    secret: int, threshold: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(threshold, 12))
    shares = shamir.split(secret, threshold=threshold, count=count, key=b"k")
    chosen = data.draw(
        st.lists(st.integers(1, count), min_size=threshold, max_size=count, unique=True)
    )
    assert shamir.joined({x: shares[x - 1] for x in chosen}) == secret
    assert shamir.split(secret, threshold=threshold, count=count, key=b"k") == shares
    if threshold > 1:
        assert shamir.split(secret, threshold=threshold, count=count, key=b"l") != shares
        fewer = chosen[: threshold - 1]
        assert shamir.joined({x: shares[x - 1] for x in fewer}) != secret


@settings(max_examples=60)
@given(st.integers(0, shamir.PRIME - 1), st.integers(0, shamir.PRIME - 1), st.integers(2, 6))
def test_fewer_shares_fit_every_secret(secret: int, other: int, threshold: int) -> None:
    # For any other secret there is a polynomial through the same shares but one.
    assume(secret != other)
    shares = shamir.split(secret, threshold=threshold, count=threshold, key=b"k")
    known = {x: shares[x - 1] for x in range(1, threshold)}
    # Solve for the missing share that would make it `other`.
    at_zero = shamir.joined(known | {threshold: 0})
    at_one = shamir.joined(known | {threshold: 1})
    slope = (at_one - at_zero) % shamir.PRIME
    missing = (other - at_zero) * pow(slope, -1, shamir.PRIME) % shamir.PRIME
    assert shamir.joined(known | {threshold: missing}) == other


@pytest.mark.parametrize("wrong", [(-1, 1, 2), (shamir.PRIME, 1, 2), (1, 0, 2), (1, 3, 2)])
def test_what_cannot_be_shared_is_refused(wrong: tuple[int, int, int]) -> None:
    secret, threshold, count = wrong
    with pytest.raises(ValueError, match="no secret, or no threshold"):
        shamir.split(secret, threshold=threshold, count=count, key=b"k")
