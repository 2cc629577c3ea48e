"""A linear head: classes of vectors that the data owner's encoder made at home.

    vectors (data owner) · weights + biases (LM's owner) ──▶ label, or logits where its owner agrees

`shape`: `inputs`, `outputs`, `rows`, and `answer`: "label" or "logits".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

SEES = "data owner"


def arrays(shape: dict[str, Any]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The sizes of what the LM's owner hands in, and of what the data owner does."""
    inputs, outputs = shape["inputs"], shape["outputs"]
    return [(inputs, outputs), (outputs,)], [(shape["rows"], inputs)]


def build(shape: dict[str, Any]) -> Callable[[Sequence[Any], Sequence[Any]], Any]:
    """The function that is compiled."""
    logits_wanted = shape["answer"] == "logits"

    def run(owned: Sequence[Any], given: Sequence[Any]) -> Any:
        weights, biases = owned
        logits = given[0] @ weights + biases
        return logits if logits_wanted else jnp.argmax(logits, axis=-1)

    return run
