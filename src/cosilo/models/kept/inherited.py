"""Recorded replies of which only those that are asked for again are taken over.

A run that is made again without a record asks what it would have asked if it had never seen it. What it
does not ask stays behind.
"""

from __future__ import annotations

from pathlib import Path

from cosilo.databases import made_private
from cosilo.models.kept.replay import ReplayStore
from cosilo.types import Generation


class Inherited(ReplayStore):
    """The store at `path`, which takes from the one at `before` what it is asked for and lacks.

    Args:
        before: is read only; None where there is none.
    """

    def __init__(self, path: Path, before: Path | None) -> None:
        super().__init__(made_private(path))
        self._before = ReplayStore(before) if before is not None and before.is_file() else None
        self._models = self._before.models_of() if self._before is not None else {}

    def get(self, key: bytes) -> Generation | None:
        found = super().get(key)
        if found is None and self._before is not None:
            old = self._before.get(key)
            if old is not None:
                return self.put(key, self._models[key], old)
        return found

    def get_reply(self, key: bytes) -> bytes | None:
        found = super().get_reply(key)
        if found is None and self._before is not None:
            old = self._before.get_reply(key)
            if old is not None:
                return self.put_reply(key, self._models[key], old)
        return found

    def inherits(self, model: str, former: str) -> bool:
        if self._before is not None and not self._before.inherits(model, former):
            return False
        return super().inherits(model, former)

    def __len__(self) -> int:
        return super().__len__() + (len(self._before) if self._before is not None else 0)

    def close(self) -> None:
        if self._before is not None:
            self._before.close()
        super().close()
