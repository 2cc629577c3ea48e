"""A prefix in clear before tokens that are computed on in secret: its keys and values, in plain numpy.

    prefix in clear ──▶ LM's owner: forward ──▶ keys, values of each layer ─┐
    first private token and all after it ───────────────────────────────────┴─▶ program ──▶ answer

Attention is causal, so a place in clear before the first private token carries nothing of it, and
keys and values of such places are all that later ones need of them. A place after it carries
it, and is computed on in secret, too. So the answer is that of a run on all tokens.
"""

from __future__ import annotations

import numpy as np

from cosilo.engines.llama import Llama, forward
from cosilo.engines.ranges import Bound, Floats


def keys_and_values(model: Llama, states: Floats) -> tuple[Floats, Floats]:
    """Of places from the first on, turned by their places: layers × groups × places × size each."""
    tokens, size = len(states), model.width // model.heads
    half = size // 2
    angles = np.arange(tokens)[:, None] * model.theta ** (-np.arange(half) / half)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    _, before = forward(model, states)
    keys, values = [], []
    for x, mixed in zip(before[:-1:2], model.mixed, strict=True):
        normal = x / np.sqrt((x * x).mean(-1, keepdims=True) + model.eps)
        both = (normal @ mixed[:, model.width :]).reshape(tokens, 2, model.groups, size)
        unturned, value = both.transpose(1, 2, 0, 3)
        one, two = unturned[..., :half], unturned[..., half:]
        keys.append(np.concatenate([one * cosines - two * sines, two * cosines + one * sines], -1))
        values.append(value)
    return np.stack(keys), np.stack(values)


def bounds(model: Llama, keys: Floats, values: Floats) -> list[Bound]:
    """Of these keys and values, which their owner knows, and of scores with these keys.

    What comes of other places is bounded as without a prefix (`llama.bounds`).
    """
    size = model.width // model.heads
    queries = np.linalg.norm(model.mixed[:, :, : model.width], axis=1) * np.sqrt(model.width)
    lengths = np.linalg.norm(queries.reshape(model.layers, -1, size), axis=-1).max(-1)
    clear = np.linalg.norm(keys, axis=-1).max((1, 2))
    return [
        Bound("a key or value of the prefix", float(max(np.abs(keys).max(), np.abs(values).max()))),
        Bound("a score with a key of the prefix", float((lengths * clear).max())),
    ]
