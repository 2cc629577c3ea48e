"""Choices in one row are what they are one by one; the confidence loss is the paper's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import lent
from cosilo.models.white_box.choosing import (
    choice_logprobs,
    choice_loss,
    confidence_at,
    hardened,
)
from cosilo.models.white_box.decoding import score
from cosilo.types import user


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_choices_in_one_row_are_as_likely_as_by_themselves(attention: str) -> None:
    module, tokens = lent.parts()
    before = module.config._attn_implementation
    prompts = [tokens.prompt(user(text)) for text in ("about 7", "the hello world is about 12")]
    replies = [tokens.reply(text)[0] for text in ("", "billing", "the refund, or not", "b")]
    try:
        module.set_attn_implementation(attention)
        with torch.no_grad():
            found = choice_logprobs(module, prompts, replies).numpy()
            each = np.array([score(module, prompt, replies) for prompt in prompts])
    finally:
        module.set_attn_implementation(before)
    assert np.abs(found - each).max() < 1e-3
    assert np.ptp(each) > 1, "they differ, so that the comparison says something"


def test_gradients_reach_the_weights() -> None:
    module, tokens = lent.parts()
    layer = module.model.layers[0].self_attn.q_proj.weight
    layer.requires_grad_(True)
    try:
        found = choice_logprobs(
            module, [tokens.prompt(user("about 7"))], [tokens.reply(x)[0] for x in lent.LABELS]
        )
        choice_loss(found, torch.tensor([[1.0, 0.0, 0.0]])).backward()
        assert torch.isfinite(layer.grad).all()
        assert float(layer.grad.abs().sum()) > 0
    finally:
        layer.grad = None
        layer.requires_grad_(False)


@pytest.mark.parametrize("seed", range(6))
def test_of_two_choices_the_likeliest_with_these_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logs = np.log(rng.dirichlet(np.ones(2), size=6))
    wanted = rng.dirichlet(np.ones(2))
    found = hardened(logs, wanted)
    assert np.abs(np.bincount(found, minlength=2) - 6 * wanted).max() <= 0.5
    best = max(
        logs[np.arange(6), list(each)].sum()
        for each in itertools.product(range(2), repeat=6)
        if sum(each) == found.sum()
    )
    assert logs[np.arange(6), found].sum() == pytest.approx(best)


def test_of_more_choices_each_is_the_likeliest_whatever_their_counts() -> None:
    logs = np.log(np.array([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]))
    assert hardened(logs, np.array([0.0, 3.0, 0.0])).tolist() == [0, 0, 2]


def test_with_two_choices_it_is_a_threshold() -> None:
    likely = np.array([0.9, 0.2, 0.6, 0.7, 0.1, 0.55])
    found = hardened(np.log(np.stack([likely, 1 - likely], 1)), np.array([2.0, 4.0]))
    assert [i for i, choice in enumerate(found) if choice == 0] == [0, 3], "the two likeliest"


def test_the_loss_is_the_cross_entropy_of_both_targets() -> None:
    rng = np.random.default_rng(0)
    scores = torch.tensor(rng.normal(size=(6, 3)), dtype=torch.float32)
    shares = torch.tensor(rng.dirichlet(np.ones(3), size=6), dtype=torch.float32)
    logs = scores.log_softmax(1).numpy()
    own = np.eye(3)[hardened(logs.astype(float), shares.numpy().sum(0).astype(float))]
    for confidence in (0.0, 0.5):
        target = (1 - confidence) * shares.numpy() + confidence * own
        slow = -np.mean((target * logs).sum(1))
        assert float(choice_loss(scores, shares, confidence)) == pytest.approx(slow, rel=1e-5)


def test_confidence_rises_in_a_line_and_stays() -> None:
    found = [confidence_at(step, 10, 0.5, 0.4) for step in range(10)]
    assert found == pytest.approx([0, 0.125, 0.25, 0.375, *[0.5] * 6])
    assert confidence_at(0, 10, 0.5, 0.0) == 0.5
