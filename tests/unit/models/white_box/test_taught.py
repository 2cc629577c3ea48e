"""The loss of lessons, against its definition written out place by place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from cosilo.models.mutual import TaughtLesson
from cosilo.models.white_box.adapters import first_adapter, upper_layers, with_adapter
from cosilo.models.white_box.taught import TaughtLoss, reply_logits
from cosilo.models.white_box.upper import ReplyLossAbove
from cosilo.types import user
from white_box import tiny

REPLIES = ("refund", "billing", "is the refund")


def lessons(model: Any, *, taught: tuple[bool, ...] = (True, True, True)) -> list[TaughtLesson]:
    rng, found, size = np.random.default_rng(0), [], model.vocabulary_size
    for i, reply in enumerate(REPLIES):
        tokens = model.tokenize(user(f"about {i}"), reply)
        places = np.arange(0, len(tokens) - tokens.start, 2) if taught[i] else np.zeros(0, np.int64)
        ids = np.stack([np.sort(rng.choice(size, 3, replace=False)) for _ in places] or [[0, 1, 2]])
        p = rng.dirichlet([1] * 4, max(1, len(places)))
        logs = np.log(p).astype(np.float32)
        n = len(places)
        ids = ids.astype(np.int32)[:n]
        found.append(TaughtLesson(tokens, places, ids, logs[:n, :3], logs[:n, 3], size))
    return found


def slow(module: Any, given: list[TaughtLesson], share: float) -> float:
    labels: list[float] = []
    far: list[float] = []
    for lesson in given:
        with torch.no_grad():
            rows = reply_logits(module, [lesson.tokens]).double().log_softmax(1).numpy()
        wanted = lesson.tokens.ids[lesson.tokens.start :]
        labels += [-rows[i, token] for i, token in enumerate(wanted)]
        for at, place in enumerate(lesson.places):
            here = rows[place]
            others = np.log(np.exp(np.delete(here, lesson.ids[at])).sum())
            student = [*here[lesson.ids[at]], others]
            teacher = [*lesson.logprobs[at], lesson.rest[at]]
            far.append(sum(np.exp(t) * (t - s) for t, s in zip(teacher, student, strict=True)))
    return float(share * np.mean(labels) + (1 - share) * np.mean(far))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("taught", [(True, True, True), (True, False, True)])
def test_the_loss_is_its_definition(share: float, taught: tuple[bool, ...]) -> None:
    model = tiny(0)
    given = lessons(model, taught=taught)
    loss = TaughtLoss(given, share)(model.module, [each.tokens for each in given])
    assert float(loss.detach()) == pytest.approx(slow(model.module, given, share), rel=1e-4)


def test_upper_layers_alone_have_the_same_loss_and_gradients() -> None:
    model = tiny(0, layers=3)
    layers = upper_layers(model.module, 1)
    given = lessons(model)
    found = []
    for above in (None, ReplyLossAbove(2)):
        module = with_adapter(model.module, first_adapter(layers, 2, seed=1))
        for name, parameter in module.named_parameters():
            parameter.requires_grad_("lora_" in name)
        TaughtLoss(given, 0.5, above)(module, [each.tokens for each in given]).backward()
        grads = [p.grad for n, p in sorted(module.named_parameters()) if "lora_" in n]
        found.append(torch.cat([g.ravel() for g in grads]))
    assert float(found[0].norm()) > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_a_batch_without_a_taught_place_learns_its_replies() -> None:
    model = tiny(0)
    given = lessons(model, taught=(False, False, False))
    loss = TaughtLoss(given, 0.5)(model.module, [each.tokens for each in given])
    whole = TaughtLoss(given, 1.0)(model.module, [each.tokens for each in given])
    assert float(loss.detach()) == pytest.approx(0.5 * float(whole.detach()))


def test_a_share_is_one_and_other_lessons_have_another_identity() -> None:
    model = tiny(0)
    with pytest.raises(ValueError, match="not from 0 to 1"):
        TaughtLoss([], 1.5)
    one, other = TaughtLoss(lessons(model), 0.5), TaughtLoss(lessons(model)[:2], 0.5)
    assert one.identity != other.identity
    assert one.identity == TaughtLoss(lessons(model), 0.5).identity
