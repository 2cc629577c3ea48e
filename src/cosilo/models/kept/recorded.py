"""A model whose answers stand in a data set's own column, with the seconds they took."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Iterable

import msgspec

from cosilo.errors import OfflineError
from cosilo.models.base import Access, models
from cosilo.types import Chat, Generation, Sampling

Recording = tuple[Chat, str, float]
"""A question, the recorded reply to it, and the seconds that reply took."""

BYTES_PER_TOKEN = 4
"""Recorded data seldom hold token counts; they are taken to be one per four bytes of text."""


class RecordedModel:
    """Answers recorded in the data set's own columns; no model runs. What was asked is matched whole.

    Token counts are estimates (`BYTES_PER_TOKEN`); sampling is ignored.

    Args:
        answers: what it answers; `add` adds more.

    Attributes:
        duplicates: recordings that were left out because their question has a different answer already.
    """

    def __init__(self, answers: Iterable[Recording] = (), *, name: str = "recorded") -> None:
        self._name = name
        self._digest = hashlib.sha256()
        self.duplicates = 0
        self._answers: dict[Chat, tuple[str, float]] = {}
        self.add(answers)

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        """Its name, and a hash of all it was given."""
        return f"recorded:{self._name}:{self._digest.hexdigest()[:16]}"

    @property
    def access(self) -> Access:
        return Access.TEXT

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, answers: Iterable[Recording]) -> None:
        """Record more; the first answer to a question stays."""
        for chat, text, seconds in answers:
            self._digest.update(msgspec.msgpack.encode((chat, text, seconds)))
            kept, _ = self._answers.setdefault(chat, (text, seconds))
            self.duplicates += kept != text

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        """The recorded answer.

        Raises:
            OfflineError: there is none to exactly this question.
        """
        found = self._answers.get(chat)
        if found is None:
            raise OfflineError(
                f"recorded model {self.name!r} has no answer to this question: only strategies and "
                "defences that send the items' own questions unchanged can use recorded answers"
            )
        await asyncio.sleep(0)  # what is asked at the same time is asked before an answer comes
        text, seconds = found
        asked = sum(len(turn.content.encode(errors="replace")) for turn in chat)
        return Generation(
            text,
            prompt_tokens=math.ceil(asked / BYTES_PER_TOKEN),
            completion_tokens=math.ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN),
            seconds=seconds,
        )

    async def close(self) -> None: ...


@models.register("recorded")
def recorded(model: str) -> RecordedModel:
    """Answers recorded in the data set's own columns, with their recorded seconds.

    Args:
        model: its name in the plan's `columns.recorded`.
    """
    return RecordedModel(name=model)
