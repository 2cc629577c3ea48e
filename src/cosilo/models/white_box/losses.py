"""How far a student's next-token distributions are from a teacher's, of which k tokens are known.

The tokens that the teacher did not name are one further outcome, with the rest mass on both sides.
With k the whole vocabulary each loss is its textbook definition; below that, a lower bound of it
(merging outcomes never adds to a divergence).

    forward KL   Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531)
    reverse KL   Gu et al., "MiniLLM" (arXiv 2306.08543): the single-step term, exactly
    JSD          Agarwal et al., "On-Policy Distillation of Language Models" (arXiv 2306.13649)
    ULD          Boizard et al., "Towards Cross-Tokenizer Distillation" (arXiv 2402.12030)

Needs torch; its tensors are typed `Any` here, as everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from cosilo.models.base import Array

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]

_NEVER = -60.0  # log-probability of what a teacher rules out: a student's mistake costs no more


@dataclass(frozen=True, eq=False)
class Teacher:
    """What is known of a teacher's distributions at n places, as tensors.

    Attributes:
        ids: the tokens it named, shape (n, k), ascending; None where only sorted values are known.
        logprobs: shape (n, k).
        rest: log of what all other tokens have, shape (n,); None where it named its whole vocabulary.
    """

    ids: Any
    logprobs: Any
    rest: Any

    @classmethod
    def of(
        cls, ids: Any | None, logprobs: Array, rest: Array, size: int, device: Any = "cpu"
    ) -> Teacher:
        """From arrays as in `TopK`; `size` is how many tokens the teacher's vocabulary has."""
        import torch

        named = torch.as_tensor(logprobs, device=device).clamp(min=_NEVER)
        left = torch.as_tensor(rest, device=device).clamp(min=_NEVER)
        known = None if ids is None else torch.as_tensor(ids, device=device).long()
        return cls(known, named, None if logprobs.shape[1] == size else left)


def divergence(
    logits: Any,
    teacher: Teacher,
    loss: Divergence = "forward_kl",
    *,
    temperature: float = 1.0,
    beta: float = 0.5,
) -> Any:
    """The loss at each place, shape (n,), times temperature² so that gradients keep their size.

    Args:
        logits: the student's, shape (n, vocabulary).
        teacher: its distributions, already at `temperature`.
        beta: of `jsd`: the teacher's share in the mixture.
    """
    logits = logits.float() / temperature
    if teacher.rest is None:  # then the ids, which ascend, are all there are
        student = logits.log_softmax(1)
    else:
        others = logits.scatter(1, teacher.ids, -math.inf).logsumexp(1)
        student = _with(logits.gather(1, teacher.ids), others).log_softmax(1)
    taught = _with(teacher.logprobs, teacher.rest)
    return _DIVERGENCES[loss](taught, student, beta) * temperature**2


def sorted_distance(logits: Any, teacher: Teacher) -> Any:
    """ULD: the distance between sorted probabilities at each place, shape (n,); no ids needed.

    Exact where the teacher named its whole vocabulary; else what lies beyond the k-th place counts
    by its sum.
    """
    k = min(teacher.logprobs.shape[1], logits.shape[1])
    student = logits.float().log_softmax(1).topk(k, dim=1).values.exp()
    taught = teacher.logprobs.sort(dim=1, descending=True).values.exp()[:, :k]
    beyond = taught.sum(1) - student.sum(1)
    return (taught - student).abs().sum(1) + beyond.abs()


def _with(named: Any, rest: Any) -> Any:
    import torch

    return named if rest is None else torch.cat([named, rest[:, None]], dim=1)


def _forward(teacher: Any, student: Any, beta: float) -> Any:
    return _kl(teacher, student)


def _reverse(teacher: Any, student: Any, beta: float) -> Any:
    return _kl(student, teacher)


def _jsd(teacher: Any, student: Any, beta: float) -> Any:
    if beta in (0, 1):
        return _kl(student, teacher) if beta else _kl(teacher, student)
    mixture = (teacher + math.log(beta)).logaddexp(student + math.log1p(-beta))
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


def _kl(p: Any, q: Any) -> Any:
    return (p.exp() * (p - q)).sum(1)


_DIVERGENCES = {"forward_kl": _forward, "reverse_kl": _reverse, "jsd": _jsd}
