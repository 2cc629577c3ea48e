"""Upper bounds on what a text costs before anybody has cut it into tokens."""

from __future__ import annotations

from cosilo.types import Chat

TURN = 8
"""Tokens that a template puts around a turn, or a call in it."""

TEMPLATE = 128
"""Tokens of a chat's template beside its turns: some begin with instructions and a date."""

FORMS = 512
"""Tokens that explain to a model how tools are called, or a form is filled."""

LONGEST_TOKEN = 128
"""Bytes of a vocabulary's longest words, runs of spaces mostly."""

FIELDS = 1024
"""Bytes of a reply besides what was written: names, numbers, the ids of calls."""


def prompt_bound(chat: Chat, more: int) -> int:
    """Most tokens in `chat` and `more` bytes beside it."""
    # Byte-level tokenisers emit at most one token per byte, and come close to it on digits.
    size = more + TEMPLATE
    for turn in chat:
        size += TURN + in_utf8(turn.content)
        if turn.name or turn.tool_call_id or turn.extra:
            size += in_utf8(turn.name) + in_utf8(turn.tool_call_id) + in_utf8(turn.extra)
        for call in turn.tool_calls:
            size += TURN + in_utf8(call.id) + in_utf8(call.name)
            size += in_utf8(call.arguments) + in_utf8(call.extra)
        for _, text in turn.other_texts:
            size += in_utf8(text)
    return size


def in_utf8(text: str) -> int:
    """How many `text` has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
