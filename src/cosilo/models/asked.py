"""What is asked of a model at home: what it refuses, and by which numbers a reply is drawn."""

from __future__ import annotations

import numpy as np

from cosilo.errors import RejectedError
from cosilo.types import Sampling


def too_long(text: str) -> RejectedError:
    """What a caller is told whose messages are longer than a model's context."""
    return RejectedError(text, status=400, code="context_length_exceeded", param="messages")


_SEEDS = 1 << 63  # numpy takes no negative one, and clients send them


def generator(sampling: Sampling) -> np.random.Generator:
    """The reply's own generator."""
    return np.random.default_rng(sampling.seed % _SEEDS)


def require_plain(sampling: Sampling) -> None:
    """Refuse what the torch back end does not do.

    Raises:
        RejectedError: tools or a form of the reply are asked for.
    """
    for name in ("tools", "response_format"):
        if getattr(sampling, name):
            raise RejectedError(
                f"the torch back end knows no {name}; the llamacpp back end does",
                everything=True,
                status=400,
                code="unsupported_parameter",
                param=name,
            )
