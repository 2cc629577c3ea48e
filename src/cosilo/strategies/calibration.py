"""What strategies learn from the owner's calibration data: both models' answers, graded.

An example that a model or a guard refuses for good counts as answered wrongly, as an item does: leaving
it out would flatter the model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cosilo.errors import CosiloError, DataError, PrivacyError, RejectedError
from cosilo.strategies.base import Session, ask
from cosilo.strategies.fanout import fan_out
from cosilo.types import Demonstration, Generation


@dataclass(frozen=True)
class GradedReply:
    """One calibration example with a model's reply and its grade, 0 to 1.

    `refused`: there was no reply; the one that stands here is empty.
    """

    example: Demonstration
    reply: Generation
    grade: float
    refused: bool = False


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


async def small_answers(session: Session, examples: Sequence[Demonstration]) -> list[GradedReply]:
    """The small model's graded replies; nothing crosses.

    Raises:
        CosiloError: what is no refusal of one example, or the first refusal where all were refused.
    """
    model, sampling = session.owner.model, session.sampling

    def one(example: Demonstration) -> Awaitable[Generation]:
        return model.generate(example.chat, sampling)

    return await _graded(session, examples, one, concurrency=256)


async def large_answers(
    session: Session, examples: Sequence[Demonstration], *, adapter: str = ""
) -> list[GradedReply]:
    """The LM's graded replies, each crossing bound to its example; with an adapter, where one is named.

    Raises:
        CosiloError: what is no refusal of one example, or the first refusal where all were refused.
    """

    async def one(example: Demonstration) -> Generation:
        bound = session.bind(f"tune/{example.id}")
        return (await ask(bound, example.chat, adapter=adapter)).generation

    return await _graded(session, examples, one, concurrency=8)


async def _graded(
    session: Session,
    examples: Sequence[Demonstration],
    reply: Callable[[Demonstration], Awaitable[Generation]],
    *,
    concurrency: int,
) -> list[GradedReply]:
    refusals: list[CosiloError] = []

    async def one(example: Demonstration) -> GradedReply:
        try:
            found = await reply(example)
        except (PrivacyError, RejectedError) as refusal:
            if isinstance(refusal, RejectedError) and refusal.everything:
                raise
            refusals.append(refusal)
            empty = Generation("", finish_reason="content_filter")
            return GradedReply(example, empty, 0.0, refused=True)
        return GradedReply(example, found, session.owner.grade(example, found.text))

    graded = await fan_out(one, examples, concurrency=concurrency)
    if refusals and len(refusals) == len(examples):
        raise refusals[0]
    return graded
