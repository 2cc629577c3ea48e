from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cosilo.engines.llama import bounds as bounds_without
from cosilo.engines.llama import forward, observe, shifts
from cosilo.engines.prefix import bounds, keys_and_values
from joint_llama import small_llama, texts


def by_hand(model: Any, states: Any, layer: int, place: int, group: int) -> tuple[Any, Any]:
    """A key and a value of one place: one product each, and one turn."""
    _, before = forward(model, states)
    x = before[2 * layer][place]
    normal = x / np.sqrt((x * x).mean() + model.eps)
    size = model.width // model.heads
    keys = model.mixed[layer][:, model.width : model.width + model.groups * size]
    values = model.mixed[layer][:, model.width + model.groups * size :]
    key = (normal @ keys)[group * size : (group + 1) * size]
    half = size // 2
    turned = np.empty(size)
    for i in range(half):
        angle = place * model.theta ** (-i / half)
        turned[i] = key[i] * np.cos(angle) - key[i + half] * np.sin(angle)
        turned[i + half] = key[i + half] * np.cos(angle) + key[i] * np.sin(angle)
    return turned, (normal @ values)[group * size : (group + 1) * size]


@pytest.mark.parametrize(("layer", "place", "group"), [(0, 0, 1), (0, 4, 0), (1, 3, 1)])
def test_keys_are_turned_by_their_place_and_values_are_not(
    layer: int, place: int, group: int
) -> None:
    model, states = small_llama(), texts(1)[0]
    keys, values = keys_and_values(model, states)
    assert keys.shape == values.shape == (2, 2, 6, 4)
    key, value = by_hand(model, states, layer, place, group)
    np.testing.assert_allclose(keys[layer, group, place], key, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values[layer, group, place], value, rtol=1e-4, atol=1e-5)


def test_they_do_not_depend_on_what_comes_after() -> None:
    model, states = small_llama(), texts(1)[0]
    keys, values = keys_and_values(model, states)
    fewer = keys_and_values(model, states[:3])
    np.testing.assert_allclose(fewer[0], keys[:, :, :3], atol=1e-5)
    np.testing.assert_allclose(fewer[1], values[:, :, :3], atol=1e-5)


def test_what_is_known_of_a_prefix_lies_within_what_is_proved_of_any_text() -> None:
    model, seen = small_llama(), observe(small_llama(), texts(0)[0])
    any_text = {bound.what: bound.largest for bound in bounds_without(model, seen, shifts(seen))}
    entry, score = bounds(model, *keys_and_values(model, texts(2)[0]))
    assert 0 < entry.largest <= max(v for k, v in any_text.items() if "query, key or value" in k)
    assert 0 < score.largest <= max(v for k, v in any_text.items() if k.startswith("a score"))
    assert entry.proved
    assert score.proved
