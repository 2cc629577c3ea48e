"""The small model writes something for the other side, which is read before it leaves.

task ──▶ SM ──▶ read ──▶ fault? ──no──▶ what was written
                           └─ yes: once more, told what was wrong ──▶ fault? ──▶ None
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from cosilo.errors import PrivacyError
from cosilo.reasoning import spoken
from cosilo.strategies.base import Session
from cosilo.strategies.inference.leaving import runs
from cosilo.types import Chat, Sampling, Turn, last_user

Texts = tuple[str, ...]

Otherwise = Literal["refuse", "small"]
"""Where nothing may leave: the question is refused, or the small model answers alone."""

_AGAIN = (
    "That may not be sent, because {fault}. Write it again in general words: no names, no places, no "
    "numbers, nothing copied."
)
_WARMER = 0.7
"""The temperature of the second try: at 0 a small model writes the same again."""

_OWN = 7  # words of ours in a row that a reply may hold

_BULLET = re.compile(r"^\s*(?:[-*•–]+|\(?\d{1,3}[.):]|\w{1,12} \d{1,3}:)\s*")
_INTRODUCES = re.compile(
    r"\A(?:sure|certainly|of course|here|okay|ok|the (?:new|rewritten)|rewritten|question|request|"
    r"answer)\b[^\n]{0,120}?:\s*",
    re.I,
)


async def written(
    session: Session,
    task: Chat,
    instruction: str,
    read: Callable[[str], Texts],
    fault: Callable[[Texts], str],
    *,
    longest: int,
) -> tuple[Texts, Texts | None]:
    """What the small model wrote first, and what of its writing may leave; None where nothing may.

    Args:
        task: what it is told.
        instruction: our own words in it; a reply that repeats them is none.
        read: from its reply to what is sent.
        fault: why that may not be sent, without a word of it; empty where it may.
        longest: tokens of its reply.
    """
    sampling = Sampling(max_tokens=longest, seed=session.sampling.seed)
    reply = spoken((await session.owner.model.generate(task, sampling)).text)
    first = read(reply)
    own = runs(instruction, _OWN) | runs(_AGAIN, _OWN)

    def doubt(texts: Texts) -> str:
        if any(not own.isdisjoint(runs(text, _OWN)) for text in texts):
            return "it repeats what was asked"
        return fault(texts)

    wrong = doubt(first)
    if not wrong:
        return first, first
    told = (*task, Turn("assistant", reply), Turn("user", _AGAIN.format(fault=wrong)))
    warmer = Sampling(max_tokens=longest, temperature=_WARMER, seed=session.sampling.seed)
    second = read(spoken((await session.owner.model.generate(told, warmer)).text))
    return first, None if doubt(second) else second


def held_back(by: str, otherwise: Otherwise) -> None:
    """Nothing may leave for this question.

    Raises:
        PrivacyError: then it is refused.
    """
    if otherwise == "refuse":
        raise PrivacyError(
            f"{by}: what the small model wrote for the large one was held back, because it may hold "
            'something private; nothing was sent (otherwise = "small" answers such a question at home)'
        )


def original_of(chat: Chat) -> str:
    """What is asked, as one text: the last turn alone, or the whole conversation, who said what."""
    if all(turn.role in ("system", "user") for turn in chat) and (
        sum(turn.role == "user" for turn in chat) == 1
    ):
        return "\n\n".join(turn.content for turn in chat if turn.content)
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in chat if turn.content)


def one_text(reply: str) -> str:
    """A reply that is one text, without what introduces it and quotation marks around it."""
    text = _INTRODUCES.sub("", reply.strip(), count=1).strip()
    if len(text) > 1 and (text[0], text[-1]) in (('"', '"'), ("“", "”"), ("'", "'")):
        text = text[1:-1].strip()
    return text


def lines(reply: str) -> tuple[str, ...]:
    """The lines of a reply that is a list, each once, without their bullets and numbers."""
    found = (one_text(_BULLET.sub("", line)) for line in reply.strip().splitlines())
    return tuple(dict.fromkeys(line for line in found if line))


def with_note(chat: Chat, note: str) -> Chat:
    """`chat` with `note` at the end of its last user turn."""
    last = max((i for i, turn in enumerate(chat) if turn.role == "user"), default=None)
    if last is None:
        return (*chat, Turn("user", note))
    turn = Turn("user", f"{last_user(chat)}\n\n{note}", name=chat[last].name)
    return (*chat[:last], turn, *chat[last + 1 :])
