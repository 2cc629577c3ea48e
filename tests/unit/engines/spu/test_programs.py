"""The programs with numpy in the place of JAX: what they compute, apart from shares."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pytest

from cosilo.engines.llama import forward, logits, observe, shifts
from joint_llama import program, shape_of, small_llama, texts

Patch = pytest.MonkeyPatch


@pytest.fixture
def shifted() -> list[list[int]]:
    return shifts(reduce(or_, (observe(small_llama(), states) for states in texts(0))))


def run(patch: Patch, shape: dict[str, Any], given: list[Any]) -> Any:
    model, module = small_llama(), program("llama", patch)
    owned = [model.mixed, model.out, model.gated, model.down, model.table, model.gain]
    sizes, others = module.arrays(shape)
    assert [x.shape for x in owned[: len(sizes)]] == sizes
    assert [x.shape for x in given] == others
    return module.build(shape)(owned[: len(sizes)], given)


def test_states_come_near_those_of_the_plain_forward(
    monkeypatch: Patch, shifted: list[list[int]]
) -> None:
    states = texts(3)[0]
    found, fits = run(monkeypatch, shape_of(small_llama(), 6, shifted), [states])
    expected, _ = forward(small_llama(), states)
    assert np.abs(found - expected).max() < 0.05  # beside entries of 20,000
    assert np.abs(found - expected)[1:].max() < 2e-3
    assert fits


def test_a_private_text_unlike_the_public_ones_is_noticed(
    monkeypatch: Patch, shifted: list[list[int]]
) -> None:
    states = texts(3)[0]
    states[4] *= 50
    _, fits = run(monkeypatch, shape_of(small_llama(), 6, shifted), [states])
    assert not fits


@pytest.mark.parametrize("place", [1, 4])
def test_tokens_are_looked_up_and_one_place_is_read(monkeypatch: Patch, place: int) -> None:
    """What stands after the place, such as filling, does not count."""
    model, words = small_llama(), np.array([7, 3, 9, 2, 2, 30])
    shifted = shifts(observe(model, model.table[words]))
    shape = shape_of(model, 6, shifted, starts="tokens", ends="logits")
    asked = np.eye(6, dtype=np.float32)[[place]]
    found, fits = run(monkeypatch, shape, [np.eye(50, dtype=np.float32)[words], asked])
    states, _ = forward(model, model.table[words[: place + 1]])
    np.testing.assert_allclose(found, logits(model, states)[-1], atol=5e-3)
    assert fits


def test_of_candidates_the_likeliest_is_told_by_its_number(monkeypatch: Patch) -> None:
    model, words = small_llama(), np.array([7, 3, 9, 2, 2, 30])
    shifted = shifts(observe(model, model.table[words]))
    shape = shape_of(model, 6, shifted, starts="tokens", ends="label", candidates=[4, 40, 11])
    given = [np.eye(50, dtype=np.float32)[words], np.eye(6, dtype=np.float32)[[5]]]
    found, _ = run(monkeypatch, shape, given)
    states, _ = forward(model, model.table[words])
    assert found == logits(model, states)[-1][[4, 40, 11]].argmax()


def test_the_exponential_and_the_logistic_function_hold_everywhere(monkeypatch: Patch) -> None:
    smooth = program("smooth", monkeypatch)
    x = np.concatenate([np.linspace(-40, 40, 4001), [-3e4, -513, -100, 100, 513, 3e4]])
    assert np.abs(smooth.logistic(x) - 1 / (1 + np.exp(-np.clip(x, -80, 80)))).max() < 1e-4
    assert np.abs(smooth.exponential(-np.abs(x)) - np.exp(-np.abs(x))).max() < 1e-4


@pytest.mark.parametrize("answer", ["label", "logits"])
def test_heads_are_linear_layers_with_relu_between(monkeypatch: Patch, answer: str) -> None:
    drawn = np.random.default_rng(0)
    x, first, second = (
        drawn.normal(size=(3, 8)),
        drawn.normal(size=(8, 6)),
        drawn.normal(size=(6, 4)),
    )
    mlp = program("mlp", monkeypatch)
    shape = {"inputs": 8, "hidden": 6, "outputs": 4, "rows": 3, "answer": answer}
    assert mlp.arrays(shape) == ([(8, 6), (6,), (6, 4), (4,)], [(3, 8)])
    found = mlp.build(shape)([first, np.ones(6), second, np.ones(4)], [x])
    expected = np.maximum(x @ first + 1, 0) @ second + 1
    np.testing.assert_allclose(found, expected if answer == "logits" else expected.argmax(1))


def test_one_layer_alone_reads_one_place(monkeypatch: Patch, shifted: list[list[int]]) -> None:
    """The last layer's other places have keys and values, and nothing more."""
    model = small_llama()
    states = texts(3)[0]
    one, (_, _, middle, *_) = model.last(1), forward(model, states)[1]
    shape = shape_of(one, 6, shifted[2:], ends="logits")
    module = program("llama", monkeypatch)
    asked = np.eye(6, dtype=np.float32)[[3]]
    owned = [one.mixed, one.out, one.gated, one.down, one.table, one.gain]
    found, fits = module.build(shape)(owned, [middle, asked])
    np.testing.assert_allclose(found, logits(one, forward(one, middle)[0])[3], atol=2e-2)
    assert fits
    middle[5] *= 50
    assert not module.build(shape)(owned, [middle, asked])[1], "places that are not asked for count"
