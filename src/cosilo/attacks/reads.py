"""Which tokens stood where attention read them in secret? By what places in clear behind them read.

    known before ─┐
    span (secret) ┼─▶ attention of the first layer ─▶ what each later place read ─▶ which span fits?
    known after ──┘

Where a span's places alone are computed on in secret, places behind it go on in clear, and what
they read there is a mean of values with weights that the span's tokens have a part in. In the first
layer a key and a value follow from a token and its place alone. With the sum of weights multiplied
out, what a place reads is one term for each token of the span, added up, in each head. Of every
token of the vocabulary its term is known, so the span is looked for place after place, with several
spans kept (beam search), and then changed place by place until nothing fits better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cosilo.engines.llama import Llama
from cosilo.engines.ranges import Floats

_SWEEPS = 8
_FITS = 0.01
"""So near to what was read no other span comes."""


@dataclass(frozen=True, eq=False)
class SpanRead:
    """Attributes:
    ids: the span that fits best.
    off: how far off it is, as a share of what there is to explain: near 0 for the right one.
    """

    ids: list[int]
    off: float


def reads(model: Llama, ids: Sequence[int], since: int) -> Floats:
    """What places from `since` on read in the first layer: (places, heads, size)."""
    known = _Layer(model)
    found = []
    for place in range(since, len(ids)):
        scores = np.einsum(
            "hs,hns->hn",
            known.queries([ids[place]], [place])[0],
            known.keys(ids[: place + 1], range(place + 1)),
        )
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        chances /= chances.sum(-1, keepdims=True)
        found.append(np.einsum("hn,hns->hs", chances, known.values(ids[: place + 1])))
    return np.stack(found)


def span_in(
    model: Llama,
    seen: Floats,
    before: Sequence[int],
    tokens: int,
    after: Sequence[int],
    *,
    beam: int = 16,
) -> SpanRead:
    """The span between two known texts.

    Args:
        model: its first layer and its table are used.
        seen: what each of `after` read in the first layer, (places, heads, size).
        tokens: how many the span has.
        beam: how many spans are kept while places are gone through.
    """
    known = _Layer(model)
    places = [*range(len(before)), *range(len(before) + tokens, len(before) + tokens + len(after))]
    clear = [*before, *after]
    keys, values = known.keys(clear, places), known.values(clear)
    queries = known.queries(after, places[len(before) :])
    scores = np.einsum("qhs,hns->qhn", queries, keys)
    for number in range(len(after)):
        scores[number, :, len(before) + number + 1 :] = -np.inf
    most = scores.max(-1)
    weights = np.exp(scores - most[..., None])
    weights /= (total := weights.sum(-1))[..., None]
    wanted = seen - np.einsum("qhn,hns->qhs", weights, values)
    terms = [
        _Terms(known, queries, len(before) + place, most + np.log(total), seen)
        for place in range(tokens)
    ]
    middle = [each.mean() for each in terms]
    spans: list[tuple[list[int], Floats]] = [([], wanted - sum(middle))]
    for place, each in enumerate(terms):
        further: list[tuple[float, int, int]] = []
        for number, (_, left) in enumerate(spans):
            costs = each.costs(left + middle[place])
            likely = np.argpartition(costs, beam)[:beam]
            rest = float(np.sum(np.square(left + middle[place])))
            further += [(float(costs[v]) + rest, number, int(v)) for v in likely]
        spans = [
            (
                [*spans[number][0], v],
                spans[number][1] + middle[place] - each.of(v),
            )
            for _, number, v in sorted(further)[:beam]
        ]
    best = SpanRead([], np.inf)
    for ids, left in spans:
        ids, left = _swept(ids, left, terms)
        off = float(np.linalg.norm(left) / np.linalg.norm(wanted))
        if off < best.off:
            best = SpanRead(ids, off)
        if off < _FITS:
            break
    return best


def _swept(ids: list[int], left: Floats, terms: Sequence[_Terms]) -> tuple[list[int], Floats]:
    """Place by place the token that fits best beside the others, and two in the other order where that
    fits better, until nothing changes: the first layer tells tokens better than their order."""
    ids = list(ids)
    for _ in range(_SWEEPS):
        old = list(ids)
        for place, each in enumerate(terms):
            without = left + each.of(ids[place])
            ids[place] = int(each.costs(without).argmin())
            left = without - each.of(ids[place])
        for a, b in combinations(range(len(ids)), 2):
            with_both = left + terms[a].of(ids[a]) + terms[b].of(ids[b])
            other = with_both - terms[a].of(ids[b]) - terms[b].of(ids[a])
            if np.square(other).sum() < np.square(left).sum():
                ids[a], ids[b], left = ids[b], ids[a], other
        if ids == old:
            break
    return ids, left


class _Layer:
    """Keys, values and queries of any token at any place in the first layer, a head each."""

    def __init__(self, model: Llama) -> None:
        table = model.table.astype(np.float32)
        normal = table / np.sqrt((table * table).mean(-1, keepdims=True) + model.eps)
        size, width = model.width // model.heads, model.width
        mixed = (normal @ model.mixed[0]).reshape(len(table), -1, size)
        self._queries = mixed[:, : model.heads]
        self._keys = mixed[:, model.heads : model.heads + model.groups]
        self._values = mixed[:, model.heads + model.groups :]
        self._each, self._half = model.heads // model.groups, size // 2
        self._turns = model.theta ** (-np.arange(self._half) / self._half)
        assert width == model.heads * size

    def queries(self, ids: Sequence[int], places: Sequence[int]) -> Floats:
        """(tokens, heads, size)."""
        return self._turned(self._queries[list(ids)], places)

    def keys(self, ids: Sequence[int], places: Sequence[int]) -> Floats:
        """(heads, tokens, size)."""
        turned = self._turned(self._keys[list(ids)], places)
        return np.repeat(turned, self._each, axis=1).transpose(1, 0, 2)

    def values(self, ids: Sequence[int]) -> Floats:
        """(heads, tokens, size)."""
        return np.repeat(self._values[list(ids)], self._each, axis=1).transpose(1, 0, 2)

    def all_values(self) -> Floats:
        """(groups, vocabulary, size)."""
        found: Floats = self._values.transpose(1, 0, 2)
        return found

    def scores(self, queries: Floats, place: int) -> Floats:
        """Of every token at one place, for (places, heads, size): (places, heads, vocabulary)."""
        keys = self._turned(self._keys, [place]).transpose(1, 2, 0)
        grouped = queries.reshape(len(queries), len(keys), self._each, -1)
        found: Floats = np.matmul(grouped, keys).reshape(*queries.shape[:2], -1)
        return found

    def _turned(self, x: Floats, places: Sequence[int]) -> Floats:
        angles = np.asarray(places)[:, None, None] * self._turns
        cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        one, two = x[..., : self._half], x[..., self._half :]
        return np.concatenate([one * cosines - two * sines, two * cosines + one * sines], -1)


class _Terms:
    """What each token of the vocabulary, at one place, adds to what later places read: its weight times
    (its value less what was read)."""

    def __init__(
        self, known: _Layer, queries: Floats, place: int, scale: Floats, seen: Floats
    ) -> None:
        self._weights = np.exp(known.scores(queries, place) - scale[..., None])
        self._values, self._seen = known.all_values(), seen
        self._each = self._weights.shape[1] // len(self._values)
        squares = self._products(-2 * seen)
        squares += np.repeat(np.square(self._values).sum(-1), self._each, axis=0)
        squares += np.square(seen).sum(-1)[..., None]
        self._squares = np.einsum("qhv,qhv->v", np.square(self._weights), squares)

    def of(self, token: int) -> Floats:
        value = np.repeat(self._values[:, token], self._each, axis=0)
        found: Floats = self._weights[..., token, None] * (value - self._seen)
        return found

    def mean(self) -> Floats:
        value = np.matmul(
            self._weights.reshape(len(self._weights), len(self._values), self._each, -1),
            self._values,
        ).reshape(self._seen.shape)
        found: Floats = value - self._weights.sum(-1)[..., None] * self._seen
        found /= self._weights.shape[-1]
        return found

    def costs(self, left: Floats) -> Floats:
        """Of each token: how far off what is left is once it is taken off, less a constant."""
        told = self._products(left) - np.sum(left * self._seen, axis=-1)[..., None]
        found: Floats = self._squares - 2 * np.einsum("qhv,qhv->v", self._weights, told)
        return found

    def _products(self, x: Floats) -> Floats:
        """Of (places, heads, size) with each token's value: (places, heads, vocabulary)."""
        grouped = x.reshape(len(x), len(self._values), self._each, -1)
        found: Floats = np.matmul(grouped, self._values.transpose(0, 2, 1))
        return found.reshape(*x.shape[:2], -1)
