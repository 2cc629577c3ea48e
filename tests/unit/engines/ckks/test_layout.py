"""Where vectors, weights and logits stand in slots."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.engines.ckks.layout import SLOTS, Floats, SlotLayout, require_room


@pytest.mark.parametrize(
    ("inputs", "outputs"), [(1, 1), (1, 5), (2, 3), (7, 4), (16, 2), (384, 77), (100, 3000)]
)
def test_turning_and_multiplying_slots_gives_the_logits(inputs: int, outputs: int) -> None:
    layout, rng = SlotLayout(inputs, outputs), np.random.default_rng(inputs)
    weights = rng.normal(size=(outputs, inputs))
    vectors = rng.normal(size=(min(layout.fits, 3), inputs))

    slots = layout.spread(vectors)
    total = np.zeros(SLOTS)
    for first in range(0, inputs, layout.baby):
        part = np.zeros(SLOTS)
        for i in range(first, min(first + layout.baby, inputs)):
            turned = turn(slots, i - first, layout)
            part += turned * layout.diagonal(weights, i, len(vectors))
        total += turn(part, first, layout)

    np.testing.assert_allclose(layout.logits(total, len(vectors)), vectors @ weights.T, atol=1e-9)
    outside = np.ones(SLOTS, bool)
    for n in range(len(vectors)):
        outside[n * layout.block : n * layout.block + outputs] = False
    assert not total[outside].any()  # sums of parts of a logit would tell more than the logit


def turn(slots: Floats, step: int, layout: SlotLayout) -> Floats:
    assert step == 0 or step in layout.steps, "no key turns by that"
    return np.roll(slots, -step)


def test_few_turns_are_enough() -> None:
    assert len(SlotLayout(384, 77).steps) == 38
    assert SlotLayout(384, 77).fits == 8


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 1), (1, 0), (4000, 98)])
def test_a_head_that_does_not_fit_is_refused(inputs: int, outputs: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        SlotLayout(inputs, outputs)


def test_more_vectors_than_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 1 vectors"):
        SlotLayout(3000, 2).spread(np.zeros((2, 3000)))


def test_logits_without_room_are_refused() -> None:
    weights, bias = np.full((2, 4), 100.0), np.array([0.0, 50.0])
    require_room(weights, bias)
    with pytest.raises(ValueError, match="may be up to"):
        require_room(weights, bias + 7)
    with pytest.raises(ValueError, match="may be up to"):
        require_room(weights * np.nan, bias)
