"""Who asks a question right now, among all processes of this machine.

Each question has a byte of a lock file, far beyond its end. Whoever asks holds that byte, and the
kernel lets go of it when the process dies, so no claim is ever stale.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cosilo.errors import StoreError

_FIRST, _LONGEST = 0.01, 0.25  # seconds between two looks


class Claims:
    """Claims on questions, in the lock file at `path`, which is made when it is first needed.

    A process does not wait for itself: its own callers are to wait for one another.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    @asynccontextmanager
    async def held(self, key: bytes) -> AsyncIterator[None]:
        """The claim on the question with this key, once no other process holds it.

        Raises:
            StoreError: the file cannot be made, or its file system knows no locks.
        """
        place, pause = int.from_bytes(key[:8], "big") >> 2, _FIRST
        while not self._lock(place):
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        try:
            yield
        finally:
            if self._handle is not None:
                fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, place)

    def _lock(self, place: int) -> bool:
        try:
            if self._handle is None:
                self._handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreError(f"{str(self._path)!r} cannot be locked: {error.strerror}") from None
        return True

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
