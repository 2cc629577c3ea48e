"""A graph in layers from left to right: where its boxes lie, and the ways of its edges between them.

An edge over several layers gets a lane of its own in each, which no box covers; those from one box
share it. The order within a layer is that of the mean place of what a box is linked to (the barycentre
method of Sugiyama, Tagawa and Toda, IEEE SMC 1981), swept a few times each way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

WIDE, HIGH = 206, 62
_BETWEEN, _BELOW, _EDGE = 60, 16, 8
_LANE = 6
_SWEEPS = 6

Place = tuple[float, float]
_Item = tuple[
    int, int
]  # (box, layer): the box where that is its own layer, else a lane of its edges


@dataclass(frozen=True)
class Layered:
    """Where everything lies, in pixels from the top left.

    Attributes:
        boxes: top left corner of each; all are `WIDE` and `HIGH`.
        edges: the ends of each and where it enters and leaves lanes, from left to right.
        width, height: of the whole.
    """

    boxes: tuple[Place, ...]
    edges: tuple[tuple[Place, ...], ...]
    width: float
    height: float


def layered(layers: Sequence[int], edges: Sequence[tuple[int, int]]) -> Layered:
    """Lay out boxes in these layers.

    Args:
        layers: of each box, from 0 on.
        edges: (box, box of a later layer).
    """
    ways = [
        [(a, layer) for layer in range(layers[a], layers[b])] + [(b, layers[b])] for a, b in edges
    ]
    rows = _rows(layers, ways)
    tall = [sum(_high(i, layers) for i in row) + _BELOW * (len(row) - 1) for row in rows]
    height = 2 * _EDGE + max(tall, default=0)
    left: dict[_Item, float] = {}
    middle: dict[_Item, float] = {}
    for column, row in enumerate(rows):
        y = (height - tall[column]) / 2
        for item in row:
            high = _high(item, layers)
            left[item] = _EDGE + column * (WIDE + _BETWEEN)
            middle[item] = y + high / 2
            y += high + _BELOW
    drawn = []
    for way in ways:
        start, *through, end = way
        places = [(left[start] + WIDE, middle[start])]
        for lane in through:
            places += [(left[lane], middle[lane]), (left[lane] + WIDE, middle[lane])]
        drawn.append((*places, (left[end], middle[end])))
    own = [(box, layer) for box, layer in enumerate(layers)]
    width = 2 * _EDGE + len(rows) * (WIDE + _BETWEEN) - _BETWEEN
    return Layered(
        tuple((left[item], middle[item] - HIGH / 2) for item in own), tuple(drawn), width, height
    )


def _rows(layers: Sequence[int], ways: Sequence[Sequence[_Item]]) -> list[list[_Item]]:
    """Boxes and lanes by layer, ordered so that few edges cross."""
    rows: list[list[_Item]] = [[] for _ in range(max(layers, default=-1) + 1)]
    items = dict.fromkeys((box, layer) for box, layer in enumerate(layers))
    items |= dict.fromkeys(item for way in ways for item in way)
    for item in items:
        rows[item[1]].append(item)
    before: dict[_Item, set[_Item]] = defaultdict(set)
    after: dict[_Item, set[_Item]] = defaultdict(set)
    for way in ways:
        for a, b in pairwise(way):
            after[a].add(b)
            before[b].add(a)
    place = {item: at / len(row) for row in rows for at, item in enumerate(row)}
    for sweep in range(_SWEEPS):
        linked = after if sweep % 2 else before
        for row in reversed(rows) if sweep % 2 else rows:
            mean = {i: fmean(place[o] for o in linked[i]) if linked[i] else place[i] for i in row}
            row.sort(key=mean.__getitem__)
            place |= {item: (at + 0.5) / len(row) for at, item in enumerate(row)}
    return rows


def _high(item: _Item, layers: Sequence[int]) -> float:
    box, layer = item
    return HIGH if layers[box] == layer else _LANE
