"""Lessons that went up for an adapter, and the name that the LM's owner has it under."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cosilo.boundary.messages import Tune, encode
from cosilo.boundary.messages.base import decode
from cosilo.errors import CosiloError, StoreError
from cosilo.strategies.base import Session
from cosilo.strategies.federating.files import keep
from cosilo.strategies.plugged import Again

_FILE, _ABOUT = "lessons.bin", "adapter.json"


@dataclass(frozen=True, eq=False)
class LessonsSent:
    """What an adapter was tuned on; it stays here, too, for an owner who has forgotten the adapter.

    Attributes:
        name: what the LM's owner answers to; empty where the LM is asked as it was.
        lessons: as they were sent, before any defence.
    """

    name: str
    lessons: Tune = field(repr=False)
    _renamed: list[str] = field(default_factory=list, repr=False)  # behind a defence, it can be

    @property
    def called(self) -> str:
        """What the owner has it under by now."""
        return self._renamed[-1] if self._renamed else self.name

    def again(self, session: Session) -> Again:
        async def again() -> str:
            once_more = msgspec.structs.replace(self.lessons, again=True)
            name = (await session.lm.send(once_more)).name
            self._renamed[:] = [name]
            return name

        return again

    def save(self, folder: Path) -> None:
        """Write it into `folder`, for its owner alone to read.

        Raises:
            StoreError: it cannot be written.
        """
        keep(folder / _FILE, encode(self.lessons))
        keep(folder / _ABOUT, json.dumps({"name": self.called}).encode())

    @classmethod
    def load(cls, folder: Path) -> LessonsSent:
        """What `save` has written.

        Raises:
            StoreError: it is not there or damaged.
        """
        try:
            about = json.loads((folder / _ABOUT).read_text("utf-8"))
            lessons = decode((folder / _FILE).read_bytes())
            if isinstance(lessons, Tune):
                return cls(str(about["name"]), lessons)
        except (OSError, ValueError, TypeError, KeyError, CosiloError):
            pass
        raise StoreError(f"{str(folder)!r} holds no lessons that can be read")
