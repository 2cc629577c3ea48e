"""Layers are measured and dropped; the student learns back what went with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tiny_lm
from cosilo.errors import ConfigError
from cosilo.models.base import Tokens
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.depth import importance, plain, without
from cosilo.models.white_box.healing import freeze_ends, teacher_loss
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.models.white_box.training import Schedule, train
from cosilo.models.white_box.tuning import mean_loss

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

LAYERS = 4


@pytest.fixture
def module() -> Any:
    """Layer 2 does nothing: what it adds to the state is zero."""
    found = tiny_lm.module(40, layers=LAYERS)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.endswith(("q_proj.weight", "up_proj.weight", "gate_proj.weight")):
                parameter.mul_(8)  # so that the other layers do something
        found.model.layers[2].self_attn.o_proj.weight.zero_()
        found.model.layers[2].mlp.down_proj.weight.zero_()
    return found


def text(count: int = 6) -> list[Tokens]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 9, count)
    return [Tokens(rng.integers(3, 40, n).astype(np.int32), 1, (b"",) * (n - 1)) for n in lengths]


def test_a_layer_that_does_nothing_is_found_first(module: Any) -> None:
    found = importance(module, text(), drop=2)
    assert found.order[0] == 2
    assert found.change[2] == pytest.approx(0, abs=1e-5)
    assert min(c for i, c in enumerate(found.change) if i != 2) > 1e-4
    assert found.losses[1] == pytest.approx(found.losses[0], abs=1e-5)


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_losses_are_those_of_models_without_the_layers(module: Any, at_once: int) -> None:
    found = importance(module, text(), drop=3, at_once=at_once)
    for k, loss in enumerate(found.losses):
        assert mean_loss(without(module, found.order[:k]), text()) == pytest.approx(loss, abs=1e-4)


def test_each_choice_is_the_best_one_left(module: Any) -> None:
    """Against trying them all, the slow way."""
    found = importance(module, text(), drop=2)
    for k in range(2):
        gone = found.order[:k]
        tried = {
            i: mean_loss(without(module, [*gone, i]), text())
            for i in range(LAYERS)
            if i not in gone
        }
        assert found.order[k] == min(tried, key=tried.__getitem__)


def test_a_model_without_layers_is_its_own_and_generates(module: Any) -> None:
    before = {n: p.clone() for n, p in module.named_parameters()}
    made = without(module, [0, 2])
    assert len(made.model.layers) == made.config.num_hidden_layers == 2
    assert torch.equal(
        made.model.layers[0].mlp.up_proj.weight, module.model.layers[1].mlp.up_proj.weight
    )
    with torch.no_grad():
        made.model.layers[0].mlp.up_proj.weight.zero_()
        said = made.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False)
    assert said.shape == (1, 7)
    assert all(torch.equal(before[n], p) for n, p in module.named_parameters())
    assert len(module.model.layers) == module.config.num_hidden_layers == LAYERS


def test_what_cannot_be_dropped_is_refused(module: Any) -> None:
    with pytest.raises(ConfigError, match="4 layers cannot be dropped"):
        importance(module, text(), drop=LAYERS)
    with pytest.raises(ConfigError, match="cannot do without"):
        without(module, range(LAYERS))
    with pytest.raises(ConfigError, match="cannot do without"):
        without(module, [7])


def test_a_student_comes_near_its_teacher(module: Any) -> None:
    module.requires_grad_(False)
    student = without(module, [0, 1]).requires_grad_(True)
    freeze_ends(student)
    ends = student.get_output_embeddings().weight.clone()
    loss = teacher_loss(module)
    before = float(loss(student, text()).detach())
    train(student, text(), loss, Schedule(steps=40, batch=6, learning_rate=3e-3))
    assert float(loss(student, text()).detach()) < 0.5 * before
    assert torch.equal(student.get_output_embeddings().weight, ends)
    assert float(teacher_loss(module)(module, text())) == pytest.approx(0, abs=1e-5)


def test_the_teachers_loss_is_the_divergence(module: Any) -> None:
    """Against the sum over the vocabulary, one token at a time."""
    student, total, count = without(module, [1]), 0.0, 0
    with torch.no_grad():
        for s in text():
            ids = torch.tensor(s.ids[None].astype(np.int64))
            p, q = (m(ids).logits[0, :-1].double().softmax(-1) for m in (module, student))
            total += float((p * (p.log() - q.log())).sum())
            count += len(s) - 1
        found = float(teacher_loss(module)(student, text()))
    assert found == pytest.approx(total / count, rel=1e-3)
    assert float(reply_loss(student, text()).detach()) != pytest.approx(found)


def test_text_is_cut_into_whole_sequences() -> None:
    tokens = ChatTokens(tiny_lm.tokenizer())
    text_ = "the refund " * 20
    found = plain(tokens, [text_, "short"], length=16)
    ids = tokens.reply(text_)[0][:-1]
    assert [list(s.ids) for s in found] == [ids[i : i + 16] for i in range(0, len(ids) - 15, 16)]
    assert all(s.start == 1 and len(s.pieces) == 15 for s in found)
