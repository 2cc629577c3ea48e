"""Vectors with noise in any direction: how near two of them are bounds how well they are told apart.

Density proportional to exp(−η ‖noise‖): a direction drawn evenly, and a length from the Gamma
distribution of shape d and scale 1/η (Feyisetan et al., arXiv 1910.08902). Two vectors x, x' can be
told apart by a factor of exp(η ‖x − x'‖) at most (metric differential privacy, d_χ); where vectors
are cut to a length C, by exp(2 η C). The length is drawn once for a vector: drawing one for each of
its numbers, as reference code of Split-and-Denoise does, makes noise √(d/3) times as long, and not of
this distribution.
"""

from __future__ import annotations

import math
import random

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def radial_noise(source: random.Random, width: int, eta: float) -> Floats:
    """Noise for one vector of so many numbers."""
    length = source.gammavariate(width, 1 / eta)
    direction = np.array([source.gauss(0.0, 1.0) for _ in range(width)])
    found: Floats = (length / np.linalg.norm(direction) * direction).astype(np.float32)
    return found


def eta_for(noise: float, clip: float, width: int) -> float:
    """The η at which noise is `noise` times as long as vectors may be, on average.

    Raises:
        ValueError: a number is not positive and finite.
    """
    if not 0 < noise < math.inf or not 0 < clip < math.inf:
        raise ValueError(f"noise = {noise!r} and clip = {clip!r} must be positive and finite")
    return width / (noise * clip)


def cut_to(vectors: Floats, clip: float) -> Floats:
    """`vectors`, shape (n, width), none of them longer than `clip`."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    shorter = np.minimum(1.0, clip / np.maximum(lengths, 1e-30))
    found: Floats = (vectors * shorter).astype(np.float32)
    return found
