"""What an adapter's matrices are called and shaped, and its first ones, without torch.

Those are drawn as LoRA draws them, the same on every machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Layers = Mapping[str, tuple[int, int]]
"""The name of each adapted layer → (out, in), the shape of its weights."""

A, B = ".lora_A", ".lora_B"
"""How the names of a layer's two matrices end."""


def matrix_shapes(layers: Layers, rank: int) -> dict[str, tuple[int, ...]]:
    """The shapes of an adapter's matrices, by name."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (out, into) in layers.items():
        found |= {name + A: (rank, into), name + B: (out, rank)}
    return found


def first_matrices(layers: Layers, rank: int, seed: int) -> dict[str, Floats]:
    """A drawn evenly from ±1/√in, B nothing, for each layer. Those of a smaller rank are the first rows
    of those of a larger one and the same seed.
    """
    found: dict[str, Floats] = {}
    for name, (out, into) in sorted(layers.items()):
        digest = hashlib.sha256(name.encode()).digest()
        rng = np.random.default_rng([seed, int.from_bytes(digest[:8])])
        bound = 1 / math.sqrt(into)  # kaiming_uniform_ with a = √5, as peft begins
        found[name + A] = rng.uniform(-bound, bound, (rank, into)).astype(np.float32)
        found[name + B] = np.zeros((out, rank), np.float32)
    return found
