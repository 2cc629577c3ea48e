"""A head with one hidden layer (ReLU) on vectors that the data owner's encoder made at home.

`shape`: `inputs`, `hidden`, `outputs`, `rows`, and `answer`: "label" or "logits".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

SEES = "data owner"


def arrays(shape: dict[str, Any]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The sizes of what the LM's owner hands in, and of what the data owner does."""
    inputs, hidden, outputs = shape["inputs"], shape["hidden"], shape["outputs"]
    owned: list[tuple[int, ...]] = [(inputs, hidden), (hidden,), (hidden, outputs), (outputs,)]
    return owned, [(shape["rows"], inputs)]


def build(shape: dict[str, Any]) -> Callable[[Sequence[Any], Sequence[Any]], Any]:
    """The function that is compiled."""
    logits_wanted = shape["answer"] == "logits"

    def run(owned: Sequence[Any], given: Sequence[Any]) -> Any:
        first, first_biases, second, second_biases = owned
        inner = jnp.maximum(given[0] @ first + first_biases, 0)
        logits = inner @ second + second_biases
        return logits if logits_wanted else jnp.argmax(logits, axis=-1)

    return run
