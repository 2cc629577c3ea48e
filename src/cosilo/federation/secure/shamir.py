"""A secret in shares of which any `threshold` give it back, and fewer say nothing (Shamir 1979)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from cosilo.boundary.messages.federate_sums import SHARE

PRIME = 2**521 - 1
"""Secrets are numbers below it."""

SIZE = SHARE
"""Bytes of a share."""


def split(secret: int, *, threshold: int, count: int, key: bytes) -> list[int]:
    """The shares 1 to `count`: values of a polynomial whose coefficients `key` fixes.

    Args:
        key: secret, of this secret and threshold alone; the same makes the same shares again.

    Raises:
        ValueError: the secret is out of range, or the threshold is not from 1 to `count`.
    """
    if not 0 <= secret < PRIME or not 1 <= threshold <= count:
        raise ValueError(f"no secret, or no threshold from 1 to {count}: {threshold}")
    coefficients = [secret]
    for power in range(1, threshold):
        drawn = hashlib.shake_256(b"%b|%d|%d" % (key, threshold, power)).digest(SIZE + 16)
        coefficients.append(int.from_bytes(drawn) % PRIME)
    shares = []
    for x in range(1, count + 1):
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * x + coefficient) % PRIME
        shares.append(value)
    return shares


def joined(shares: Mapping[int, int]) -> int:
    """The secret, of as many shares as its threshold: which share → its value.

    With fewer, or with one that is wrong, it is some other number.
    """
    weights = _weights(tuple(shares))
    return sum(v * w for v, w in zip(shares.values(), weights, strict=True)) % PRIME


@lru_cache(maxsize=16)
def _weights(places: tuple[int, ...]) -> list[int]:
    """The Lagrange coefficient at 0 of each share: those of one sum are mostly from the same owners."""
    found = []
    for x in places:
        above = below = 1
        for other in places:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return found
