"""Losses of unlearning against their formulas, written slowly; and what they become at their limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from cosilo.models.white_box.unlearning import losses  # noqa: E402

BETAS = (0.01, 0.1, 1.0, 4.5)


@st.composite
def replies(draw: st.DrawFn, sets: int = 4) -> tuple[list[np.ndarray], np.ndarray]:
    """`sets` times the nats of some replies, and how many tokens these have."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 5))
    scale = draw(st.sampled_from([0.1, 3.0, 40.0]))
    return [rng.exponential(scale, count) for _ in range(sets)], rng.integers(1, 30, count)


@st.composite
def places(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits now and before, and the true tokens."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, size = draw(st.integers(1, 4)), draw(st.integers(2, 9))
    now, before = rng.normal(size=(2, n, size)) * draw(st.sampled_from([0.1, 1.0, 6.0]))
    return now, before, rng.integers(size, size=n)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def softmax(row: np.ndarray) -> list[float]:
    top = max(row)
    weights = [math.exp(x - top) for x in row]
    return [w / sum(weights) for w in weights]


def tensor(values: Any) -> Any:
    return torch.tensor(values, dtype=torch.float64)


def close(found: Any, wanted: float) -> None:
    assert float(found) == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@given(replies(), st.sampled_from(BETAS), st.sampled_from([0.0, 0.7]))
def test_losses_of_replies(
    found: tuple[list[np.ndarray], np.ndarray], beta: float, delta: float
) -> None:
    (nll, before, instead, instead_before), tokens = found
    n = len(nll)
    given_ = list(map(tensor, (nll, before, instead, instead_before)))
    close(losses.token_mean(given_[0], tensor(tokens)), sum(nll) / sum(tokens))
    slow = sum(-2 / beta * log_sigmoid(beta * (a - b)) for a, b in zip(nll, before, strict=True))
    close(losses.preference(given_[0], given_[1], beta), slow / n)
    slow = sum(
        -2 / beta * log_sigmoid(beta * (a / t - delta)) for a, t in zip(nll, tokens, strict=True)
    )
    close(losses.simple_preference(given_[0], tensor(tokens), beta, delta), slow / n)
    slow = 0.0
    for i in range(n):
        toward = -instead[i] + instead_before[i]
        away = -nll[i] + before[i]
        slow += -2 / beta * log_sigmoid(beta * (toward - away))
    close(losses.rather(*given_, beta), slow / n)


@given(places(), st.sampled_from([0.0, 3.0, 10.0]))
def test_losses_of_distributions(
    found: tuple[np.ndarray, np.ndarray, np.ndarray], less: float
) -> None:
    now, before, targets = found
    divergence = distilled = 0.0
    for row, old, target in zip(now, before, targets, strict=True):
        p, q = softmax(old), softmax(row)
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        adjusted = old.copy()
        adjusted[target] -= less
        distilled -= sum(a * math.log(b) for a, b in zip(softmax(adjusted), q, strict=True))
    close(losses.divergence(tensor(now), tensor(before)), divergence / len(now))
    got = losses.adjusted_distillation(tensor(now), tensor(before), torch.tensor(targets), less)
    close(got, distilled / len(now))


@given(places(), st.sampled_from([0.5, 2.0]))
def test_losses_of_states(found: tuple[np.ndarray, np.ndarray, np.ndarray], scale: float) -> None:
    now, before, _ = found
    direction = np.arange(1.0, now.shape[1] + 1)
    direction /= np.linalg.norm(direction)
    length = sum(math.sqrt(sum(x * x for x in row)) for row in before) / len(before)
    size = sum(x * x for row in before for x in row)
    there = sum(
        (x - scale * length * u) ** 2 for row in now for x, u in zip(row, direction, strict=True)
    )
    moved = sum((x - y) ** 2 for x, y in zip(now.flat, before.flat, strict=True))
    # The sums are over as many numbers on both sides, so that the means' ratio is theirs.
    found_ = losses.misdirection(tensor(now), tensor(before), torch.tensor(direction), scale)
    close(found_, there / size)
    close(losses.kept_states(tensor(now), tensor(before)), moved / size)


def test_places_of_no_token_do_not_count() -> None:
    """Some models have more outputs than tokens, so that their number is round."""
    now, wanted = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)).unbind()
    plain = losses.divergence(now, wanted)
    wider = torch.cat([wanted, torch.full((3, 2), 9.0)], dim=1)
    assert float(losses.divergence(now, wider)) == pytest.approx(float(plain))
    assert float(losses.divergence(wider, wanted)) == pytest.approx(0.0, abs=1e-6)


def test_what_holds_a_model_is_nothing_where_it_stands() -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = losses.divergence(logits, logits.detach())
    found.backward()
    assert abs(float(found.detach())) < 1e-6
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6
    assert float(losses.kept_states(logits.detach(), logits.detach())) == 0.0


@given(st.integers(0, 2**32))
def test_npo_is_gradient_ascent_where_beta_goes_to_0(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = tensor(rng.normal(size=6)).requires_grad_()
    features = tensor(rng.normal(size=(4, 6)))
    before = tensor(rng.exponential(5.0, 4))

    def gradient(loss: Any) -> Any:
        (found,) = torch.autograd.grad(loss, weights)
        return found / found.norm()

    def nll() -> Any:
        return (features @ weights).square()

    ascent = gradient(losses.token_mean(-nll(), torch.ones(4)))
    apart = [
        1.0 - float(gradient(losses.preference(nll(), before, beta)) @ ascent)
        for beta in (1e-2, 1e-4, 1e-6)
    ]
    assert apart[2] < 1e-8
    assert apart[2] <= apart[1] + 1e-12 <= apart[0] + 2e-12


@pytest.mark.parametrize("beta", BETAS)
def test_the_push_of_npo_fades(beta: float) -> None:
    """At 0 it is that of gradient ascent, and far below nothing."""
    pushes = []
    for nll in (5.0, 5.0 + 50 / beta):
        value = torch.tensor([nll], requires_grad=True)
        losses.preference(value, torch.tensor([5.0]), beta).backward()
        assert value.grad is not None
        pushes.append(float(value.grad))
    assert pushes[0] == pytest.approx(-1.0)
    assert abs(pushes[1]) < 1e-6
