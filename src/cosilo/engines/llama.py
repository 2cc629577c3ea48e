"""A Llama's layers in plain numpy, for the owner of their weights, and the ranges of its numbers.

    public texts ─▶ forward ─▶ states before each norm ─▶ shifts (public) ─▶ is there room? ─▶ program
    weights ─────────────────▶ bounds of all the rest ───────────────────────────┘

After a norm the length of a state is at most √d, whatever the text. So what comes until the next
norm is bounded by the weights alone (Cauchy and Schwarz), and only the states before norms have to be
seen on public text. The program itself watches those: its result says whether each mean square was in
`RANGE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cosilo.engines.ranges import Bound, Floats
from cosilo.errors import ConfigError, RejectedError

VERSION = 1

RANGE = LEAST, MOST = 2.0**-8, 2.0**8
"""Mean squares that the program's 1/√x is exact for; it says when one is outside."""

FAR = 2.0**17
"""How far below the others the program puts the scores of places to come."""

HEADROOM = 2.0
"""How much larger, or smaller, private states may be than those of public texts."""

LENGTHS = (16, 32, 64, 128, 256, 512)
"""So many tokens a text is filled up to: all that its length tells is which of them it fits into."""

Starts = Literal["tokens", "states"]
Ends = Literal["states", "logits", "label"]


@dataclass(frozen=True)
class Llama:
    """Some layers, as the program takes them: norms' gains and 1/√d in the matrices that follow.

    Args:
        mixed: queries, keys and values side by side, for each layer; `out` what follows attention.
        gated: gate and up side by side; `down` what follows them.
        table: embeddings, which are the head's too; `gain` of the last norm.
    """

    mixed: Floats
    out: Floats
    gated: Floats
    down: Floats
    table: Floats
    gain: Floats
    heads: int
    groups: int
    theta: float
    eps: float

    @property
    def layers(self) -> int:
        return len(self.mixed)

    @property
    def width(self) -> int:
        return int(self.out.shape[-1])

    @property
    def inner(self) -> int:
        return int(self.down.shape[1])

    def shape(
        self,
        tokens: int,
        halvings: Sequence[Sequence[int]],
        *,
        starts: Starts,
        ends: Ends,
        candidates: Sequence[int] = (),
    ) -> dict[str, Any]:
        """What all parties know of the program (see `spu/inside/programs/llama.py`).

        Args:
            candidates: ids to choose among, where the table is the whole of it; none for all.
        """
        return {
            "tokens": tokens, "layers": self.layers, "width": self.width, "heads": self.heads,
            "groups": self.groups, "inner": self.inner, "theta": self.theta, "eps": self.eps,
            "vocabulary": len(self.table), "starts": starts, "ends": ends,
            "candidates": list(candidates), "shifts": [list(pair) for pair in halvings], "far": FAR,
            "range": list(RANGE),
        }  # fmt: skip

    def owned(self, *, starts: Starts, ends: Ends) -> list[Floats]:
        """What its owner hands in, in the program's order."""
        arrays = [self.mixed, self.out, self.gated, self.down]
        if starts == "tokens" or ends != "states":
            arrays.append(self.table)
        if ends != "states":
            arrays.append(self.gain)
        return [np.ascontiguousarray(array, np.float32) for array in arrays]

    def last(self, layers: int) -> Llama:
        """Its last layers, with its head."""
        if not 1 <= layers <= self.layers:
            raise ConfigError(f"there are {self.layers} layers, so not the last {layers}")
        return replace(
            self,
            mixed=self.mixed[-layers:],
            out=self.out[-layers:],
            gated=self.gated[-layers:],
            down=self.down[-layers:],
        )


@dataclass(frozen=True)
class StatesSeen:
    """What states were like before each norm: two a layer, and the last.

    Root mean squares at least and at most, and the largest entry. Arrays of norms × 2: of the first
    place, which in many models has much larger states, and of the others.
    """

    least: Floats
    most: Floats
    largest: Floats

    def __or__(self, other: StatesSeen) -> StatesSeen:
        return StatesSeen(
            np.minimum(self.least, other.least),
            np.maximum(self.most, other.most),
            np.maximum(self.largest, other.largest),
        )


def traffic(shape: Mapping[str, Any], owned: Sequence[Floats], protocol: str) -> tuple[int, int]:
    """Bytes of payload between any two parties, at most: of sharing `owned`, and of one computation.

    Two to three times what was measured (`benchmarks/secure_rows.py`, `secure_strategies.py`), so that
    what goes beyond it is no computation of this program.
    """
    tokens, layers, width = shape["tokens"], shape["layers"], shape["width"]
    heads, inner, picked = shape["heads"], shape["inner"], shape["ends"] != "states"
    before = shape.get("before", 0)
    full, places = layers - picked, before + tokens
    bent = full * tokens * (inner + heads * places) + picked * (inner + heads * places)
    cut = (full + picked) * tokens * width  # numbers that a product is truncated to, about
    if picked:
        bent += len(shape["candidates"]) or shape["vocabulary"]
    given = tokens * (shape["vocabulary"] if shape["starts"] == "tokens" else width)
    given += 2 * layers * shape["groups"] * before * (width // heads)  # keys and values of a prefix
    each_bent, each_cut, least = (
        (6000, 600, 1 << 26) if protocol == "cheetah" else (600, 100, 1 << 22)
    )
    once = (1 << 22) + 40 * sum(array.size for array in owned)
    return once, least + each_bent * bent + each_cut * cut + 40 * given


def length_for(tokens: int, lengths: Sequence[int] = LENGTHS) -> int:
    """The shortest of `lengths` that a text of so many tokens fits into.

    Raises:
        RejectedError: none is long enough.
    """
    for length in sorted(lengths):
        if tokens <= length:
            return length
    raise RejectedError(
        f"the text has {tokens} tokens, and at most {max(lengths, default=0)} are computed jointly: a "
        "greater one in `lengths` would do, or a shorter text"
    )


def filled(ids: Sequence[int], tokens: int) -> list[int]:
    """`ids`, with themselves once more behind until they are `tokens`: places behind the one asked for
    change nothing, and are watched for their range as the others are."""
    return [ids[at % len(ids)] for at in range(tokens)]


def place(at: int, tokens: int) -> Floats:
    """The place asked for, as the data owner hands it in.

    Raises:
        RejectedError: it is the first, whose states are halved otherwise, or there is no such place.
    """
    if not 0 < at < tokens:
        raise RejectedError(f"what follows place {at + 1} of {tokens} cannot be asked for")
    found: Floats = np.eye(1, tokens, at, dtype=np.float32)
    return found


def forward(model: Llama, states: Floats) -> tuple[Floats, list[Floats]]:
    """The states after the last layer, and those before each norm."""
    tokens, size = len(states), model.width // model.heads
    half = size // 2
    angles = np.arange(tokens)[:, None, None] * model.theta ** (-np.arange(half) / half)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    later = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
    before: list[Floats] = []

    def norm(x: Floats) -> Floats:
        before.append(x)
        normal: Floats = x / np.sqrt((x * x).mean(-1, keepdims=True) + model.eps)
        return normal

    for mixed, out, gated, down in zip(
        model.mixed, model.out, model.gated, model.down, strict=True
    ):
        together = (norm(states) @ mixed).reshape(tokens, -1, size)
        turned = together[:, : model.heads + model.groups]
        one, two = turned[..., :half], turned[..., half:]
        turned = np.concatenate([one * cosines - two * sines, two * cosines + one * sines], -1)
        each = model.heads // model.groups
        keys = np.repeat(turned[:, model.heads :], each, axis=1)
        values = np.repeat(together[:, model.heads + model.groups :], each, axis=1)
        scores = turned[:, : model.heads].transpose(1, 0, 2) @ keys.transpose(1, 2, 0) + later
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        chances /= chances.sum(-1, keepdims=True)
        read = (chances @ values.transpose(1, 0, 2)).transpose(1, 0, 2)
        states = states + read.reshape(tokens, -1) @ out
        gate, up = np.split(norm(states) @ gated, 2, axis=-1)
        states = states + (gate / (1 + np.exp(-np.maximum(gate, -80))) * up) @ down
    before.append(states)
    return states, before


def logits(model: Llama, states: Floats) -> Floats:
    """What the head says at each position."""
    square = (states * states).mean(-1, keepdims=True)
    said: Floats = (states / np.sqrt(square + model.eps) * model.gain) @ model.table.T
    return said


def observe(model: Llama, states: Floats) -> StatesSeen:
    """What one public text's states are like before each norm."""
    _, before = forward(model, states)
    rms = np.stack([np.sqrt((x * x).mean(-1)) for x in before])  # norms × tokens
    largest = np.stack([np.abs(x).max(-1) for x in before])
    others = slice(1, None) if len(states) > 1 else slice(None)

    def both(values: Floats, take: np.ufunc) -> Any:
        return np.stack([values[:, 0], take.reduce(values[:, others], axis=1)], -1)

    return StatesSeen(both(rms, np.minimum), both(rms, np.maximum), both(largest, np.maximum))


def shifts(seen: StatesSeen) -> list[list[int]]:
    """How many times to halve states before each norm, so that their mean square is about 1.

    Raises:
        ConfigError: they differ by more than one power of two can put right.
    """
    least = np.maximum(seen.least, 1e-30)  # a state of zeros is refused below, too
    middle = np.rint(np.log2(np.sqrt(least * seen.most)))
    scale = 2.0**-middle
    low, high = (least * scale / HEADROOM) ** 2, (seen.most * scale * HEADROOM) ** 2
    if not (np.all(low > LEAST) and np.all(high < MOST)):
        norm = int(np.argmax((high >= MOST) | (low <= LEAST)) // 2)
        raise ConfigError(
            f"before norm {norm + 1} root mean squares of states go from {seen.least[norm].min():.3g} "
            f"to {seen.most[norm].max():.3g} on public text: no one power of two brings them near 1"
        )
    return [[int(value) for value in pair] for pair in middle]


def bounds(model: Llama, seen: StatesSeen, halvings: Sequence[Sequence[int]]) -> list[Bound]:
    """Of every product of the program: before norms as seen, with headroom; the rest proved."""
    root = np.sqrt(model.width)
    scale = 2.0 ** -np.asarray(halvings, np.float64)
    small = seen.largest * scale * HEADROOM
    found = [
        Bound("a state that was halved", float(small.max()), proved=False),
        Bound("the square of a state before a norm", float((small**2).max()), proved=False),
        # The place asked for is picked by a product, before the last layer halves its state.
        Bound("the state asked for", float(seen.largest[-3:].max() * HEADROOM), proved=False),
        Bound("how far below others places to come are put", FAR),
        Bound("an embedding", float(np.abs(model.table).max())),
    ]
    size = model.width // model.heads
    for layer in range(model.layers):
        at = f"in layer {layer + 1}"
        mixed = np.linalg.norm(model.mixed[layer], axis=0) * root
        lengths = np.linalg.norm(mixed.reshape(-1, size), axis=1)
        queries, keys = lengths[: model.heads], lengths[model.heads : model.heads + model.groups]
        values = mixed[size * (model.heads + model.groups) :]
        read = np.repeat(
            values.reshape(model.groups, size), model.heads // model.groups, axis=0
        ).ravel()
        gate, up = np.split(np.linalg.norm(model.gated[layer], axis=0) * root, 2)
        found += [
            Bound(f"a query, key or value {at}", float(mixed.max())),
            Bound(
                f"a turned query or key {at}", float(lengths[: model.heads + model.groups].max())
            ),
            Bound(f"a score {at}", float(queries.max() * keys.max())),
            Bound(f"what attention adds {at}", float((read @ np.abs(model.out[layer])).max())),
            Bound(f"a gate times up {at}", float((gate * up).max())),
            Bound(
                f"what the MLP adds {at}", float(((gate * up) @ np.abs(model.down[layer])).max())
            ),
        ]
    head = np.linalg.norm(model.table * model.gain, axis=1)
    return [
        *found,
        Bound("a state times the last norm's gain", float(np.abs(model.gain).max() * root)),
        Bound("a logit", float(head.max() * root)),
    ]


def require_far(found: Sequence[Bound]) -> None:
    """Refuse weights whose scores could differ by as much as places to come are put below.

    Raises:
        ConfigError: they could.
    """
    score = max(bound.largest for bound in found if bound.what.startswith("a score"))
    if not 2 * score + 16 < FAR:
        raise ConfigError(
            f"scores of attention can differ by {2 * score:.3g}: too much beside the {FAR:.3g} that "
            "tells places to come from others"
        )
