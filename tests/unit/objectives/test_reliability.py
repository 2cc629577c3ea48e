"""The arrays of a reliability diagram."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.objectives import reliability
from cosilo.objectives.base import Item
from cosilo.tasks.base import Example
from cosilo.types import Answer, Generation, user


def item(confidence: float | None, grade: float, by: str = "small") -> Item:
    answer = Answer(Generation("x"), by=by, confidence=confidence)  # type: ignore[arg-type]
    return Item(Example("e", user("t"), ("x",)), answer, grade)


def test_bins_hold_their_own_means() -> None:
    items = [item(0.95, 1), item(0.9, 0), item(0.55, 1), item(1.0, 1)]
    found = reliability(items)
    assert found is not None
    assert found.lower.tolist() == [0.5, 0.9]
    assert found.count.tolist() == [1, 3]
    assert found.confidence == pytest.approx([0.55, (0.95 + 0.9 + 1.0) / 3])
    assert found.grade == pytest.approx([1.0, 2 / 3])
    assert (found.low <= found.grade).all()
    assert (found.high >= found.grade).all()
    # |0.55 − 1| of 1 item and |2.85 − 2| of 3, over 4.
    assert found.error == pytest.approx((0.45 + 0.85) / 4)
    assert found.n == 4


def test_a_calibrated_model_has_a_small_error_and_a_boastful_one_has_not() -> None:
    rng = np.random.default_rng(0)
    sure = rng.random(2000)
    right = (rng.random(2000) < sure).astype(float)
    calm = reliability([item(float(c), float(g)) for c, g in zip(sure, right, strict=True)])
    proud = reliability(
        [item(float(c) / 2 + 0.5, float(g)) for c, g in zip(sure, right, strict=True)]
    )
    assert calm is not None
    assert proud is not None
    assert calm.error < 0.05
    assert proud.error_low > 0.15
    assert calm.error_low <= calm.error <= calm.error_high


def test_only_answers_of_that_party_with_a_confidence_count() -> None:
    assert reliability([item(None, 1), item(0.9, 1, by="large")]) is None
    found = reliability([item(0.9, 1, by="large"), item(0.2, 0)], by="large")
    assert found is not None
    assert found.n == 1
