"""What strategies learn from the owner's calibration data: both models' answers, graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cosilo.errors import DataError
from cosilo.strategies.base import Session, ask
from cosilo.strategies.fanout import fan_out
from cosilo.types import Demonstration, Generation


@dataclass(frozen=True)
class Graded:
    """One calibration example with a model's reply and its grade, 0 to 1."""

    example: Demonstration
    reply: Generation
    grade: float


def calibration(session: Session, *, by: str, least: int = 2) -> tuple[Demonstration, ...]:
    """The owner's calibration data.

    Raises:
        DataError: fewer than `least` examples.
    """
    found = session.owner.calibration
    if len(found) < least:
        raise DataError(
            f"{by} is calibrated on the 'tune' split, which holds {len(found)} items; "
            f"at least {least} are needed"
        )
    return found


async def small_answers(session: Session, examples: Sequence[Demonstration]) -> list[Graded]:
    """The small model's graded replies; nothing crosses."""
    model, sampling = session.owner.model, session.sampling
    replies = await fan_out(lambda e: model.generate(e.chat, sampling), examples, concurrency=256)
    return _graded(session, examples, replies)


async def large_answers(session: Session, examples: Sequence[Demonstration]) -> list[Graded]:
    """The LM's graded replies, each crossing bound to its example."""

    async def one(example: Demonstration) -> Generation:
        return (await ask(session.bind(f"tune/{example.id}"), example.chat)).generation

    return _graded(session, examples, await fan_out(one, examples))


def _graded(
    session: Session, examples: Sequence[Demonstration], replies: Sequence[Generation]
) -> list[Graded]:
    grade = session.owner.grade
    return [Graded(e, r, grade(e, r.text)) for e, r in zip(examples, replies, strict=True)]
