"""Answers the items of one split, many at once, each committed as soon as it is there.

An item that a guard, its budget, the endpoint or the small model refuses for good (a text no detector
can read, a prompt that is too long for a model) counts as answered wrongly, and the report counts it:
leaving it out would flatter the point. But a wrong key or a broken endpoint refuses every item. So
refusals are held back until the LM answers one; when `HOPELESS` come in a row, the first is raised and
none is kept. What the small model refuses says nothing of the LM: it is held back until the small model
answers one, which costs nothing, however many it refuses before.

Where replies are tampered with, one that cannot be a reply is a lie that was noticed: the item has no
answer, and is flagged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from cosilo.attacks.tampering import Tampering
from cosilo.benchmark.replies import faults
from cosilo.benchmark.small import Note, noted, noting
from cosilo.boundary.messages import Ask, Message
from cosilo.boundary.meter import Budget
from cosilo.clock import Clock, timed
from cosilo.errors import (
    CosiloError,
    PrivacyError,
    RejectedError,
    RequestBudgetError,
    UnexpectedReplyError,
)
from cosilo.objectives.base import Item
from cosilo.strategies.base import Session, Strategy
from cosilo.tasks.base import Example, Task
from cosilo.types import Answer, Delta, Generation

HOPELESS = 5

_Refused = tuple[Item, CosiloError]
Commit = Callable[[Sequence[tuple[Item, str]]], None]


@dataclass
class Answering:
    """One strategy over one split.

    Attributes:
        name: what the items' crossings are bound under: `name/id`.
        commit: keeps answered items, each with why it was refused (empty: it was not).
        proved: the LM has answered items of this trial before.
        tried: items of this trial were answered before, with the small model as it is now.
        budget: of each item.
    """

    task: Task
    strategy: Strategy
    session: Session
    name: str
    commit: Commit
    concurrency: int = 8
    proved: bool = False
    budget: Budget | None = None
    tried: bool = False

    async def run(self, examples: Sequence[Example]) -> None:
        """Answer all `examples`.

        What is under way when one fails is still finished and kept: it may be paid for already.

        Raises:
            CosiloError: the first failure that is not a refusal of one item.
        """
        self._held: list[_Refused] = []  # by the LM's side
        self._too_much: list[_Refused] = []  # for the small model
        self._failure: Exception | None = None
        left = iter(examples)

        async def work() -> None:
            for example in left:
                if self._failure is not None:
                    return
                try:
                    await self._one(example)
                except Exception as error:
                    self._failure = self._failure or error

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.concurrency, len(examples))):
                group.create_task(work())
        if self._failure is not None:
            raise self._failure
        if self._held and not self.proved:
            raise self._held[0][1]
        if self._too_much and not self.tried:
            raise self._too_much[0][1]
        self._release(self._held)
        self._release(self._too_much)

    async def _one(self, example: Example) -> None:
        session = self.session.bind(f"{self.name}/{example.id}", budget=self.budget)
        with noting(example.chat) as note:
            try:
                item = await answer_item(self.task, self.strategy, session, example, note)
            except UnexpectedReplyError:
                if not note.lied:
                    raise
                item = _nothing(example, suspect=True)
            except (PrivacyError, RejectedError, RequestBudgetError) as refusal:
                if isinstance(refusal, RejectedError) and refusal.everything:
                    raise
                self._hold(_nothing(example), refusal, small=refusal is note.refusal)
                return
        if session.totals.messages:
            self.proved = True
            self._release(self._held)
        if note.answered:
            self.tried = True
            self._release(self._too_much)
        self.commit([(item, "")])

    def _hold(self, item: Item, refusal: CosiloError, *, small: bool) -> None:
        if small:
            self._too_much.append((item, refusal))
            return
        self._held.append((item, refusal))
        if len(self._held) >= HOPELESS:
            raise self._held[0][1]

    def _release(self, held: list[_Refused]) -> None:
        if held:
            self.commit([(item, type(refusal).__name__) for item, refusal in held])
            held.clear()


async def answer_item(
    task: Task, strategy: Strategy, session: Session, example: Example, note: Note
) -> Item:
    """`example` answered and graded, over a session bound to it.

    Args:
        note: where to note what the small model does for this item.
    """
    clock = Clock()
    answer = await timed(strategy.answer(session, example.chat), clock)
    return Item(
        example=example,
        answer=answer,
        grade=task.grade(example, answer.text),
        seconds=clock.seconds + note.clock.seconds,
        cpu_seconds=clock.cpu_seconds + note.clock.cpu_seconds,
        small_text=note.text,
        faults=faults(task, example, answer.generation),
    )


def _nothing(example: Example, *, suspect: bool = False) -> Item:
    nothing = Generation("", finish_reason="content_filter")
    return Item(example, Answer(nothing, by="both", suspect=suspect), grade=0.0)


@dataclass(frozen=True)
class Lying:
    """A party that changes replies, each noted for the item that it is about."""

    party: Tampering

    async def handle(self, message: Message) -> Message:
        self._note(message)
        return await self.party.handle(message)

    def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        self._note(ask)
        return self.party.handle_stream(ask)

    def _note(self, message: Message) -> None:
        note = noted()
        if note is not None and self.party.changes(message):
            note.lied = True
