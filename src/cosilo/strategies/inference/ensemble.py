"""Ask several large models, each of another owner, and answer what most of them say.

    chat ─▶ a ─▶ "refund"  ┐
         ─▶ b ─▶ "Refund." ├─▶ "refund", as 2 of 3 say
         ─▶ c ─▶ "billing" ┘

Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models" (arXiv
2203.11171), take the majority of one model's samples; here each vote is another model's. Every owner is
sent the same whole chat and learns of it what the only one would: more of them may answer better, and
never more privately.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages import Ask
from cosilo.labels import named
from cosilo.reasoning import spoken
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.guide import Guide
from cosilo.types import Answer, Chat, Generation

VERSION = 1

_Vote = tuple[str, ...]


@strategies.register("ensemble")
@dataclass(frozen=True)
class Ensemble:
    """All large models of the point (`peers`) are asked at once, and what most of them say is answered.

    With a closed set of answers a reply is a vote for the one that it names; else for its text, spaces
    and capitals aside, and the tools it calls. A reply that names none, or is empty, is no vote. Of
    answers with as many votes that of the earliest model in the plan is taken, in that model's words.
    The confidence is the share of the models that agree. When one cannot be asked, nothing is
    answered.
    """

    guide: ClassVar[Guide] = Guide(
        crosses="every question, to each of the LMs' owners",
        choose=(
            "several LMs may be asked, and it matters to know when an answer is in doubt or one "
            "of them lies"
        ),
    )

    needs: ClassVar[Needs] = Needs(sends=frozenset({Ask}), peers=2, every=True)

    def forecast(self) -> Forecast:
        return (Expected("answers", plain=True, to="each"),)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        return self, session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        ask = Ask(chat=chat, sampling=session.sampling)

        async def reply(peer: Channel) -> Generation:
            return (await peer.send(ask)).generation

        peers = list(session.peers.values())
        replies = await fan_out(reply, peers, concurrency=len(peers))
        chosen, agree = most_agreed(replies, session.sampling.choices)
        return Answer(replies[chosen], by="large", confidence=agree / len(replies))


def most_agreed(replies: Sequence[Generation], choices: Sequence[str] = ()) -> tuple[int, int]:
    """The place of the reply to answer with, and how many of `replies` agree with it.

    Args:
        choices: the closed set of answers, where there is one.
    """
    votes = [_vote(reply, choices) for reply in replies]
    count = Counter(vote for vote in votes if vote is not None)
    if not count:
        return 0, 0
    most = max(count.values())
    return next((at, most) for at, vote in enumerate(votes) if vote and count[vote] == most)


def _vote(reply: Generation, choices: Sequence[str]) -> _Vote | None:
    """What `reply` says, in a form that is the same for two that say the same; None for no answer."""
    text = spoken(reply.text)
    if choices:
        label = named(text, choices)
        return None if label is None else (label,)
    said = " ".join(unicodedata.normalize("NFKC", text).split()).casefold()
    calls = [part for call in reply.tool_calls for part in (call.name, call.arguments)]
    return (said, *calls) if said or calls else None
