"""What was tuned of a large model's first and last layers, and the name that its owner has it under."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from cosilo.boundary.messages import PlugIn
from cosilo.errors import StoreError
from cosilo.strategies.federating.files import keep

_FILE, _ABOUT = "adapter.bin", "adapter.json"


@dataclass(frozen=True, eq=False)
class TunedEnds:
    """An adapter as it is sent; it stays here, too, for an owner who has forgotten it.

    Attributes:
        name: what the LM's owner answers to; empty where the LM is asked as it was.
        base: a digest of the model that it is for.
        rank, alpha: of the adapter.
        packed: its tensors, as in `PlugIn`.
    """

    name: str
    base: str
    rank: int
    alpha: float
    packed: bytes = field(repr=False)

    def message(self, *, again: bool = False) -> PlugIn:
        return PlugIn(
            base=self.base, rank=self.rank, alpha=self.alpha, packed=self.packed, again=again
        )

    def save(self, folder: Path) -> None:
        """Write it into `folder`, for its owner alone to read.

        Raises:
            StoreError: it cannot be written.
        """
        about = {"name": self.name, "base": self.base, "rank": self.rank, "alpha": self.alpha}
        keep(folder / _FILE, self.packed)
        keep(folder / _ABOUT, json.dumps(about).encode())

    @classmethod
    def load(cls, folder: Path) -> TunedEnds:
        """What `save` has written.

        Raises:
            StoreError: it is not there or damaged.
        """
        try:
            about = json.loads((folder / _ABOUT).read_text("utf-8"))
            return cls(**about, packed=(folder / _FILE).read_bytes())
        except (OSError, ValueError, TypeError):
            raise StoreError(f"{str(folder)!r} holds no adapter that can be read") from None
