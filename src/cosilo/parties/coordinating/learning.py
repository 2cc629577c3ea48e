"""A large model of the coordinator's that learns from a round, in a thread of its own, which owners
wait for as they do for one another; and what it had learned, on disk.

The large model's adapter of a round lies beside the federation's file under a hash of what owners were
given, so that after a `kill -9` the two always belong together.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from cosilo.databases import made_private
from cosilo.errors import StoreError

T = TypeVar("T")


def learned_beside(state_file: Path) -> Path:
    """The folder with what a large model learned from the federation in this file."""
    return state_file.with_suffix(".mutual")


class RoundLearning(Generic[T]):
    """What the large model of one federation learns, round by round.

    Args:
        folder: where its adapters are kept; they live as long as the process where None.
        told: called when it has learned, from its thread.
    """

    def __init__(self, *, folder: Path | None, told: Callable[[], None]) -> None:
        self.folder, self._told = folder, told
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="transfer")
        self._kept: dict[str, bytes] = {}
        self._key = ""
        self._number = 0
        self._future: Future[T] | None = None

    @property
    def busy(self) -> bool:
        return self._future is not None and not self._future.done()

    def began(self, number: int) -> bool:
        """Whether it has begun to learn from that round's updates."""
        return self._future is not None and self._number == number

    def close(self) -> None:
        self._thread.shutdown()

    def result(self, number: int, key: str, work: Callable[[Path | None], T]) -> T | None:
        """What `work` gives; None while it is at it.

        Args:
            key: names all that decides the result.
            work: it is given a folder to go on in after a kill, which is gone when it has ended well.

        Raises:
            what `work` does.
        """
        if self._future is None or self._key != key:
            self._key, self._number = key, number
            self._future = self._thread.submit(self._done, f"training-{number}-{key}", work)
            self._future.add_done_callback(lambda _: self._told())
            return None
        if not self._future.done():
            return None
        try:
            return self._future.result()
        except BaseException:
            self._future = None
            raise

    def adapter(self, number: int, given: bytes) -> bytes:
        """The large model's adapter of a round that owners were given that of.

        Raises:
            StoreError: it is gone.
        """
        name = self._name(number, given)
        if self.folder is None:
            return self._kept[name]
        try:
            return (self.folder / name).read_bytes()
        except OSError:
            raise StoreError(
                f"the large model's adapter of round {number} is not in {str(self.folder)!r} any "
                "more, so the federation cannot go on: restore it, or begin another one"
            ) from None

    def keep(self, number: int, given: bytes, large: bytes) -> None:
        """Keep the large model's adapter of a round, and none from before the last one.

        Raises:
            StoreError: it cannot be written.
        """
        name = self._name(number, given)
        if self.folder is None:
            self._kept = {name: large}
            return
        new = self.folder / f"{name}.new"
        try:
            with made_private(new).open("wb") as file:
                file.write(large)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.folder / name)
            for old in self.folder.glob(f"round-{number - 2}-*"):
                old.unlink()
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise StoreError(f"{str(new)!r} cannot be written: {error.strerror}") from None

    def _done(self, name: str, work: Callable[[Path | None], T]) -> T:
        if self.folder is None:
            return work(None)
        try:  # before a training makes it, for everybody to read
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{str(self.folder)!r} cannot be made: {error.strerror}") from None
        found = work(self.folder / name)
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return found

    def _name(self, number: int, given: bytes) -> str:
        return f"round-{number}-{hashlib.sha256(given).hexdigest()[:16]}"
