"""Adapters out of modules and into them, merged to the letter, trained to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_lm
from cosilo.errors import DataError, ModelError
from cosilo.models.base import Tokens
from cosilo.models.white_box.adapters import (
    Adapter,
    adapter_of,
    base_digest,
    first_adapter,
    layers_to_adapt,
    merged_with,
    trained_adapter,
    with_adapter,
)
from cosilo.models.white_box.batch import pad, predict
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tuning import merged, prepared
from cosilo.types import user
from white_box import tiny

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time


def sequences(model: TorchModel) -> list[Tokens]:
    words = ("refund", "billing", "delivery")
    return [model.tokenize(user(f"about {i}"), words[i % 3]) for i in range(12)]


def some(model: TorchModel, rank: int = 3, *, seed: int = 1) -> Adapter:
    """An adapter that changes something."""
    begun = first_adapter(layers_to_adapt(model.module), rank, seed=seed)
    rng = np.random.default_rng(seed)
    tensors = {
        n: (t + rng.normal(0, 0.1, t.shape)).astype(np.float32) for n, t in begun.tensors.items()
    }
    return replace(begun, tensors=tensors)


def logits(module: Any, given: list[Tokens]) -> Any:
    with torch.no_grad():
        return predict(module, pad(given))


def same(one: Adapter, other: Adapter) -> bool:
    return (one.rank, one.alpha) == (other.rank, other.alpha) and all(
        np.array_equal(one.tensors[n], other.tensors[n]) for n in one.tensors | other.tensors
    )


def test_what_peft_made_comes_out_and_goes_in_again() -> None:
    model = tiny(1)
    begun = prepared(model.module, method="lora", rank=4, seed=2)
    found = adapter_of(begun)
    assert (found.rank, found.alpha) == (4, 8.0)
    assert found.layers == layers_to_adapt(model.module) == layers_to_adapt(begun)
    assert "model.layers.0.self_attn.q_proj" in found.layers
    changed = some(model)
    made = with_adapter(begun, changed)  # in the place of the other
    assert same(adapter_of(made), changed)
    assert not same(adapter_of(begun), changed)


def test_the_base_is_shared_and_stays_as_it_was() -> None:
    model = tiny(1)
    before = {n: p.clone() for n, p in model.module.named_parameters()}
    made = with_adapter(model.module, some(model))
    places = {p.data_ptr() for p in model.module.parameters()}
    assert places <= {p.data_ptr() for p in made.parameters()}
    assert all("lora_" in n for n, p in made.named_parameters() if p.requires_grad)
    assert all(torch.equal(before[n], p) for n, p in model.module.named_parameters())


@pytest.mark.parametrize("rank", [1, 3, 70])
def test_merging_adds_the_product(rank: int) -> None:
    model = tiny(1)
    adapter = replace(some(model, rank), alpha=0.7 * rank)
    given = sequences(model)
    around = logits(with_adapter(model.module, adapter), given)
    whole = merged_with(model.module, adapter)
    assert torch.allclose(logits(whole, given), around, atol=1e-4)
    assert not torch.allclose(logits(model.module, given), around, atol=1e-2)
    assert torch.allclose(
        logits(merged(with_adapter(model.module, adapter)), given), around, atol=1e-4
    )
    name = "model.layers.1.mlp.up_proj"
    slow = sum(
        np.outer(adapter.tensors[f"{name}.lora_B"][:, i], adapter.tensors[f"{name}.lora_A"][i])
        for i in range(rank)
    )
    weights = model.module.get_submodule(name).weight.detach().numpy()
    found = whole.get_submodule(name).weight.detach().numpy()
    assert np.allclose(found, weights + 0.7 * slow, atol=1e-5)
    embedding = whole.get_input_embeddings().weight
    assert embedding.data_ptr() == model.module.get_input_embeddings().weight.data_ptr()


def test_the_first_adapter_changes_nothing_and_is_the_same_everywhere() -> None:
    model = tiny(1)
    layers = layers_to_adapt(model.module)
    begun = first_adapter(layers, 4, seed=7)
    made = with_adapter(model.module, begun)
    assert torch.equal(logits(made, sequences(model)), logits(model.module, sequences(model)))
    torch.manual_seed(99)
    assert same(first_adapter(layers, 4, seed=7), begun)
    assert not same(first_adapter(layers, 4, seed=8), begun)
    small = first_adapter(layers, 2, seed=7)
    assert all(
        np.array_equal(begun.tensors[n + ".lora_A"][:2], small.tensors[n + ".lora_A"])
        for n in layers
    )
    drawn = begun.tensors["model.layers.0.mlp.up_proj.lora_A"]
    assert 0.9 / 8 < np.abs(drawn).max() <= 1 / 8  # hidden size 64


def test_training_is_the_same_to_the_bit_and_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    model = tiny(1)
    begun = first_adapter(layers_to_adapt(model.module), 2, seed=0)
    given = sequences(model)
    how: dict[str, Any] = {"steps": 8, "batch": 4, "learning_rate": 1e-2, "seed": 5}
    found, outcome = trained_adapter(model.module, begun, given, **how)
    assert outcome.losses[-1] < outcome.losses[0]
    again, _ = trained_adapter(model.module, begun, given, **how)
    assert same(found, again)
    assert same(begun, first_adapter(layers_to_adapt(model.module), 2, seed=0))
    other, _ = trained_adapter(model.module, begun, given, **{**how, "seed": 6})
    assert not same(found, other)

    class KilledError(Exception): ...

    def kill(progress: Any) -> None:
        if progress.step == 5:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "cosilo.models.white_box.training.perf_counter", iter(range(0, 10**6, 100)).__next__
        )
        with pytest.raises(KilledError):
            trained_adapter(model.module, begun, given, **how, folder=tmp_path, report=kill)
    steps: list[int] = []
    resumed, _ = trained_adapter(
        model.module, begun, given, **how, folder=tmp_path, report=lambda p: steps.append(p.step)
    )
    assert same(found, resumed)
    assert steps[0] == 6


def test_the_digest_is_of_base_and_tokeniser() -> None:
    model = tiny(1)
    found = base_digest(model)
    assert base_digest(tiny(1)) == found
    assert base_digest(model.with_module(with_adapter(model.module, some(model)))) == found
    assert (
        base_digest(
            TorchModel.holding(tiny(1).module.to(torch.bfloat16), model.tokens, name="half")
        )
        == found
    )
    assert base_digest(tiny(2)) != found
    words = tiny_lm.tokenizer((*tiny_lm.WORDS[:-1], " word"))
    module = tiny_lm.module(len(tiny_lm.tokenizer()), seed=1)
    tokens = type(model.tokens)(words)
    assert base_digest(TorchModel.holding(module, tokens, name="other")) != found


def test_what_is_no_adapter_of_this_model_is_refused() -> None:
    model = tiny(1)
    adapter = some(model)
    a, b = "model.layers.0.self_attn.q_proj.lora_A", "model.layers.0.self_attn.q_proj.lora_B"
    with pytest.raises(DataError, match="rank 0"):
        first_adapter(layers_to_adapt(model.module), 0, seed=0)
    with pytest.raises(DataError, match="lacks one"):
        Adapter(3, 6.0, {a: adapter.tensors[a]})
    with pytest.raises(DataError, match="ranks 3 and 2"):
        Adapter(3, 6.0, {a: adapter.tensors[a], b: adapter.tensors[b][:, :2]})
    with pytest.raises(DataError, match="pairs"):
        Adapter(3, 6.0, {**adapter.tensors, "bias": np.zeros(3, np.float32)})
    with pytest.raises(DataError, match="pairs"):
        Adapter(3, 6.0, {})
    with pytest.raises(DataError, match="alpha"):
        Adapter(3, float("nan"), adapter.tensors)
    wide = tiny(1, hidden=32)
    with pytest.raises(
        DataError, match=r"q_proj' of shape \(64, 64\), and the model has \(32, 32\)"
    ):
        with_adapter(wide.module, Adapter(3, 6.0, {a: adapter.tensors[a], b: adapter.tensors[b]}))
    with pytest.raises(DataError, match="no such layer"):
        merged_with(tiny(1, layers=1).module, adapter)
    with pytest.raises(DataError, match="no adapter"):
        adapter_of(model.module)


def test_what_is_not_finite_ends_in_an_error() -> None:
    model = tiny(1)
    begun = first_adapter(layers_to_adapt(model.module), 2, seed=0)
    with pytest.raises(ModelError, match="loss is nan"):
        trained_adapter(
            model.module, begun, sequences(model), steps=2,
            loss=lambda m, s: next(p for p in m.parameters() if p.requires_grad).sum() * float("nan"),
        )  # fmt: skip
