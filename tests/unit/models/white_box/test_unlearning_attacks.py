"""What is tried on unlearned weights: rounding against a slow, obvious version, two checkpoints, and
training again."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from numpy.typing import NDArray

import tiny_lm
from cosilo.errors import ConfigError
from cosilo.models.base import Tokens
from cosilo.models.white_box.adapters import (
    first_adapter,
    layers_to_adapt,
    merged_with,
    trained_adapter,
    with_adapter,
)
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.layers import is_adapted
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.models.white_box.unlearning.attacks import (
    TwoCheckpoints,
    relearned,
    rounded,
    rounded_to,
)
from cosilo.models.white_box.unlearning.forgetting import mean_nats
from cosilo.models.white_box.unlearning.reading import ModuleReader, reply_nats, reply_tokens
from cosilo.types import user

READER = ModuleReader(reply_loss)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny() -> TorchModel:
    tokens = tiny_lm.tokenizer()
    module = tiny_lm.module(len(tokens), seed=1, scale=3.0)
    return TorchModel.holding(module, ChatTokens(tokens), name="tiny")


def slowly(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Group by group and number by number."""
    flat, made = values.reshape(-1), []
    for start in range(0, len(flat), 32):
        group = [float(v) for v in flat[start : start + 32]]
        largest = max(group, key=abs)
        scale = float(np.float16(abs(largest) / 127 if bits == 8 else largest / -8))
        low, high = (-127, 127) if bits == 8 else (-8, 7)
        for value in group:
            steps = round(value / scale) if scale else 0
            made.append(min(high, max(low, steps)) * scale)
    return np.array(made, np.float32).reshape(values.shape)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(4, 64), (3, 20), (2, 32)])
def test_rounding_is_that_of_numbers_one_by_one(bits: int, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(bits).normal(size=shape).astype(np.float32)
    values[0, :4] = 0.0
    made = rounded(torch.tensor(values), bits).numpy()
    assert made == pytest.approx(slowly(values, bits), abs=1e-6)
    assert len(np.unique(made[:1])) <= (16 if bits == 4 else 256) * 2


def test_a_group_of_zeros_stays_and_other_bits_are_refused() -> None:
    assert not rounded(torch.zeros(2, 32), 4).any()
    with pytest.raises(ValueError, match="4 or 8 bits, not 3"):
        rounded(torch.zeros(2, 32), 3)


def asked(model: TorchModel, count: int = 6) -> Sequence[Tokens]:
    words = ("refund", "billing", "delivery", "hello", "the world", "is about")
    return [model.tokenize(user("abcdef"[i] * 9), f"{words[i]} {9 - i}") for i in range(count)]


def test_layers_are_rounded_and_the_given_module_stays() -> None:
    model = tiny()
    before = {n: p.clone() for n, p in model.module.named_parameters()}
    made = rounded_to(model.module, 4)
    assert all(torch.equal(p, before[n]) for n, p in model.module.named_parameters())
    changed = {n for n, p in made.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all(".layers." in name for name in changed)
    assert not any("norm" in name for name in changed)


def test_two_checkpoints_say_more_of_what_the_difference_took() -> None:
    model = tiny()
    sequences = asked(model)
    start = first_adapter(layers_to_adapt(model.module), 4, seed=0)
    less, _ = trained_adapter(model.module, start, sequences[:3], steps=4, learning_rate=1e-2)
    after = with_adapter(model.module, less)
    both = TwoCheckpoints(READER, model.module, weight=0.5)
    for (one, _), (other, _), (joined, _) in zip(
        *(reply_tokens(READER, m, sequences) for m in (model.module, after)),
        reply_tokens(both, after, sequences),
        strict=True,
    ):
        assert len(one) == len(other) == len(joined)
    logits = [READER.said(m, sequences).logits for m in (model.module, after)]
    expected = (1.5 * logits[0] - 0.5 * logits[1]).detach()
    assert torch.allclose(both.said(after, sequences).logits, expected, atol=1e-5)
    same = TwoCheckpoints(READER, after)
    assert reply_nats(same, after, sequences) == pytest.approx(
        reply_nats(READER, after, sequences), abs=1e-5
    )
    with pytest.raises(ConfigError):
        both.states(after, sequences, 1)


def test_two_checkpoints_of_tables_padded_to_other_lengths_are_held_by_what_both_know() -> None:
    model = tiny()
    tokens = len(tiny_lm.tokenizer())
    padded = copy.deepcopy(model.module)
    padded.resize_token_embeddings(tokens + 7)
    sequences = asked(model)
    expected = TwoCheckpoints(READER, model.module).said(model.module, sequences).logits
    for before, after in ((padded, model.module), (model.module, padded), (padded, padded)):
        logits = TwoCheckpoints(READER, before).said(after, sequences).logits
        assert torch.allclose(logits[:, :tokens], expected, atol=1e-5)
        assert logits.shape[1] == (tokens if before is not after else tokens + 7)


@pytest.mark.parametrize("adapted", [True, False])
def test_it_learns_again_what_it_is_given_with_an_adapter_or_without(adapted: bool) -> None:
    model = tiny()
    start = first_adapter(layers_to_adapt(model.module), 4, seed=1)
    module = (with_adapter if adapted else merged_with)(model.module, start)
    sequences = asked(model)
    made = relearned(module, sequences[:2], epochs=15, learning_rate=1e-2, layers=2, rank=4)
    assert is_adapted(made)
    assert mean_nats(READER, made, sequences[:2]) < mean_nats(READER, module, sequences[:2]) - 0.2
    again = relearned(module, sequences[:2], epochs=15, learning_rate=1e-2, layers=2, rank=4)
    assert mean_nats(READER, again, sequences) == mean_nats(READER, made, sequences)


def test_a_reply_token_by_token_adds_up_to_the_reply() -> None:
    model = tiny()
    sequences = asked(model)
    found = reply_tokens(READER, model.module, sequences)
    assert [-p.sum() for p, _ in found] == pytest.approx(
        reply_nats(READER, model.module, sequences), rel=1e-5
    )
    likeliest = READER.said(model.module, sequences[2:3])
    assert found[2][1].tolist() == (likeliest.logits.argmax(1) == likeliest.targets).tolist()
