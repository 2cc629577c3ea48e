"""Aggregation against sums written out, and the norm of a product without making it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosilo.parties.coordinating.rules import Update, average
from cosilo.parties.coordinating.updates import product_norm
from federations import LAYERS, arrays


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=5), st.integers(0, 99))
def test_the_average_is_the_weighed_sum(weights: list[float], seed: int) -> None:
    updates = [Update(f"o{i}", w, 2, arrays(seed + i)) for i, w in enumerate(weights)]
    found = average(updates)
    for name in updates[0].tensors:
        slow = np.zeros(updates[0].tensors[name].shape)
        for update in updates:
            slow += update.weight * np.asarray(update.tensors[name], np.float64)
        assert found[name] == pytest.approx(slow / sum(weights), rel=1e-5, abs=1e-6)
        assert found[name].dtype == np.float32


@given(st.integers(0, 99), st.floats(0.1, 4), st.sampled_from([1e-3, 1.0, 1e3]))
def test_the_norm_is_that_of_the_products(seed: int, scale: float, size: float) -> None:
    matrices = arrays(seed, 3, size=size)
    whole = [
        scale
        * matrices[f"{n}.lora_B"].astype(np.float64)
        @ matrices[f"{n}.lora_A"].astype(np.float64)
        for n, _, _ in LAYERS
    ]
    slow = np.sqrt(sum(np.sum(product**2) for product in whole))
    assert product_norm(matrices, scale) == pytest.approx(slow, rel=1e-6)
