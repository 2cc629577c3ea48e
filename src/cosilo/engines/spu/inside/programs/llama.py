"""Layers of a Llama (RMSNorm, rotary positions, grouped queries, SwiGLU): one block, or all of it.

    tokens as one-hot rows ─▶ table ─┐
                                     ├─▶ block × layers ─▶ states
    states that are made at home ────┘                  └▶ the place asked for ─▶ table ─▶ label

The LM's owner hands in its weights; the data owner its text as one-hot rows, so that a table of
embeddings is looked up without either seeing the other's, or the states of layers that it runs
itself. A norm's gain and attention's 1/√d are multiplied into the matrices that follow by the owner
of the weights: plain work, done once.

`shape` says what is public: `tokens` (the padded length), `layers`, `width`, `heads`, `groups` (of
keys), `inner`, `theta`, `eps`, `vocabulary`; `starts`: "tokens" or "states"; `ends`: "states",
"logits" or "label"; `candidates`: ids to choose among, or none for all; `shifts`: how many times
states are halved before each norm (two a layer, and the last), at the first place and at the others;
`far`: how far below the others the scores of places to come are put; `range`: of mean squares;
`before`: how many places in clear stand before these tokens (0 when it is not there). The LM's owner
computes their keys, turned, and values by itself, and brings those of each layer to each computation.

Where one place is asked for, its state alone is computed in the last layer; of the others the keys
and values. The place is not the first of all, whose states are halved otherwise.

RMSNorm gives the same for a state and for half of it; unless a large one is halved, its square
leaves the ring (`engines/llama.py`). Beside the result comes one bit: whether each mean square, of
states as they were halved, was in the range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .smooth import exponential, inverse_root, logistic

SEES = "data owner"


def arrays(shape: dict[str, Any]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The sizes of what the LM's owner hands in, and of what the data owner does."""
    layers, width, inner, tokens = (shape[name] for name in ("layers", "width", "inner", "tokens"))
    keys = width // shape["heads"] * shape["groups"]
    owned: list[tuple[int, ...]] = [
        (layers, width, width + 2 * keys),
        (layers, width, width),
        (layers, width, 2 * inner),
        (layers, inner, width),
    ]
    given: list[tuple[int, ...]] = [(tokens, width)]
    if shape["starts"] == "tokens":
        given = [(tokens, shape["vocabulary"])]
    if shape["starts"] == "tokens" or shape["ends"] != "states":
        owned.append((shape["vocabulary"], width))
    if shape["ends"] != "states":
        owned.append((width,))
        given.append((1, tokens))
    return owned, given


def brought(shape: dict[str, Any]) -> list[tuple[int, ...]]:
    """The sizes of what the LM's owner brings to each computation: keys and values in clear to it."""
    before = shape.get("before", 0)
    if not isinstance(before, int) or before < 0:
        raise ValueError("'before'")
    size = shape["width"] // shape["heads"]
    return [(shape["layers"], shape["groups"], before, size)] * 2 if before else []


def build(shape: dict[str, Any]) -> Callable[..., Any]:
    """The function that is compiled."""
    tokens, layers, width = shape["tokens"], shape["layers"], shape["width"]
    heads, groups, before = shape["heads"], shape["groups"], shape.get("before", 0)
    size, places = width // heads, before + tokens
    turns = rotations(before, tokens, size, shape["theta"])
    later = shape["far"] * np.triu(np.ones((tokens, places), np.float32), 1 + before)
    scales = np.array([scales_of(pair, before, tokens) for pair in shape["shifts"]])
    eps = shape["eps"]

    def norm(states: Any, scale: Any, smallest: Any) -> Any:
        small = states * scale
        square = jnp.sum(small * small, axis=-1, keepdims=True) * (1 / width)
        return small * inverse_root(square + smallest), square

    def block(states: Any, weights: Any) -> tuple[Any, Any]:
        mixed, out, gated, down, scale, smallest, *clear = weights
        normal, first = norm(states, scale[0], smallest[0])
        together = normal @ mixed
        both = together[:, : width + groups * size].reshape(tokens, heads + groups, size)
        both = jnp.einsum("tha,tab->htb", both, turns)  # one product, so one truncation
        values = together[:, width + groups * size :]
        states = states + read(both[:heads], both[heads:], values, clear, later) @ out
        added, second = mlp(states, gated, down, scale[1], smallest[1])
        return states + added, jnp.stack([first, second])

    def block_at(states: Any, weights: Any, asked: Any) -> tuple[Any, list[Any]]:
        """The state of one place: keys and values of all, and all the rest of that one alone."""
        mixed, out, gated, down, scale, smallest, *clear = weights
        normal, first = norm(states, scale[0], smallest[0])
        queries = ((asked @ normal) @ mixed[:, :width]).reshape(1, heads, size)
        turn = (asked @ turns.reshape(tokens, -1)).reshape(1, size, size)
        together = normal @ mixed[:, width:]
        keys = together[:, : groups * size].reshape(tokens, groups, size)
        queries, keys = (jnp.einsum("tha,tab->htb", *x) for x in ((queries, turn), (keys, turns)))
        values = together[:, groups * size :]
        state = asked @ states + read(queries, keys, values, clear, asked @ later) @ out
        added, second = mlp(state, gated, down, scale[1, -1:], smallest[1, -1:])
        return state + added, [first, second]

    def read(queries: Any, keys: Any, values: Any, clear: Sequence[Any], far: Any) -> Any:
        """What attention reads: of (heads, rows, size), (groups, tokens, size), (tokens, …)."""
        rows = queries.shape[1]
        values = values.reshape(tokens, groups, size).transpose(1, 0, 2)
        if clear:
            keys = jnp.concatenate([clear[0], keys], axis=1)
            values = jnp.concatenate([clear[1], values], axis=1)
        queries = queries.reshape(groups, heads // groups * rows, size)
        scores = jnp.einsum("gqs,gts->gqt", queries, keys).reshape(heads, rows, places)
        scores = scores - far
        chances = exponential(scores - jnp.max(scores, axis=-1, keepdims=True))
        chances = chances * (1 / jnp.sum(chances, axis=-1, keepdims=True))
        chances = chances.reshape(groups, heads // groups * rows, places)
        found = jnp.einsum("gqt,gts->gqs", chances, values).reshape(heads, rows, size)
        return found.transpose(1, 0, 2).reshape(rows, width)

    def mlp(states: Any, gated: Any, down: Any, scale: Any, smallest: Any) -> tuple[Any, Any]:
        normal, square = norm(states, scale, smallest)
        gate, up = jnp.split(normal @ gated, 2, axis=-1)
        return (logistic(gate) * gate * up) @ down, square

    def run(owned: Sequence[Any], given: Sequence[Any], clear: Sequence[Any] = ()) -> Any:
        states = given[0] @ owned[4] if shape["starts"] == "tokens" else given[0]
        inside = scales[: 2 * layers].reshape(layers, 2, tokens, 1)
        weights = (*owned[:4], inside, eps * inside**2, *clear)
        if shape["ends"] == "states":
            states, squares = jax.lax.scan(block, states, weights)
            return states, within(squares, *shape["range"])
        seen = []
        if layers > 1:
            states, squares = jax.lax.scan(block, states, tuple(part[:-1] for part in weights))
            seen.append(squares)
        asked, squares = block_at(states, [part[-1] for part in weights], given[1])
        table, gain = owned[4], owned[5]
        last = scales[-1][-1:]
        normal, square = norm(asked, last, eps * last**2)
        if shape["candidates"]:
            table = table[np.array(shape["candidates"])]
        logits = ((normal * gain) @ table.T)[0]
        seen += [*squares, square]
        fits = within(jnp.concatenate([each.ravel() for each in seen]), *shape["range"])
        return (logits if shape["ends"] == "logits" else jnp.argmax(logits, axis=-1)), fits

    return run


def within(squares: Any, least: float, most: float) -> Any:
    """Whether every mean square was one that 1/√x is exact for: that alone is told of them."""
    outside = (squares < least) | (squares > most)
    return jnp.sum(outside) < 1


def scales_of(pair: Sequence[int], before: int, tokens: int) -> np.ndarray:
    """What states are multiplied by: one power of two at the first place, one at the others."""
    scales = np.full((tokens, 1), 2.0 ** -pair[1], np.float32)
    if not before:
        scales[0] = 2.0 ** -pair[0]
    return scales


def rotations(before: int, tokens: int, size: int, theta: float) -> np.ndarray:
    """For each place the matrix that turns a query or a key by it (rotary, halves as in Llama)."""
    half = size // 2
    angles = np.arange(before, before + tokens)[:, None] * theta ** (-np.arange(half) / half)[None]
    turns = np.zeros((tokens, size, size), np.float32)
    at = np.arange(half)
    turns[:, at, at] = turns[:, at + half, at + half] = np.cos(angles)
    turns[:, at, at + half] = np.sin(angles)
    turns[:, at + half, at] = -np.sin(angles)
    return turns
