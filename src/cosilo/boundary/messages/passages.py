"""The texts of a message, one by one, each with what it is: what is read of it, and what may be
replaced in it, goes by that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from cosilo.types import Chat, OtherTexts, Role, ToolCall, Turn, Value

What = Literal[
    "said", "aside", "name", "id", "arguments", "sealed", "tools", "form", "stop", "label", "word"
]
"""What a text is:

* `said`: what somebody says; `aside`: what is said beside it (a refusal, what a model thought);
* `name`: who says it; `id`: what a call and its result are known by;
* `arguments`: JSON that a tool is called with, or that a further field of a request holds;
* `sealed`: JSON that the LM's owner wants back, of which signatures are of use only as they are;
* `tools`: JSON of what may be called; `form`: JSON of the form a reply must have;
* `stop`: a text at which a reply ends;
* `label`: one of a closed set of answers, which go with every request and tell nothing of this one;
* `word`: a name that the application gave, such as a tool's.
"""

JSON: frozenset[What] = frozenset({"arguments", "sealed", "tools", "form"})
"""Texts that are written as JSON; one that is no valid JSON is read as it stands."""


class Passage(Value, frozen=True):
    """A text in a message. `by` is the role of the turn that it stands in, where it stands in one."""

    text: str
    what: What = "said"
    by: Role | None = None


Change = Callable[[Passage], str]
"""What to say in the place of a passage."""


def in_order(chat: Chat) -> list[Passage]:
    """The texts of `chat`."""
    found: list[Passage] = []

    def note(passage: Passage) -> str:
        found.append(passage)
        return passage.text

    in_chat(chat, note)
    return found


def in_chat(chat: Chat, change: Change) -> Chat:
    """`chat` with each of its texts changed, turn by turn."""
    return tuple(_in_turn(turn, change) for turn in chat)


def _in_turn(turn: Turn, change: Change) -> Turn:
    def at(text: str, what: What) -> str:
        return change(Passage(text, what, turn.role)) if text else text

    calls = turn.tool_calls and tuple(_in_call(call, change, turn.role) for call in turn.tool_calls)
    return msgspec.structs.replace(
        turn,
        tool_calls=calls,
        content=at(turn.content, "said"),
        # A tool's name is the application's; the name of somebody who speaks is not.
        name=at(turn.name, "word" if turn.role == "tool" else "name"),
        tool_call_id=at(turn.tool_call_id, "id"),
        other_texts=in_asides(turn.other_texts, change, turn.role),
        extra=at(turn.extra, "sealed"),
    )


def _in_call(call: ToolCall, change: Change, by: Role) -> ToolCall:
    def at(text: str, what: What) -> str:
        return change(Passage(text, what, by)) if text else text

    return msgspec.structs.replace(
        call,
        id=at(call.id, "id"),
        name=at(call.name, "word"),
        arguments=at(call.arguments, "arguments"),
        extra=at(call.extra, "sealed"),
    )


def in_asides(texts: OtherTexts, change: Change, by: Role | None = None) -> OtherTexts:
    """What is said beside the content, changed."""
    return texts and tuple((name, change(Passage(text, "aside", by))) for name, text in texts)
