"""How far a student's next-token distributions are from a teacher's, of which k tokens are known.

The tokens that the teacher did not name are one further outcome, with the rest mass on both sides.
With k the whole vocabulary each loss is its textbook definition; below that, a lower bound of it
(merging outcomes never adds to a divergence).

    forward KL   Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531)
    reverse KL   Gu et al., "MiniLLM" (arXiv 2306.08543): the single-step term, exactly
    JSD          Agarwal et al., "On-Policy Distillation of Language Models" (arXiv 2306.13649)
    ULD          Boizard et al., "Towards Cross-Tokenizer Distillation" (arXiv 2402.12030)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cosilo.boundary.logits import TopK

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]

_NEVER = -60.0  # log-probability of what a teacher rules out: a student's mistake costs no more


@dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher's `TopK` as tensors; `rest` is None where it named its whole vocabulary.

    Attributes:
        ids: shape (n, k); None where only sorted values are known.
        logprobs: shape (n, k).
        rest: shape (n,).
    """

    ids: Tensor | None
    logprobs: Tensor
    rest: Tensor | None

    @classmethod
    def of(cls, top: TopK, device: Any = None) -> Teacher:
        whole = top.logprobs.shape[1] == top.size
        logprobs = torch.as_tensor(top.logprobs, device=device).clamp(min=_NEVER)
        ids = None if top.ids is None else torch.as_tensor(top.ids, device=device).long()
        rest = None if whole else torch.as_tensor(top.rest, device=device).clamp(min=_NEVER)
        return cls(ids, logprobs, rest)

    @property
    def outcomes(self) -> Tensor:
        """Log-probabilities of the tokens and of the rest, shape (n, k + 1), or (n, k)."""
        return _with(self.logprobs, self.rest)


def divergence(
    logits: Tensor,
    teacher: Teacher,
    loss: Divergence = "forward_kl",
    *,
    temperature: float = 1.0,
    beta: float = 0.5,
) -> Tensor:
    """The loss at each place, shape (n,), times temperature² so that gradients keep their size.

    Args:
        logits: the student's, shape (n, vocabulary).
        teacher: its distributions, already at `temperature`.
        beta: of `jsd`: the teacher's share in the mixture.
    """
    assert teacher.ids is not None, "which tokens the teacher named must be known"
    logits = logits.float() / temperature
    if teacher.rest is None:
        student = logits.log_softmax(1).gather(1, teacher.ids)
    else:
        kept = logits.gather(1, teacher.ids)
        others = logits.scatter(1, teacher.ids, -torch.inf).logsumexp(1)
        student = _with(kept, others).log_softmax(1)
    return _DIVERGENCES[loss](teacher.outcomes, student, beta) * temperature**2


def sorted_distance(logits: Tensor, teacher: Teacher) -> Tensor:
    """ULD: the distance between sorted probabilities at each place, shape (n,); no ids needed."""
    k = min(teacher.logprobs.shape[1], logits.shape[1])
    logprobs = logits.float().log_softmax(1)
    student = logprobs.topk(k, dim=1).values.exp()
    taught = teacher.logprobs.sort(dim=1, descending=True).values.exp()
    named = (taught[:, :k] - student).abs().sum(1)
    # What one of them has further down counts as if the other had nothing to set against it there.
    beyond = 1 - student.sum(1)
    rest = 1 - taught[:, :k].sum(1)
    return named + (rest - beyond).abs()


def _with(named: Tensor, rest: Tensor | None) -> Tensor:
    return named if rest is None else torch.cat([named, rest[:, None]], dim=1)


def _forward(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    return _kl(teacher, student)


def _reverse(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    return _kl(student, teacher)


def _jsd(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    if beta in (0, 1):
        return _kl(student, teacher) if beta else _kl(teacher, student)
    share = torch.tensor(beta)
    mixture = torch.logaddexp(teacher + share.log(), student + torch.log1p(-share))
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(1)


_DIVERGENCES = {"forward_kl": _forward, "reverse_kl": _reverse, "jsd": _jsd}
