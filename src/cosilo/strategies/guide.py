"""What somebody who chooses a strategy reads first: which way it works, what crosses, when it fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Direction = Literal["inference", "downward", "upward"]
"""While answering; from the large model to the small one; from the small model to the large one."""

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


@dataclass(frozen=True, kw_only=True)
class Guide:
    """Two lines about a strategy, shown by `cosilo list strategies`.

    Attributes:
        crosses: what the LM's owner is sent, and what comes back where that is more than a reply.
        choose: when it is the right choice.
        direction: which way knowledge flows; the folder that a strategy of Cosilo's own lies in.
    """

    crosses: str
    choose: str
    direction: Direction = "inference"


def guide(factory: Callable[..., object]) -> Guide | None:
    """The guide of a strategy; None where it has none, as one of a plug-in may."""
    found = getattr(factory, "guide", None)
    return found if isinstance(found, Guide) else None
