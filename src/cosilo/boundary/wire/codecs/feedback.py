"""Error feedback: what a codec loses of one array the sender adds to the next.

    array + residual ─ pack ─▶ bytes,  residual ← array + residual − what the other side reads

Over many rounds what arrives sums to what was meant, up to the last residual, so that updates of which
only the largest numbers are sent still train (Karimireddy et al., "Error Feedback Fixes SignSGD", arXiv
1901.09847). It fits what adds up from round to round, such as gradients of weights and updates.
States of different texts do not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.codecs.base import Codec, Floats, checked


def pack_with_feedback(
    codec: Codec, array: NDArray[np.floating], residual: Floats | None = None
) -> tuple[bytes, Floats]:
    """`array` and what was lost before, packed, and what is lost now, which the sender keeps.

    Args:
        residual: what the last call gave; None at first. It never leaves the sender.

    Raises:
        ValueError: the codec cannot pack them, or they differ in shape.
    """
    meant = checked(array)
    if residual is not None:
        if residual.shape != meant.shape:
            raise ValueError(f"a residual of {residual.shape} does not fit {meant.shape}")
        meant = meant + residual
    packed = codec.pack(meant)
    return packed, meant - codec.unpack(packed, *meant.shape)
