"""Draws for whole arrays that a key and a context fix, and that nobody without the key can tell from
fresh ones.

A process that is killed and begins anew draws the same noise for the same content, so that what it
sends is one release and not two whose mean has less noise. For other content the context must be
another: two outputs with one noise have the difference of what is below it.
"""

from __future__ import annotations

import hashlib
import hmac
import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FINEST = -20  # the grid is so many powers of two below σ
_COARSEST = 1 << 10  # steps in σ, at least
_DRAWS = 4


class KeyedNoise:
    """Independent draws; each context is asked for one thing.

    Args:
        key: secret; see `privacy.secret_key`.

    Raises:
        ValueError: the key is shorter than 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError(f"a key of {len(key)} bytes can be guessed: 32 at least")
        self._key = key

    def named(self, context: bytes) -> str:
        """A name of what is drawn for `context` under this key, which tells neither."""
        return hmac.digest(self._key, b"a draw's name|" + context, hashlib.sha256).hex()

    def uniforms(self, size: int, context: bytes) -> Floats:
        """From 0 to below 1, in steps of 2^-53, shape (size,)."""
        stream = hmac.digest(self._key, context, hashlib.sha256)
        drawn = np.frombuffer(hashlib.shake_256(stream).digest(8 * size), "<u8")
        return (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normals(self, size: int, context: bytes) -> Floats:
        """Of variance 1, shape (size,): each is half the sum of four that Box and Muller (1958) make of
        uniform ones, so that it can arise in far too many ways to be traced back (Holohan and Braghin,
        arXiv 2107.10138)."""
        half = -(-size * _DRAWS // 2)
        both = self.uniforms(2 * half, context).reshape(2, half)
        radius = np.sqrt(-2 * np.log1p(-both[0]))
        angle = 2 * math.pi * both[1]
        pairs = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        found: Floats = pairs[: size * _DRAWS].reshape(_DRAWS, size).sum(axis=0)
        return found / math.sqrt(_DRAWS)

    def added(self, values: Floats, sigma: float, context: bytes, *, step: float = 0.0) -> Floats:
        """`values`, shape (n,), plus Gaussian noise.

        Values are cut towards zero, and noise rounded, to multiples of a power of two of about
        σ · 2^-20, so that no low bits of a value show beside the noise (Mironov 2012); no value grows.

        Args:
            step: a power of two that all that comes out is a multiple of, where it is coarser.

        Raises:
            ValueError: σ is negative or not finite, or not a thousand of such steps.
        """
        if not 0 <= sigma < math.inf:
            raise ValueError(f"σ = {sigma!r} is not a standard deviation")
        if sigma == 0:
            return values.astype(np.float64)
        grid = max(step, math.ldexp(1.0, math.frexp(sigma)[1] + _FINEST))
        if sigma < _COARSEST * grid:
            raise ValueError(f"noise of σ = {sigma:g} is too little for steps of {grid:g}")
        noise = np.rint(sigma * self.normals(len(values), context) / grid)
        return (np.trunc(values / grid) + noise) * grid
