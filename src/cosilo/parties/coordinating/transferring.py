"""After a round's updates came together, the coordinator's large model and the small one learn from
each other: in a thread of its own, which owners wait for as they do for one another.

    round N's aggregate ──exchange──▶ what owners go on from, and round N's adapter of the large model

The large model's adapter of a round lies beside the federation's file under a hash of what owners were
given, so that after a `kill -9` the two always belong together. The last one can be opened from the
folder `adapter`, by a model of kind "torch".
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cosilo.boundary.wire import tensors
from cosilo.databases import made_private
from cosilo.errors import ConfigError, StoreError
from cosilo.federation.rules import Aggregate
from cosilo.federation.updates import Tensors
from cosilo.models.mutual import MutualModel
from cosilo.parties.coordinating.settings import FederationSettings

log = logging.getLogger("cosilo.federation")


def require_teachable(settings: FederationSettings) -> None:
    """Refuse a large model in a federation that it cannot learn in.

    Raises:
        ConfigError: its coordinator sees no adapter; what comes of its rule is added to weights; it
            goes on by momentum.
    """
    if settings.secure or settings.method == "scalars":
        raise ConfigError(
            "a large model learns from adapters that its coordinator sees: leave out secure, and "
            'method = "scalars"'
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


class Transfer:
    """The exchanges of one federation.

    Args:
        scale: what the small model's adapter's product is multiplied by.
        codec: what owners are given adapters in.
        folder: where the large model's adapters are kept; they live as long as the process where None.
        told: called when an exchange has ended, from its thread.
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
        self.model = model
        self._scale, self._codec, self._folder, self._told = scale, codec, folder, told
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="transfer")
        self._kept: dict[str, bytes] = {}
        self._key = ""
        self._number = 0
        self._future: Future[Tensors] | None = None

    def lasting(self, settings: FederationSettings) -> dict[str, object]:
        """What must not change while a federation of these settings lasts.

        Raises:
            CapabilityError: its large and its small model cannot teach each other.
            ConfigError: the owners' base model is set, and is another than its small model.
        """
        if settings.base not in ("", self.model.small_base):
            raise ConfigError(
                f"the owners' base is {settings.base}, and the small model that learns from the large "
                f"one is {self.model.small_base}: they must be the same"
            )
        return {**settings.lasting, "mutual": self.model.settings}

    @property
    def busy(self) -> bool:
        return self._future is not None and not self._future.done()

    def began(self, number: int) -> bool:
        """Whether the models have begun to learn from what that round's updates became."""
        return self._future is not None and self._number == number

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
        if self._future is None or self._key != key:
            self._key, self._number = key, number
            self._future = self._thread.submit(self._exchange, number, made, before, key)
            self._future.add_done_callback(lambda _: self._told())
            return None
        if not self._future.done():
            return None
        try:
            # The updates' bias is what averaging did to them; what was learned since is none of it.
            return replace(made, tensors=self._future.result())
        except BaseException:
            self._future = None
            raise

    def close(self) -> None:
        self._thread.shutdown()

    def _exchange(self, number: int, made: Aggregate, before: bytes, key: str) -> Tensors:
        self._make_folder()  # before a training makes it, for everybody to read
        large = None
        if number > 1:
            large = tensors.unpack(self._large(number - 1, before))
        work = None if self._folder is None else self._folder / f"training-{number}-{key}"
        found = self.model.exchange(number, made.tensors, self._scale, large, work)
        given = tensors.pack(found.small, self._codec)
        self._keep(number, given, tensors.pack(found.large))
        if self._folder is not None:
            self.model.keep_adapter(found.large, self._folder / "adapter")
            shutil.rmtree(self._folder / f"training-{number}-{key}", ignore_errors=True)
        for name, (first, last) in sorted(found.losses.items()):
            log.info("round %d: the %s model's loss %.4f, then %.4f", number, name, first, last)
        return tensors.unpack(given)

    def _make_folder(self) -> None:
        try:
            if self._folder is not None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{str(self._folder)!r} cannot be made: {error.strerror}") from None

    def _name(self, number: int, given: bytes) -> str:
        return f"round-{number}-{hashlib.sha256(given).hexdigest()[:16]}"

    def _large(self, number: int, given: bytes) -> bytes:
        name = self._name(number, given)
        if self._folder is None:
            return self._kept[name]
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            raise StoreError(
                f"the large model's adapter of round {number} is not in {str(self._folder)!r} any "
                "more, so the federation cannot go on: restore it, or begin another one"
            ) from None

    def _keep(self, number: int, given: bytes, large: bytes) -> None:
        name = self._name(number, given)
        if self._folder is None:
            self._kept = {name: large}
            return
        new = self._folder / f"{name}.new"
        try:
            with made_private(new).open("wb") as file:
                file.write(large)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._folder / name)
            for old in self._folder.glob(f"round-{number - 2}-*"):
                old.unlink()
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise StoreError(f"{str(new)!r} cannot be written: {error.strerror}") from None
