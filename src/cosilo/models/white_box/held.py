"""A torch module that one thread computes with: what the parts of a torch model have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from cosilo.errors import ModelError
from cosilo.models.base import Array

T = TypeVar("T")


class TorchHeld:
    """What each part of a torch model asks of the whole."""

    @property
    def module(self) -> Any:
        raise NotImplementedError

    @property
    def context(self) -> int:
        raise NotImplementedError

    async def _apart(self, work: Callable[[], T]) -> T:
        """`work`, in the model's own thread."""
        raise NotImplementedError


def finite_array(
    tensor: Any, wrong: str = "the torch model gave a number that is not finite"
) -> Array:
    """The numbers of `tensor`, float32.

    Raises:
        ModelError: one is not finite; `wrong` is what it says.
    """
    numbers = tensor.detach().float().cpu().numpy()
    if not np.isfinite(numbers).all():
        raise ModelError(wrong)
    return np.ascontiguousarray(numbers)
