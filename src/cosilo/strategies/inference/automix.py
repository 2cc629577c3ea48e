"""The small model checks its own answer before the large one is asked.

    chat ─▶ small model: an answer ─▶ small model: "is it right?" ─▶ P(yes) ≥ threshold ─▶ the answer
                                                                  └▶ below: ask the LM

Aggarwal et al., "AutoMix: Automatically Mixing Language Models" (arXiv 2310.12963). A confidence is
what a model gave its words while it wrote them; a check reads question and answer again and may know
better, of long answers above all, whose words are many ways to say one thing. The paper draws several
yes or no at a temperature and takes their share; a model that shows probabilities gives that share at
once. What is decided from it (a share of calls, the best mean grade, a promise) is as in `cascade`, in
place of the paper's POMDP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from cosilo.reasoning import spoken
from cosilo.strategies.base import Session, strategies
from cosilo.strategies.confidence import plausibility
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.cascade import Cascade
from cosilo.types import Chat, Generation, Sampling, Turn

ANSWERS = ("yes", "no")

QUESTION = "Is this answer to the request above right and complete? Reply with yes or no."


@strategies.register("automix")
@dataclass(frozen=True, kw_only=True)
class Automix(Cascade):
    """The small model answers when its own check finds the answer right, the large one otherwise.

    Attributes:
        threshold: the probability of "right" below which the LM is asked, 0 to 1. Unset: chosen in
            `prepare`.
        question: what the small model is asked about its answer; it replies with yes or no.
    """

    question: str = QUESTION

    guide: ClassVar[Guide] = Guide(
        crosses=(
            "the questions whose answer the small model's own check doubts; the tune items, to set "
            "its threshold"
        ),
        choose=(
            "answers are long or the small model is always confident, and it judges better than it "
            "writes"
        ),
    )

    _name: ClassVar[str] = "automix"
    _of: ClassVar[str] = "check"

    async def _sure(self, session: Session, chat: Chat, draft: Generation) -> float:
        if not draft.text.strip() and not draft.tool_calls:
            return 0.0
        asked = (*chat, Turn("assistant", spoken(draft.text)), Turn("user", self.question))
        check = await session.owner.model.generate(asked, Sampling(max_tokens=4, choices=ANSWERS))
        return agreed(check)


def agreed(check: Generation) -> float:
    """The probability of yes against no in a reply to the check, 0 to 1; 0 where it says neither."""
    likely = [plausibility(check, answer) for answer in ANSWERS]
    if None not in likely and sum(likely) > 0:  # type: ignore[arg-type]
        return likely[0] / sum(likely)  # type: ignore[arg-type, operator]
    said = spoken(check.text).strip().casefold()
    own = 1.0 if check.logprob is None else math.exp(check.logprob)
    if said.startswith("yes"):
        return own
    return 1 - own if said.startswith("no") else 0.0
