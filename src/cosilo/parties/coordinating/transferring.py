"""After a round's updates came together, the coordinator's large model and the small one learn from
each other; see `learning`.

    round N's aggregate ──exchange──▶ what owners go on from, and round N's adapter of the large model

The last adapter of the large model can be opened from the folder `adapter`, by a model of kind "torch".
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cosilo.boundary.wire import tensors
from cosilo.errors import ConfigError
from cosilo.federation.rules import Aggregate
from cosilo.federation.updates import Tensors
from cosilo.models.mutual import MutualModel
from cosilo.parties.coordinating.learning import RoundLearning
from cosilo.parties.coordinating.settings import FederationSettings

log = logging.getLogger("cosilo.federation")


def require_teachable(settings: FederationSettings) -> None:
    """Refuse a large model in a federation that it cannot learn in.

    Raises:
        ConfigError: its coordinator sees no adapter; what comes of its rule is added to weights; it
            goes on by momentum.
    """
    if settings.secure or settings.method != "adapter":
        raise ConfigError(
            "a large model learns from adapters that its coordinator sees: leave out secure, and "
            'method = "scalars"; from opinions a model of kind "taught" does'
        )
    if settings.ranks == "stacked":
        raise ConfigError(
            f"what comes of the rule {settings.rule!r} is added to weights, and a small model that a "
            "large one teaches goes on from its adapter: average, or hetlora for unequal ranks"
        )
    if not settings.server_step.whole:
        raise ConfigError(
            "momentum would repeat what the large model taught as if owners had learnt it again: leave "
            "out momentum and server_rate"
        )


class Transfer(RoundLearning[Tensors]):
    """The exchanges of one federation.

    Args:
        scale: what the small model's adapter's product is multiplied by.
        codec: what owners are given adapters in.
        folder, told: see `RoundLearning`.
    """

    def __init__(
        self,
        model: MutualModel,
        *,
        scale: float,
        codec: str,
        folder: Path | None,
        told: Callable[[], None],
    ) -> None:
        super().__init__(folder=folder, told=told)
        self.model = model
        self._scale, self._codec = scale, codec

    @property
    def base(self) -> str:
        """The base that owners must have."""
        return self.model.small_base

    def lasting(self, settings: FederationSettings) -> dict[str, object]:
        """What must not change while a federation of these settings lasts.

        Raises:
            CapabilityError: its large and its small model cannot teach each other.
            ConfigError: the owners' base model is set, and is another than its small model; a large
                model cannot learn in such a federation.
        """
        require_teachable(settings)
        if settings.base not in ("", self.model.small_base):
            raise ConfigError(
                f"the owners' base is {settings.base}, and the small model that learns from the large "
                f"one is {self.model.small_base}: they must be the same"
            )
        return {**settings.lasting, "mutual": self.model.settings}

    def of(self, number: int, made: Aggregate, before: bytes) -> Aggregate | None:
        """What owners are given instead of `made`; None while it is being made.

        Args:
            before: what they were given of the round before; empty in the first.

        Raises:
            ModelError: a loss is not finite.
            StoreError: the large model's adapter is gone, or cannot be written.
        """
        packed = tensors.pack(made.tensors)
        key = hashlib.sha256(f"{number} ".encode() + before + packed).hexdigest()[:16]
        found = self.result(number, key, lambda work: self._exchange(number, made, before, work))
        # The updates' bias is what averaging did to them; what was learned since is none of it.
        return None if found is None else replace(made, tensors=found)

    def _exchange(self, number: int, made: Aggregate, before: bytes, work: Path | None) -> Tensors:
        large = None
        if number > 1:
            large = tensors.unpack(self.adapter(number - 1, before))
        found = self.model.exchange(number, made.tensors, self._scale, large, work)
        given = tensors.pack(found.small, self._codec)
        self.keep(number, given, tensors.pack(found.large))
        if self.folder is not None:
            self.model.keep_adapter(found.large, self.folder / "adapter")
        for name, (first, last) in sorted(found.losses.items()):
            log.info("round %d: the %s model's loss %.4f, then %.4f", number, name, first, last)
        return tensors.unpack(given)
