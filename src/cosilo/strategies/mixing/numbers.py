"""Log-probabilities over one alphabet: normalised, completed from a few, drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.logits import TopK
from cosilo.errors import RejectedError
from cosilo.models.chat.fields import values
from cosilo.types import Sampling

Row = NDArray[np.float64]
"""Natural-log probabilities over an alphabet: all tokens of a vocabulary, or all bytes and the end."""

FIELDS = frozenset({"top_k", "min_p"})
"""Of the further fields of a request, those that `drawn` draws by."""


def normalised(row: Row) -> Row:
    """`row` plus what makes its probabilities sum to 1.

    Raises:
        ValueError: nothing in it is possible.
    """
    total = np.logaddexp.reduce(row)
    if not np.isfinite(total):
        raise ValueError("no token is possible")
    return np.asarray(row - total)


def completed(top: TopK, place: int, prior: Row) -> Row:
    """What the LM says at a place over the whole vocabulary: of the likeliest tokens what it said, and
    what all others have together in proportion to `prior`. With all tokens told it is exact.

    Args:
        prior: of a model with the same vocabulary.
    """
    assert top.ids is not None
    ids, told = top.ids[place], top.logprobs[place].astype(np.float64)
    fits = ids < len(prior)  # a vocabulary may be padded to different lengths
    ids, told = ids[fits], told[fits]
    row = prior.copy()
    row[ids] = -np.inf
    others = np.logaddexp.reduce(row)
    rest = float(top.rest[place])
    row = row + (rest - others) if np.isfinite(others) else np.full_like(row, -np.inf)
    row[ids] = told
    return row


def drawn(row: Row, sampling: Sampling, chance: float) -> int:
    """One of `row` (normalised) as `sampling` says: temperature first, then `min_p`, `top_k`, `top_p`.

    The first at which the probability, summed up in the order of the alphabet, exceeds `chance` (from
    0 to 1); at temperature 0 the likeliest, the first of equals.
    """
    if sampling.temperature <= 0:
        return int(np.argmax(row))
    given: dict[str, Any] = values(sampling.fields)
    with np.errstate(divide="ignore"):
        p = np.exp(normalised(row / sampling.temperature))
    if (least := float(given.get("min_p", 0.0))) > 0:
        p = np.where(p < least * p.max(), 0.0, p)
    if (most := int(given.get("top_k", 0))) > 0:
        p[np.argsort(-p, kind="stable")[most:]] = 0.0
    if sampling.top_p < 1:
        order = np.argsort(-p, kind="stable")
        ranked = p[order] / p.sum()
        gone = np.cumsum(ranked) - ranked >= sampling.top_p
        gone[0] = False
        p[order[gone]] = 0.0
    total = np.cumsum(p)
    return min(int(np.searchsorted(total, chance * total[-1], side="right")), len(p) - 1)


def require_drawable(sampling: Sampling) -> None:
    """Refuse what a reply that is written token by token at home cannot honour.

    Raises:
        RejectedError: it asks for tools, a format, or a further field.
    """
    for name in ("tools", "response_format"):
        if getattr(sampling, name):
            raise RejectedError(
                f"a reply that two models write together token by token knows no {name}",
                everything=True,
            )
    for name, _ in sampling.fields:
        if name not in FIELDS:
            raise RejectedError(
                f"a reply that two models write together cannot honour {name!r}",
                status=400,
                code="unsupported_parameter",
                param=name,
            )
