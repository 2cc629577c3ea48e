"""Upper layers trained by themselves: the loss of the whole model, what lies below computed once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cosilo.models.base import Tokens
from cosilo.models.white_box import upper
from cosilo.models.white_box.adapters import (
    Adapter,
    first_adapter,
    layers_to_adapt,
    trained_adapter,
    usual_loss,
    with_adapter,
)
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.layers import layers_of
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.upper import ReplyLossAbove
from cosilo.types import user
from white_box import tiny

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time


def sequences(model: TorchModel) -> list[Tokens]:
    words = ("refund", "billing please", "delivery")
    return [model.tokenize(user("about " * (1 + i % 4) + str(i)), words[i % 3]) for i in range(9)]


def on_the_last(model: TorchModel, layers: int = 1) -> Adapter:
    count = len(layers_of(model.module))
    return first_adapter(layers_to_adapt(model.module, range(count - layers, count)), 3, seed=1)


def gradients(loss: Any, module: Any, given: list[Tokens]) -> tuple[float, dict[str, Any]]:
    module.zero_grad()
    found = loss(module, given)
    found.backward()
    return float(found.detach()), {
        n: p.grad.clone() for n, p in module.named_parameters() if p.requires_grad
    }


def test_layers_are_chosen_by_number() -> None:
    model = tiny(3)
    every = layers_to_adapt(model.module)
    parts = [layers_to_adapt(model.module, [i]) for i in range(len(layers_of(model.module)))]
    assert all(parts)
    assert sum(map(len, parts)) == len(every)
    assert {n: s for part in parts for n, s in part.items()} == every


def test_loss_and_gradients_are_those_of_the_whole_model() -> None:
    model = tiny(3)
    adapter = on_the_last(model)
    module = with_adapter(model.module, adapter)
    above = usual_loss(model.module, adapter)
    assert isinstance(above, ReplyLossAbove)
    for given in (sequences(model)[:1], sequences(model)):
        whole, wanted = gradients(reply_loss, module, given)
        for _ in range(2):  # computed, and from what is kept
            value, found = gradients(above, module, given)
            assert value == pytest.approx(whole, rel=1e-5)
            for name, gradient in wanted.items():
                torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_what_lies_below_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(3)
    asked: list[int] = []
    before = upper.states

    def counted(module: Any, given: Any, layer: int) -> Any:
        asked.append(len(given))
        return before(module, given, layer)

    monkeypatch.setattr(upper, "states", counted)
    trained_adapter(model.module, on_the_last(model), sequences(model), steps=12, batch=4)
    assert sum(asked) == len(sequences(model))


def test_no_more_is_kept_than_allowed() -> None:
    model = tiny(3)
    adapter = on_the_last(model)
    module = with_adapter(model.module, adapter)
    given = sequences(model)
    first = len(layers_of(model.module)) - 1
    none, every = ReplyLossAbove(first, most_bytes=0), ReplyLossAbove(first)
    with torch.no_grad():
        assert float(none(module, given)) == float(every(module, given))
    assert not none._kept
    assert len(every._kept) == len(given)


def test_adapters_that_reach_down_are_trained_whole() -> None:
    model = tiny(3)
    count = len(layers_of(model.module))
    assert usual_loss(model.module, on_the_last(model, layers=count)) is reply_loss


def test_training_gives_the_same_adapter_as_over_the_whole_model() -> None:
    model = tiny(3)
    adapter = on_the_last(model)
    given = sequences(model)
    found, _ = trained_adapter(model.module, adapter, given, steps=8, batch=4)
    again, _ = trained_adapter(model.module, adapter, given, steps=8, batch=4)
    whole, _ = trained_adapter(model.module, adapter, given, steps=8, batch=4, loss=reply_loss)
    for name, tensor in found.tensors.items():
        assert np.array_equal(tensor, again.tensors[name])
        moved = np.abs(whole.tensors[name] - adapter.tensors[name]).max()
        assert np.abs(tensor - whole.tensors[name]).max() < max(1e-6, 0.05 * moved)


def test_what_is_kept_is_the_same_whenever_it_was_computed() -> None:
    model = tiny(3)
    for layer in layers_of(model.module):
        layer.self_attn.attention_dropout = 0.5
    adapter = on_the_last(model)
    module = with_adapter(model.module, adapter).train()
    given = sequences(model)[:2]
    kept = []
    for seed in (0, 1):  # in an early step, and in a later one after a kill
        torch.manual_seed(seed)
        above = usual_loss(model.module, adapter)
        assert isinstance(above, ReplyLossAbove)
        above(module, given)
        kept.append(list(above._kept.values()))
        assert module.training
    for one, other in zip(*kept, strict=True):
        assert torch.equal(one, other)
