"""How wide is the LM inside? Its logits lie in a subspace as wide as its last hidden state.

The curious party is the data owner. Logits are W h: one output matrix W, one hidden state h a place.
Put as rows of a matrix they have the rank of h's width, and span what W spans: the output layer up
to a rotation (Carlini et al., "Stealing Part of a Production Language Model", arXiv 2403.06634;
Finlayson et al., arXiv 2403.09539).

Where the LM's owner names only the k likeliest tokens, the attack looks for tokens that many places
name in common. What survives: with k at or below the hidden width, nothing does, since some state
explains k values at any place whatever W is; above it, as much as the common tokens show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.boundary.messages import Scores, Steps
from cosilo.boundary.wire.logits import TopK, unpack

Floats = NDArray[np.float32]

_COLUMNS = 4_096  # tokens looked at: more than any hidden state is wide that they can show
_ROWS = 8_192
_NUMBERS = 1 << 24  # in one message: whole distributions are what this is about


@dataclass(frozen=True, eq=False)
class LogitSpace:
    """The subspace that centred logits of some tokens lie in.

    Attributes:
        tokens: which tokens, shape (t,).
        basis: orthonormal, shape (width, t).
        gap: the last singular value within the width, as a multiple of what rounding can make.
    """

    tokens: NDArray[np.int64]
    basis: Floats
    gap: float

    @property
    def width(self) -> int:
        return len(self.basis)


@attacks.register("output_layer")
class OutputLayerAttack:
    """Finds the width of the LM's last hidden state from the logits it has shown."""

    about: ClassVar[str] = "model"

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        found = output_space(list(shown(view)))
        if found is None:
            return [Guess(t.id, "", 0.0) for t in targets]
        return [Guess(t.id, str(found.width), 1 - 1 / found.gap) for t in targets]


def shown(view: View) -> Iterator[TopK]:
    """The distributions on record that say which tokens they are about."""
    rows = 0
    for entry in view.entries():
        message = entry.message
        if entry.direction == "down" and rows < _ROWS and isinstance(message, Scores | Steps):
            top = unpack(message.packed, most=_NUMBERS)
            if top.ids is not None and len(top):
                rows += len(top)
                yield top


def output_space(tops: Sequence[TopK]) -> LogitSpace | None:
    """The subspace behind `tops`; None when they do not show where it ends."""
    if not tops:
        return None
    tokens, values = _common(tops)
    n, t = values.shape
    if min(n, t) < 4:
        return None
    # Log-probabilities are logits less a number of each row's own; centring takes it out, and one
    # dimension of the tokens with it.
    centred = values - values.mean(axis=1, keepdims=True)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    # No singular value of n × t independent errors lies above this (Marchenko and Pastur, 1967).
    noise = max(top.error for top in tops) * (np.sqrt(n) + np.sqrt(t)) + 1e-5 * singular[0]
    width = int((singular > noise).sum())
    if not 0 < width < min(n, t - 1) - 1:
        return None
    return LogitSpace(tokens, directions[:width], float(singular[width - 1] / noise))


def _common(tops: Sequence[TopK]) -> tuple[NDArray[np.int64], Floats]:
    """Tokens that many rows all name, and these rows' values: of such blocks the one that can show the
    highest rank."""
    size = tops[0].size
    counts = np.zeros(size, np.int64)
    for top in tops:
        assert top.ids is not None
        np.add.at(counts, top.ids.ravel(), 1)
    order = np.argsort(-counts, kind="stable")[: min(_COLUMNS, int((counts > 0).sum()))]
    table = np.full((sum(map(len, tops)), len(order)), np.nan, np.float32)
    place = np.full(size, -1)
    place[order] = np.arange(len(order))
    row = 0
    for top in tops:
        assert top.ids is not None
        columns = place[top.ids]
        at, which = np.nonzero(columns >= 0)
        table[row + at, columns[at, which]] = top.logprobs[at, which]
        row += len(top)
    # The first column that a row does not name: it can take part in any block that ends before.
    missing = np.isnan(table)
    until = np.where(missing.any(axis=1), missing.argmax(axis=1), len(order))
    widths = np.arange(1, len(order) + 1)
    rows = len(table) - np.searchsorted(np.sort(until), widths)
    squarest = rows[int(np.minimum(rows, widths).argmax())]
    best = int(widths[rows == squarest].max())
    return order[:best], table[until >= best][:, :best]
