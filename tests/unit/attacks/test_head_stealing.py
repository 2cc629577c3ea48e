"""A linear head is stolen by its logits, and copied from its labels."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.attacks.head_stealing import StolenHead, compared, solved, trained
from cosilo.engines.ckks.layout import Floats

INPUTS, LABELS = 24, 5
RNG = np.random.default_rng(0)
WEIGHTS, BIAS = RNG.normal(size=(LABELS, INPUTS)), RNG.normal(size=LABELS)


def vectors(count: int) -> Floats:
    found = RNG.normal(size=(count, INPUTS)) + 0.3
    unit: Floats = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


FRESH = vectors(500)


def test_as_many_logits_as_inputs_and_one_are_the_head() -> None:
    asked = vectors(INPUTS + 1)
    stolen = solved(asked, asked @ WEIGHTS.T + BIAS)
    theft = compared(WEIGHTS, BIAS, stolen, FRESH)
    assert theft.agreement == 1.0
    assert theft.weight_error < 1e-6
    np.testing.assert_allclose(stolen.bias, BIAS, atol=1e-6)


@pytest.mark.parametrize("fewer", [1, 8, 16])
def test_fewer_are_not(fewer: int) -> None:
    asked = vectors(INPUTS + 1 - fewer)
    theft = compared(WEIGHTS, BIAS, solved(asked, asked @ WEIGHTS.T + BIAS), FRESH)
    assert theft.weight_error > 0.05


def test_rounded_logits_still_give_most_of_it_away() -> None:
    asked = vectors(200)
    rounded = np.round(asked @ WEIGHTS.T + BIAS, 1)
    assert compared(WEIGHTS, BIAS, solved(asked, rounded), FRESH).agreement > 0.9


def test_labels_give_the_answers_away_and_not_the_weights() -> None:
    pytest.importorskip("sklearn")
    asked = vectors(300)
    labels = StolenHead(WEIGHTS, BIAS).labels(asked)
    theft = compared(WEIGHTS, BIAS, trained(asked, labels, LABELS), FRESH)
    assert theft.base_rate < 0.6 < theft.agreement < 1.0
    assert theft.weight_error > 0.05


def test_labels_that_say_little_are_no_error() -> None:
    pytest.importorskip("sklearn")
    asked = vectors(3)
    assert set(trained(asked, np.array([2, 2, 2]), LABELS).labels(FRESH)) == {2}
    apart = trained(asked, np.array([0, 2, 4]), LABELS)
    assert set(apart.labels(FRESH)) <= {0, 2, 4}


def test_what_all_labels_have_in_common_is_no_error() -> None:
    shifted = StolenHead(WEIGHTS + 7.0, BIAS - 3.0)
    theft = compared(WEIGHTS, BIAS, shifted, FRESH)
    assert theft.agreement == 1.0
    assert theft.weight_error < 1e-12
