"""Losses over the teacher's k best tokens are their textbook definitions where k is everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosilo.boundary.wire.logits import TopK, top_k

torch = pytest.importorskip("torch")

from cosilo.models.white_box.losses import Teacher, divergence, sorted_distance  # noqa: E402

LOSSES = ("forward_kl", "reverse_kl", "jsd")


@st.composite
def pair(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, size = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    teacher, student = rng.normal(size=(2, n, size)) * scale
    return teacher.astype(np.float32), student.astype(np.float32)


def taught(top: TopK) -> Teacher:
    return Teacher.of(top.ids, top.logprobs, top.rest, top.size)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


def definition(p: np.ndarray, q: np.ndarray, loss: str, beta: float) -> float:
    """Of teacher `p` and student `q`; what the teacher rules out counts as e^-60, as in the code."""
    p = np.maximum(p, np.exp(-60))
    if loss == "jsd":
        m = beta * p + (1 - beta) * q
        return beta * kl(p, m) + (1 - beta) * kl(q, m)
    return kl(p, q) if loss == "forward_kl" else kl(q, p)


def merged(p: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """`p` with all but `ids` as one outcome, summed: 1 less the others would cancel to nothing."""
    return np.array([*p[ids], np.delete(p, ids).sum()])


@given(
    pair(),
    st.integers(1, 12),
    st.sampled_from(LOSSES),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.sampled_from([0.5, 1.0, 4.0]),
)
def test_a_loss_is_its_definition_over_the_outcomes_known(
    found: tuple[np.ndarray, np.ndarray], k: int, loss: str, beta: float, temperature: float
) -> None:
    teacher, student = found
    top = top_k(teacher / temperature, k)
    got = divergence(torch.tensor(student), taught(top), loss, temperature=temperature, beta=beta)
    assert top.ids is not None
    for i, value in enumerate(got.tolist()):
        p, q = softmax(teacher[i] / temperature), softmax(student[i] / temperature)
        whole = definition(p, q, loss, beta) * temperature**2
        known = whole
        if top.ids.shape[1] < len(p):
            one, other = merged(p, top.ids[i]), merged(q, top.ids[i])
            known = definition(one, other, loss, beta) * temperature**2
        assert value == pytest.approx(known, rel=1e-3, abs=1e-4)
        assert value <= whole + 1e-3 * (1 + whole)


@given(pair(), st.sampled_from(LOSSES))
def test_a_student_like_its_teacher_has_nothing_to_learn(
    found: tuple[np.ndarray, np.ndarray], loss: str
) -> None:
    logits = torch.tensor(found[0], requires_grad=True)
    got = divergence(logits, taught(top_k(found[0], 3)), loss)
    got.sum().backward()
    assert got.detach().abs().max() < 1e-5
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-4


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_ends_of_the_jsd_are_the_two_divergences(beta: float) -> None:
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    top = taught(top_k(teacher, 4))
    ends = "reverse_kl" if beta else "forward_kl"
    torch.testing.assert_close(
        divergence(torch.tensor(student), top, "jsd", beta=beta),
        divergence(torch.tensor(student), top, ends),
    )


@given(pair(), pair())
def test_the_sorted_distance_is_its_definition_for_any_two_vocabularies(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> None:
    n = min(len(one[0]), len(other[0]))
    teacher, student = one[0][:n], other[0][:n]
    top = top_k(teacher, teacher.shape[1], ids=False)
    got = sorted_distance(torch.tensor(student), taught(top))
    size = max(teacher.shape[1], student.shape[1])
    for i, value in enumerate(got.tolist()):
        p, q = np.zeros(size), np.zeros(size)
        p[: teacher.shape[1]] = np.sort(softmax(teacher[i]))[::-1]
        q[: student.shape[1]] = np.sort(softmax(student[i]))[::-1]
        assert value == pytest.approx(np.abs(p - q).sum(), abs=1e-4)


def test_gradients_flow_where_the_teacher_named_few_tokens_or_all() -> None:
    teacher = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    for k in (1, 8):
        for loss in LOSSES:
            logits = torch.zeros(3, 8, requires_grad=True)
            divergence(logits, taught(top_k(teacher, k)), loss).sum().backward()
            assert logits.grad is not None
            assert torch.isfinite(logits.grad).all()
            assert logits.grad.abs().sum() > 0
