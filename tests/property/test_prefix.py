"""A suffix that is computed on in secret behind a prefix in clear gives what all of the text gives."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import or_

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.engines.llama import forward, logits, observe, shifts
from cosilo.engines.prefix import keys_and_values
from joint_llama import program, shape_of, small_llama

TEXTS = st.lists(st.integers(0, 49), min_size=2, max_size=12)


@given(TEXTS, st.integers(1, 11), st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_the_answer_and_each_state_are_those_of_the_plain_forward(
    ids: list[int], before: int, layers: int, seed: int
) -> None:
    before = min(before, len(ids) - 1)
    model = small_llama(layers, seed)
    model = replace(model, table=model.table / 2)
    states = model.table[ids]
    public = np.random.default_rng(seed).integers(0, 50, (30, 12))
    halvings = shifts(
        reduce(or_, (observe(model, model.table[each]) for each in [*public, np.array(ids)]))
    )
    clear = keys_and_values(model, states[:before])
    owned = [model.mixed, model.out, model.gated, model.down]
    rows = np.eye(50, dtype=np.float32)[ids[before:]]
    asked = np.eye(len(rows), dtype=np.float32)[-1:]
    plain, _ = forward(model, states)
    with pytest.MonkeyPatch.context() as patch:
        module = program("llama", patch)
        shape = shape_of(model, len(rows), halvings, before=before)
        assert [x.shape for x in clear] == module.brought(shape)
        found, fits = module.build(shape)(owned, [states[before:]], clear)
        shape |= {"starts": "tokens", "ends": "logits"}
        said, _ = module.build(shape)([*owned, model.table, model.gain], [rows, asked], clear)
    assert fits
    np.testing.assert_allclose(found, plain[before:], atol=2e-2)
    np.testing.assert_allclose(said, logits(model, plain)[-1], atol=5e-2)
