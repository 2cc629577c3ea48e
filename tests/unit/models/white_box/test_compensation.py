"""Layers that stay make good for those that went, without training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tiny_lm
from cosilo.errors import ConfigError
from cosilo.models.base import Tokens
from cosilo.models.white_box.compensation import compensate
from cosilo.models.white_box.depth import without
from cosilo.models.white_box.healing import teacher_loss

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time


@pytest.fixture
def teacher() -> Any:
    """Layers 1 and 2 see what layer 0 sees and make something else of it: it could do their work."""
    made = tiny_lm.module(60, layers=4, scale=4).requires_grad_(False)
    first, *others = made.model.layers[:3]
    for layer in others:
        layer.self_attn.o_proj.weight.zero_()
        for name in ("gate_proj", "up_proj"):
            getattr(layer.mlp, name).weight.copy_(getattr(first.mlp, name).weight)
    return made


def text(count: int, seed: int = 0) -> list[Tokens]:
    rng = np.random.default_rng(seed)
    return [
        Tokens(rng.integers(3, 60, n).astype(np.int32), 1, (b"",) * (n - 1))
        for n in rng.integers(20, 30, count)
    ]


def test_the_student_comes_nearer_on_text_it_was_not_fitted_on(teacher: Any) -> None:
    raw, refitted = without(teacher, [1, 2]), without(teacher, [1, 2])
    left = compensate(refitted, teacher, [1, 2], text(200))
    assert len(left) == 2
    assert left[0] < 0.85
    assert left[1] < 1
    loss = teacher_loss(teacher)
    with torch.no_grad():
        before, after = (float(loss(m, text(8, seed=1))) for m in (raw, refitted))
    assert after < 0.8 * before
    changed = [
        name
        for (name, a), (_, b) in zip(
            raw.named_parameters(), refitted.named_parameters(), strict=True
        )
        if not torch.equal(a, b)
    ]
    assert changed == [f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)]


def test_the_refitted_matrix_is_the_ridge_solution(teacher: Any) -> None:
    """Which finds the map there is, and leaves alone what is right already."""
    from cosilo.models.white_box import compensation as module

    rng = torch.Generator().manual_seed(0)
    features = torch.randn(10, 30, 6, generator=rng)
    truth = torch.randn(6, 4, generator=rng)
    state = torch.randn(10, 30, 4, generator=rng)
    real = torch.ones(10, 30, dtype=torch.bool)
    change, share = module._refit(features, state, state + features @ truth, real)
    assert share < 0.01
    torch.testing.assert_close(change, truth, atol=0.05, rtol=0.05)
    nothing, whole = module._refit(features, state, state.clone(), real)
    assert (nothing, whole) == (None, 1.0)


def test_a_layer_before_the_first_gap_stays_as_it_is(teacher: Any) -> None:
    student = without(teacher, [3])
    left = compensate(student, teacher, [3], text(20))
    assert left[:2] == [1.0, 1.0]
    assert torch.equal(
        student.model.layers[0].mlp.down_proj.weight, teacher.model.layers[0].mlp.down_proj.weight
    )


def test_layers_of_another_kind_are_refused(teacher: Any) -> None:
    student = without(teacher, [1])
    student.model.layers[0].mlp.other = student.model.layers[0].mlp.down_proj
    del student.model.layers[0].mlp.down_proj
    with pytest.raises(ConfigError, match=r"no mlp\.down_proj"):
        compensate(student, teacher, [1], text(4))
