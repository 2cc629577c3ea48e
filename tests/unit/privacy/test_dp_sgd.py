"""The noise of DP-SGD is the least that a budget bears."""

from __future__ import annotations

import pytest

from cosilo.errors import PrivacyError
from cosilo.privacy.composition import composed
from cosilo.privacy.dp_sgd import noise_for_steps, release_of_steps

pytest.importorskip("dp_accounting")


def test_noise_is_the_least_that_is_enough() -> None:
    noise = noise_for_steps(8.0, 1e-3, rate=1 / 3, steps=12)
    (spent,) = composed([release_of_steps(noise, 1 / 3, 12)], 1e-3)
    (more,) = composed([release_of_steps(noise * 0.997, 1 / 3, 12)], 1e-3)
    assert spent.epsilon <= 8.0 < more.epsilon
    assert spent.neighbours == "add_or_remove"
    # shared/research/privacy.md, 2.1: opacus takes σ = 0.889, by an accountant that counts more.
    assert 0.75 < noise < 0.889


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (1.0, 0.0), (1.0, 1.0)])
def test_what_is_no_budget_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(PrivacyError, match="no budget"):
        noise_for_steps(epsilon, delta, rate=0.1, steps=1)
