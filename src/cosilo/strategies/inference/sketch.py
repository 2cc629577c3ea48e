"""The large model writes an outline without the private context; the small one fills it in at home.

    instruction, read at home ──▶ the LM ──▶ outline ──▶ SM fills it in, with the whole question
                                                └ skeleton: a point at a time, side by side

Zhang et al., "CoGenesis: A Framework Collaborating Large and Small Language Models for Secure
Context-Aware Instruction Following" (arXiv 2403.03129), its sketches. Points that are expanded side by
side: Ning et al., "Skeleton-of-Thought" (arXiv 2307.15337).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from msgspec.structs import replace as changed

from cosilo.boundary.messages import Ask
from cosilo.models.base import stream as stream_model
from cosilo.reasoning import spoken
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, Text, strategies
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.ends import Small
from cosilo.strategies.inference.leaving import PrivateReader
from cosilo.strategies.inference.stand_ins import without_links
from cosilo.strategies.inference.writing import (
    Otherwise,
    held_back,
    lines,
    one_text,
    original_of,
    with_note,
    written,
)
from cosilo.types import (
    Answer,
    Chat,
    Delta,
    Generation,
    Sampling,
    assemble,
    closing,
    disassemble,
    user,
)

_INSTRUCTION = (
    "Say in one sentence what kind of text or answer is wanted below, as an instruction to a writer "
    "who may know nothing about the people in it. No names, no places, no numbers. Only that "
    "sentence.\n\n"
    "{original}"
)
_OUTLINE = (
    "{instruction}\n\nDo not write it. Give an outline of at most {points} short points that it should "
    "cover, one a line. The details are known to whoever fills it in."
)
_FILL = "(Follow this outline, and fill in the details of the request above:\n\n{outline}\n)"
_POINT = (
    "(The answer has these points:\n\n{outline}\n\nWrite only the part for this one, in one or two "
    "sentences: {point})"
)
_WORDS_AROUND = 64  # tokens of ours around the instruction
_LEAST = 16  # tokens of a point
_AT_ONCE = 8  # points
_MOST = 64  # points


@strategies.register("sketch")
@dataclass(frozen=True, kw_only=True)
class Sketch:
    """Only an instruction crosses, an outline comes back, and the small model fills it in.

    Attributes:
        split: where the instruction is. "model": the small model says in a sentence what is wanted;
            "system": the system turns are the instruction, the other turns the private context;
            "marker": of the last user turn, what stands before the first `marker`, as of a form.
        marker: what parts an instruction from its context.
        skeleton: the small model expands the outline's points side by side, and its answer is these
            parts, each with its share of the answer's tokens; else it writes one text along them. A
            choice, a call of a tool or a given format is always written as one.
        points: of an outline, at most.
        never: words and phrases that must not leave in any case.
        verbatim: more words in a row than these must not be those of the private context.
        otherwise: what becomes of a question whose instruction may not leave: "refuse", or "small"
            answers.
        longest: tokens of the instruction that the small model writes.
    """

    guide: ClassVar[Guide] = Guide(
        crosses="an instruction without its context, read at home before it leaves",
        choose="texts are to be written from private records, and the small model lacks the structure",
    )
    needs: ClassVar[Needs] = Needs(sends=frozenset({Ask}))

    split: Literal["model", "system", "marker"] = "model"
    marker: str = "\n\n"
    skeleton: bool = False
    points: int = 5
    never: tuple[str, ...] = ()
    verbatim: int = 12
    otherwise: Otherwise = "refuse"
    longest: int = 80

    def __post_init__(self) -> None:
        if self.split not in ("model", "system", "marker"):
            raise ValueError(f"split = {self.split!r} is none of model, system, marker")
        if self.otherwise not in ("refuse", "small"):
            raise ValueError(f"otherwise = {self.otherwise!r} is neither 'refuse' nor 'small'")
        if not self.marker:
            raise ValueError("marker is empty")
        for name in ("points", "verbatim", "longest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} is below 1")
        if self.points > _MOST:
            raise ValueError(f"points = {self.points!r} is above {_MOST}")
        if any(not text.strip() for text in self.never):
            raise ValueError("never holds an empty text")

    def forecast(self) -> Forecast:
        written = self.longest + _WORDS_AROUND
        reads: tuple[Text | int, ...] = (written,) if self.split == "model" else ("question",)
        return (Expected("answers", reads=reads),)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        return self, session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        outline = await self._outline(session, chat)
        if outline is None:
            return await Small().answer(session, chat)
        if self._side_by_side(session.sampling, outline):
            expand = self._expander(session, chat, outline)
            return _joined(await fan_out(expand, outline, concurrency=_AT_ONCE))
        told = _filling(chat, outline)
        return Answer(await session.owner.model.generate(told, session.sampling), by="both")

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        outline = await self._outline(session, chat)
        if outline is None:
            own = Small().stream(session, chat)
        elif self._side_by_side(session.sampling, outline):
            own = self._expanded(session, chat, outline)
        else:
            own = self._filled(session, _filling(chat, outline))
        async with closing(own) as pieces:
            async for piece in pieces:
                yield piece

    async def _filled(self, session: Session, told: Chat) -> AsyncIterator[Delta | Answer]:
        pieces = []
        async with closing(stream_model(session.owner.model, told, session.sampling)) as deltas:
            async for delta in deltas:
                pieces.append(delta)
                yield delta
        yield Answer(assemble(pieces), by="both")

    async def _expanded(
        self, session: Session, chat: Chat, outline: Sequence[str]
    ) -> AsyncIterator[Delta | Answer]:
        """The parts in their order, each as soon as it and those before are written."""
        gate = asyncio.Semaphore(_AT_ONCE)
        expand = self._expander(session, chat, outline)

        async def one(point: str) -> Generation:
            async with gate:
                return await expand(point)

        tasks = [asyncio.create_task(one(point)) for point in outline]
        parts: list[Generation] = []
        try:
            for task in tasks:
                parts.append(await task)
                yield Delta(_piece(parts))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        whole = _joined(parts)
        yield changed(disassemble(whole.generation), text="")
        yield whole

    def _expander(
        self, session: Session, chat: Chat, outline: Sequence[str]
    ) -> Callable[[str], Awaitable[Generation]]:
        """Writes the part of the answer that is about one point."""
        share = max(_LEAST, session.sampling.max_tokens // len(outline))
        sampling = changed(session.sampling, max_tokens=min(share, session.sampling.max_tokens))
        listed = "\n".join(f"- {point}" for point in outline)

        async def expand(point: str) -> Generation:
            told = with_note(chat, _POINT.format(outline=listed, point=point))
            return await session.owner.model.generate(told, sampling)

        return expand

    def _side_by_side(self, sampling: Sampling, outline: Sequence[str]) -> bool:
        whole = sampling.choices or sampling.tools or sampling.response_format
        return self.skeleton and len(outline) > 1 and not whole

    async def _outline(self, session: Session, chat: Chat) -> tuple[str, ...] | None:
        """The LM's points; None where nothing may be sent, and the small model is to answer.

        Raises:
            PrivacyError: nothing may be, and the question is refused.
        """
        instruction = await self._instruction(session, chat)
        if instruction is None:
            held_back("sketch", self.otherwise)
            return None
        wanted = session.sampling
        sampling = Sampling(
            max_tokens=wanted.max_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            seed=wanted.seed,
        )
        asks = user(_OUTLINE.format(instruction=instruction, points=self.points))
        reply = (await session.lm.send(Ask(chat=asks, sampling=sampling))).generation
        return lines(without_links(spoken(reply.text)))[: self.points]

    async def _instruction(self, session: Session, chat: Chat) -> str | None:
        """What is sent of `chat`; None where it may not be."""
        reading = PrivateReader(never=self.never, verbatim=self.verbatim)
        if self.split == "model":
            private = await reading.read(session, chat)
            task = user(_INSTRUCTION.format(original=original_of(chat)))
            _, sent = await written(
                session,
                task,
                _INSTRUCTION,
                lambda reply: (one_text(reply),),
                lambda texts: private.fault(texts[0]),
                longest=self.longest,
            )
            return None if sent is None else sent[0]
        instruction, context = self._parted(chat)
        private = await reading.read(session, chat, context=context)
        return None if private.fault(instruction) else instruction

    def _parted(self, chat: Chat) -> tuple[str, Chat]:
        """The instruction, and the private context that it is about."""
        if self.split == "system":
            told = [turn.content for turn in chat if turn.role == "system"]
            return "\n\n".join(told), tuple(turn for turn in chat if turn.role != "system")
        last = max((i for i, turn in enumerate(chat) if turn.role == "user"), default=None)
        if last is None:
            return "", chat
        instruction, found, rest = chat[last].content.partition(self.marker)
        if not found:
            return "", chat
        return instruction, (*chat[:last], changed(chat[last], content=rest), *chat[last + 1 :])


def _filling(chat: Chat, outline: Sequence[str]) -> Chat:
    listed = "\n".join(f"- {point}" for point in outline)
    return with_note(chat, _FILL.format(outline=listed)) if outline else chat


def _piece(parts: Sequence[Generation]) -> str:
    """What the last of `parts` adds to the answer."""
    text = parts[-1].text.strip()
    before = any(part.text.strip() for part in parts[:-1])
    return f"\n\n{text}" if before and text else text


def _joined(parts: Sequence[Generation]) -> Answer:
    text = "".join(_piece(parts[: i + 1]) for i in range(len(parts)))
    cut = any(part.finish_reason == "length" for part in parts)
    whole = Generation(
        text,
        finish_reason="length" if cut else "stop",
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        completion_tokens=sum(part.completion_tokens for part in parts),
        seconds=sum(part.seconds for part in parts),
        cpu_seconds=sum(part.cpu_seconds for part in parts),
    )
    return Answer(whole, by="both")
