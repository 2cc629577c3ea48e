"""The losses of unlearning, each a pure function of what models say of a batch's replies.

`nll` is the negative log-likelihood of each reply, summed over its tokens, in nats, shape (B,);
`tokens` how many it has; "before" is of the model that is to forget, as it came. Formulas and their
papers stand at each function. Needs torch; its tensors are typed `Any` here, as everywhere.
"""

from __future__ import annotations

from typing import Any


def token_mean(nll: Any, tokens: Any) -> Any:
    """The usual loss of training: nats for each token of all replies."""
    return nll.sum() / tokens.sum()


def preference(nll: Any, before: Any, beta: float) -> Any:
    """−(2/β) log σ(β (nll − before)), the mean over replies: gradient ascent whose push fades as a
    reply becomes unlikely, and equals it for β → 0. NPO: Zhang et al., arXiv 2404.05868."""
    from torch.nn.functional import logsigmoid

    return -2.0 / beta * logsigmoid(beta * (nll - before)).mean()


def simple_preference(nll: Any, tokens: Any, beta: float, delta: float) -> Any:
    """−(2/β) log σ(β (nll / tokens − δ)), the mean over replies: no model to compare with, and long
    replies count as short ones do. SimNPO: Fan et al., arXiv 2410.07163."""
    from torch.nn.functional import logsigmoid

    return -2.0 / beta * logsigmoid(beta * (nll / tokens - delta)).mean()


def rather(nll: Any, before: Any, instead: Any, instead_before: Any, beta: float) -> Any:
    """−(2/β) log σ(β ((instead_before − instead) − (before − nll))), the mean over replies: another
    reply is preferred. DPO: Rafailov et al., arXiv 2305.18290, here with replies that know nothing, as
    in TOFU: Maini et al., arXiv 2401.06121."""
    from torch.nn.functional import logsigmoid

    gained = (instead_before - instead) - (before - nll)
    return -2.0 / beta * logsigmoid(beta * gained).mean()


def divergence(logits: Any, wanted: Any) -> Any:
    """KL(wanted ‖ now) of the next token, the mean over places; shapes (n, vocabulary). Where one of
    two models has places for tokens besides, which no text has, they do not count."""
    common = min(logits.shape[1], wanted.shape[1])
    q = logits[:, :common].float().log_softmax(1)
    p = wanted[:, :common].float().log_softmax(1)
    return (p.exp() * (p - q)).sum(1).mean()


def adjusted_distillation(logits: Any, before: Any, targets: Any, less: float) -> Any:
    """The cross-entropy to what the model said before, had the true token's logit been `less` smaller;
    the mean over places. UNDIAL: Dong et al., arXiv 2402.10052."""
    import torch

    down = torch.zeros_like(before, dtype=torch.float32).scatter_(1, targets[:, None], less)
    wanted = (before.float() - down).softmax(1)
    return -(wanted * logits.float().log_softmax(1)).sum(1).mean()


def misdirection(states: Any, before: Any, direction: Any, scale: float) -> Any:
    """How far states are from `scale` times their former length in one random direction, squared, as a
    share of their former mean square: 0 where they have arrived. RMU: Li et al., arXiv 2403.03218, the
    length adaptive as in Huu-Tien et al., arXiv 2408.06223.

    Args:
        states, before: shape (n, width).
        direction: of length 1, shape (width,).
    """
    before = before.float()
    length = before.square().sum(1).sqrt().mean()
    wanted = scale * length * direction
    return (states.float() - wanted).square().mean() / before.square().mean()


def kept_states(states: Any, before: Any) -> Any:
    """How far states have moved, squared, as a share of their former mean square."""
    before = before.float()
    return (states.float() - before).square().mean() / before.square().mean()
