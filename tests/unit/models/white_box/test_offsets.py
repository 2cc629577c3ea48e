"""What offset unlearning reads, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cosilo.models.base import Tokens
from cosilo.types import user

pytest.importorskip("torch")

import torch

from cosilo.models.white_box.adapters import first_adapter, upper_layers, usual_loss, with_adapter
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.unlearning import offsets
from cosilo.models.white_box.unlearning.offsets import SteeredReader, logits_of
from cosilo.models.white_box.unlearning.reading import ModuleReader
from white_box import tiny

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def model() -> TorchModel:
    return tiny(seed=3, scale=3.0)


def _replies(model: TorchModel) -> list[Tokens]:
    return [model.tokenize(user("q" * n), "the world " * n) for n in (1, 2, 3)]


class Counted:
    def __init__(self, model: TorchModel) -> None:
        self.inner, self.asked = logits_of(model), 0

    def __call__(self, sequences: Sequence[Tokens]) -> Any:
        self.asked += len(sequences)
        return self.inner(sequences)


def _reader(model: TorchModel, large: Any, alpha: float = 1.5) -> tuple[SteeredReader, Any]:
    start = first_adapter(upper_layers(model.module, 1), 2, seed=0)
    learning = with_adapter(model.module, start)
    with torch.no_grad():
        for name, weight in learning.named_parameters():
            if "lora" in name.lower():
                weight.add_(0.1)
    inner = ModuleReader(usual_loss(model.module, start))
    return SteeredReader(inner, model.module, large, alpha), learning


def test_logits_are_moved_by_what_the_small_model_learned(model: TorchModel) -> None:
    large = tiny(seed=4, scale=3.0)
    reader, learning = _reader(model, logits_of(large))
    every = _replies(model)
    said = reader.said(learning, every)

    plain = [logits_of(model)(every), logits_of(large)(every)]
    own = logits_of(model.with_module(learning))(every)
    wanted = plain[1].log_softmax(1) + 1.5 * (own - plain[0])
    assert not torch.allclose(own, plain[0], atol=1e-3)
    torch.testing.assert_close(said.logits, wanted, atol=1e-4, rtol=1e-4)


def test_a_table_padded_to_another_length_is_moved_by_what_both_know(model: TorchModel) -> None:
    large = tiny(seed=4, scale=3.0)
    every = _replies(model)
    plain, learning = _reader(model, logits_of(large))
    wanted = plain.said(learning, every).logits

    def padded(sequences: Sequence[Tokens]) -> Any:
        logits = logits_of(large)(sequences)
        return torch.nn.functional.pad(logits, (0, 5), value=-1e9)

    reader, learning = _reader(model, padded)
    torch.testing.assert_close(reader.said(learning, every).logits, wanted)


def test_models_that_do_not_learn_are_read_once_for_each_reply(model: TorchModel) -> None:
    large = Counted(tiny(seed=4, scale=3.0))
    reader, learning = _reader(model, large)
    every = _replies(model)
    first = reader.said(learning, every).logits
    again = reader.said(learning, [every[2], every[0]]).logits
    assert large.asked == 3
    parts = first.split([len(s) - s.start for s in every])
    torch.testing.assert_close(again, torch.cat([parts[2], parts[0]]), atol=1e-5, rtol=1e-5)


def test_more_than_there_is_room_for_is_read_again_with_the_same_numbers(
    model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = _replies(model)
    large = Counted(tiny(seed=4, scale=3.0))
    reader, learning = _reader(model, large)
    wanted = reader.said(learning, every).logits
    monkeypatch.setattr(offsets, "_KEPT_BYTES", 0)
    reader, _ = _reader(model, large)
    for _ in range(2):
        assert torch.equal(reader.said(learning, every).logits, wanted)
    assert large.asked == 3 + 6
