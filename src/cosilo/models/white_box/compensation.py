"""Layers that stay, refitted to do the work of those that went: least squares, no training.

    whole model    … ─▶ layer 4 ─▶ layer 5 ─▶ layer 6 ─▶ state before layer 7
                                                              ║ as near as can be
    without 5, 6   … ─▶ layer 4, its last matrix refitted ─▶ state before layer 7

After Shopkhoev et al., "ReplaceMe: Network Simplification via Depth Pruning and Transformer Block
Linearization" (arXiv 2505.02819), with three differences: the last matrix of the MLP is refitted whole
(they fit a map behind it), the student's own states are what it is fitted on, so that what earlier
layers left over is made good too, and a ridge, chosen on held-out tokens, draws it to what it was.
A token counts by its relative error: the first one of a text has a state a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cosilo.errors import ConfigError
from cosilo.models.base import Tokens
from cosilo.models.white_box.batch import device_of, pad
from cosilo.models.white_box.layers import entry, layers_of, output_of

_RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of the mean square of a feature
_FITTED = 0.8  # the share of the sequences; the others choose the ridge


def compensate(
    student: Any, teacher: Any, dropped: Sequence[int], sequences: Sequence[Tokens]
) -> list[float]:
    """Refit `student`, which is `teacher` without the layers `dropped`, in place.

    Args:
        sequences: of text; all of their tokens count, those of prompts too.

    Returns:
        For each layer that stayed, how much of its mean squared relative error on held-out tokens is
        left: 1 where it was not refitted.

    Raises:
        ConfigError: the layers have no `mlp.down_proj`.
    """
    import torch

    count = len(layers_of(teacher))
    kept = [i for i in range(count) if i not in set(dropped)]
    batch = pad(sequences, device_of(teacher))
    left: list[float] = []
    with torch.no_grad():
        wanted = _states(teacher, batch, [*kept[1:], count])
        state, given = entry(student, batch)
        for layer, before, target in zip(layers_of(student), kept, wanted, strict=True):
            features: list[Any] = []
            hook = _matrix(layer).register_forward_pre_hook(
                lambda _, inputs, features=features: features.append(inputs[0])
            )
            try:
                state = output_of(layer(state, **given))
            finally:
                hook.remove()
            share = 1.0
            if any(i < before or i == before + 1 for i in dropped):
                change, share = _refit(features[0], state, target, batch.mask.bool())
                if change is not None:
                    _matrix(layer).weight += change.T.to(state.dtype)
                    state = state + features[0] @ change.to(state.dtype)
            left.append(share)
    return left


def _states(module: Any, batch: Any, before: Sequence[int]) -> list[Any]:
    """The states in front of the layers `before`; the number of layers stands for the end."""
    state, given = entry(module, batch)
    found: list[Any] = []
    for i, layer in enumerate(layers_of(module)):
        if i in before:
            found.append(state)
        state = output_of(layer(state, **given))
    return [*found, state]


def _refit(features: Any, state: Any, target: Any, real: Any) -> tuple[Any, float]:
    """What to add to the matrix, (features, hidden), and the share of the error that is left.

    None where no ridge makes it better.
    """
    import torch

    length = target[real].float().norm(dim=1, keepdim=True).clamp_min(1e-6)
    a = features[real].float() / length
    r = (target[real].float() - state[real].float()) / length
    owner = torch.arange(len(real), device=real.device)[:, None].expand_as(real)[real]
    fitted = owner < max(1, int(_FITTED * len(real)))
    gram = (a[fitted].T @ a[fitted]).double()
    cross = (a[fitted].T @ r[fitted]).double()
    held_a, held_r = a[~fitted], r[~fitted]
    if not len(held_r):
        return None, 1.0
    start = float((held_r**2).mean())
    best: tuple[float, Any] = (start, None)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for ridge in _RIDGES:
        lower = torch.linalg.cholesky(gram + ridge * float(gram.diagonal().mean()) * eye)
        change = torch.cholesky_solve(cross, lower).float()
        error = float(((held_r - held_a @ change) ** 2).mean())
        if error < best[0]:
            best = (error, change)
    return best[1], best[0] / start if start else 1.0


def _matrix(layer: Any) -> Any:
    """The last matrix of a layer's MLP."""
    found = getattr(getattr(layer, "mlp", None), "down_proj", None)
    if found is None:
        raise ConfigError(f"a {type(layer).__name__} has no mlp.down_proj to refit")
    return found
