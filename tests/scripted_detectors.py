"""Detectors and models that a test of the pseudonym defence scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask
from cosilo.boundary.transports.inside import InProcess
from cosilo.defences.base import Defence
from cosilo.defences.detection import Span
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.models.base import Access
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import (
    Chat,
    Delta,
    Generation,
    Sampling,
    ToolCallDelta,
)


class Words:
    """Reports the given words, wherever they stand, and nothing else."""

    def __init__(self, **kinds: str) -> None:
        self.kinds = kinds

    def detect(self, text: str, public: str = "") -> list[Span]:
        found = []
        for word, kind in self.kinds.items():
            at = text.find(word)
            while at >= 0:
                found.append(Span(at, at + len(word), kind))
                at = text.find(word, at + 1)
        return found


class Broken:
    def detect(self, text: str, public: str = "") -> list[Span]:
        raise RuntimeError(f"cannot read {text}")


class Replies:
    """A model that answers with what `reply` makes of the chat, in the pieces `cut` makes of it."""

    access = Access.LOGPROBS
    name = "replies"

    def __init__(
        self, reply: Callable[[Chat], Generation], cut: Callable[[Generation], Sequence[Delta]]
    ) -> None:
        self.reply, self.cut = reply, cut
        self.seen: list[Chat] = []
        self.asked: list[Sampling] = []

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        self.seen.append(chat)
        self.asked.append(sampling)
        return self.reply(chat)

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        for piece in self.cut(await self.generate(chat, sampling)):
            yield piece

    async def close(self) -> None: ...


def by_characters(size: int) -> Callable[[Generation], Sequence[Delta]]:
    def cut(generation: Generation) -> Sequence[Delta]:
        text = generation.text
        pieces = [Delta(text=text[i : i + size]) for i in range(0, len(text), size)]
        for index, call in enumerate(generation.tool_calls):
            pieces.append(Delta(tool_calls=(ToolCallDelta(index, call.id, call.name),)))
            pieces += [
                Delta(tool_calls=(ToolCallDelta(index, arguments=call.arguments[i : i + size]),))
                for i in range(0, len(call.arguments), size)
            ]
        return [*pieces, Delta(finish_reason=generation.finish_reason, completion_tokens=7)]

    return cut


IN_THREES = by_characters(3)


def echo(chat: Chat) -> Generation:
    return Generation(chat[-1].content)


class Talk:
    """A channel through the defence to a model of the test's own."""

    def __init__(
        self,
        defence: Defence,
        reply: Callable[[Chat], Generation] = echo,
        cut: Callable[[Generation], Sequence[Delta]] = IN_THREES,
    ) -> None:
        self.model = Replies(reply, cut)
        self.boundary = Boundary(
            InProcess(LMOwner(self.model, exposes=Access.LOGPROBS.shows)),
            declared=frozenset({Ask}),
            guards=[defence],
        )

    def send(self, chat: Chat, request: str = "r1", **sampling: object) -> Generation:
        ask = Ask(chat=chat, sampling=Sampling(**sampling))  # type: ignore[arg-type]
        return asyncio.run(self.boundary.bind(request).send(ask)).generation

    def stream(self, chat: Chat, request: str = "r1", **sampling: object) -> list[Delta]:
        ask = Ask(chat=chat, sampling=Sampling(**sampling))  # type: ignore[arg-type]

        async def run() -> list[Delta]:
            return [d async for d in self.boundary.bind(request).stream(ask)]

        return asyncio.run(run())

    @property
    def seen(self) -> str:
        return "\n".join(t.content for t in self.model.seen[-1])


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Pseudonym]:
    def build(*found: object, **options: object) -> Pseudonym:
        options.setdefault("key_file", tmp_path / "key")
        defence = Pseudonym(detectors=("patterns",), **options)  # type: ignore[arg-type]
        if found:
            defence.hiding.reader.detectors = found  # type: ignore[assignment]
        return defence

    return build


Make = Callable[..., Pseudonym]
PEOPLE = Words(**{"Alice Brown": "PERSON", "John Roe": "PERSON", "alice@x.org": "EMAIL"})
