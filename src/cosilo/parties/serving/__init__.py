"""How an LM's owner answers: a handler for each class of requests.

    @serves(Score)
    async def score(owner: Owner, message: Score) -> Scores: ...

What is imported here is served by every owner that shows what the message needs; a plug-in adds its own
in the same way.
"""

from __future__ import annotations

from cosilo.parties.serving import (  # noqa: F401  they register themselves
    ask,
    embed,
    encrypted,
    federate,
    forget,
    forward,
    joint,
    lend,
    read,
    score,
    step,
    tune,
    verify,
)
from cosilo.parties.serving.base import Owner, answer, pieces, serves, serves_stream

__all__ = ["Owner", "answer", "pieces", "serves", "serves_stream"]
