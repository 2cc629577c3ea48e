"""Whether the LM's replies can be read at all.

A reply may be cut off at its limit of tokens, say nothing, or hold no answer of the task's kind. A
model that reasons before it answers can spend all its tokens on that; every reply is then paid for,
and the point scores 0 %. So a point whose first replies are mostly of this sort stops before more is
paid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from cosilo.boundary.channel import Handler
from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.defences.base import Defence
from cosilo.errors import UnreadableError
from cosilo.reasoning import spoken
from cosilo.tasks.base import SPLITS, Example, Task
from cosilo.types import Generation

FIRST = 20
"""How many of a point's replies are looked at before the rest is asked for."""

REASONING = 2000
"""Tokens to think of that are advised where none are allowed yet."""


def faults(task: Task, example: Example | None, reply: Generation) -> tuple[str, ...]:
    """What is amiss with a reply: "cut" off at its limit of tokens, and "empty" or "unreadable".

    Args:
        example: what was asked about; None where it was another question than the task's own, so that
            nobody knows what an answer to it looks like.
    """
    found = ["cut"] if reply.finish_reason == "length" else []
    if reply.tool_calls:
        return tuple(found)
    if not spoken(reply.text).strip():
        found.append("empty")
    elif example is not None and not task.readable(example, reply.text):
        found.append("unreadable")
    return tuple(found)


class Replies(Defence):
    """Lets everything pass, and stops a point when most of its first `FIRST` replies hold no answer.

    Args:
        most: the share of them that may hold none; 1 stops nothing.
        allowed: tokens that the LM may think of before it answers.
        seen, before: replies that earlier processes got for this point, and their faults.
    """

    def __init__(
        self,
        task: Task,
        *,
        most: float,
        allowed: int = 0,
        seen: int = 0,
        before: Mapping[str, int] | None = None,
    ) -> None:
        self._task = task
        self._most = most
        self._allowed = allowed
        self._seen = seen
        self._faults = Counter(before or {})
        self._examples = {e.id: e for examples in task.splits.values() for e in examples}

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
        """Send on and look at what comes back.

        Raises:
            UnreadableError: most of the first replies hold no answer.
        """
        if self._seen >= FIRST:
            self._judge()
        reply = await forward(message)
        if isinstance(message, Ask) and isinstance(reply, Completion) and self._seen < FIRST:
            self._seen += 1
            self._faults.update(faults(self._task, self._asked(message, request), reply.generation))
            if self._seen == FIRST:
                self._judge()
        return reply

    def _asked(self, ask: Ask, request: str) -> Example | None:
        """The example whose answer the reply to `ask` is meant to be."""
        kind, _, id = request.partition("/")
        example = self._examples.get(id)
        answers = example is not None and (kind in SPLITS or ask.chat == example.chat)
        return example if answers else None

    def _judge(self) -> None:
        none = self._faults["empty"] + self._faults["unreadable"]
        if none <= self._most * self._seen:
            return
        kinds = ("cut", "cut off at their limit of tokens"), ("empty", "empty")
        what = ", ".join(f"{self._faults[k]} {said}" for k, said in kinds if self._faults[k])
        raise UnreadableError(
            f"{none} of the first {self._seen} replies of the large model hold no answer"
            + (f" ({what})" if what else "")
            + f", so no more is asked. {self._advice()} `unreadable = 1` in the plan goes on all the "
            "same."
        )

    def _advice(self) -> str:
        if self._allowed:
            more = f"reasoning = {2 * self._allowed} (now {self._allowed})"
        else:
            more = f"reasoning = {REASONING}"
        if self._faults["cut"] or self._faults["empty"]:
            return (
                f"If it reasons before it answers, give it room: {more} in [models.large], in tokens "
                "on top of the answer's; if its answers are long, raise max_tokens where the task has "
                "it."
            )
        return "Say in the task's instructions what form an answer must have."
