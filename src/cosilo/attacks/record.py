"""Reading the record as an attacker does: texts that went up, replies that came down."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

import msgspec

from cosilo.attacks.base import View
from cosilo.boundary.messages import Ask, Completion, Message, Score, Scores, States
from cosilo.types import Chat

_NUMBERS = (Scores, States)
"""Replies that hold no text of their own."""


def texts(message: Message) -> list[str]:
    """Every piece of text in `message`, as it crossed."""
    if isinstance(message, Ask):
        asked = message.sampling
        found = [*_spoken(message.chat), *_json(asked.tools), *_json(asked.response_format)]
        # Not the choices: every label goes with every item and tells nothing of this one.
        found += [asked.tool_choice, *asked.stop]
        return [text for text in found if text]
    if isinstance(message, Score):
        found = [text for i in message.items for text in (*_spoken(i.chat), i.reply)]
        return [text for text in found if text]
    if isinstance(message, _NUMBERS):
        return []  # numbers, about a text that went up
    if isinstance(message, Completion):
        reply = message.generation
        calls = [text for call in reply.tool_calls for text in (call.arguments, call.extra)]
        others = [text for _, text in reply.other_texts]
        return [text for text in (reply.text, *calls, *others, reply.extra) if text]
    return list(_strings(msgspec.to_builtins(message)))


def _spoken(chat: Chat) -> list[str]:
    calls = [call for turn in chat for call in turn.tool_calls]
    found = [*(turn.content for turn in chat), *(turn.name for turn in chat)]
    found += [text for call in calls for text in (*_json(call.arguments), call.id, call.name)]
    found += [text for turn in chat for _, text in turn.other_texts]
    extras = [*(turn.extra for turn in chat), *(call.extra for call in calls)]
    found += [text for extra in extras for text in _json(extra)]
    answered = {call.id for call in calls}
    return found + [turn.tool_call_id for turn in chat if turn.tool_call_id not in answered]


def _json(text: str) -> list[str]:
    """`text`, and what its strings say where they are written with escapes."""
    if "\\" not in text:
        return [text]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return [text, "\n".join(_said(value))]


def _said(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _said(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _said(inner)
    else:
        yield str(value)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "message":  # the tag that names the class
                yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def upstream(view: View) -> Iterator[tuple[str, list[str]]]:
    """(request, texts) of every message that went to the LM's owner, in order.

    Raises:
        StoreError: the record holds digests only.
    """
    for entry in view.entries():
        if entry.direction == "up":
            yield entry.request, texts(entry.message)


def spoken(view: View, only: Collection[str] | None = None) -> dict[str, str]:
    """What each request said that most others did not: request → its texts, joined.

    Args:
        only: the requests to read; all of them when None. The memory it takes goes by these.

    A system prompt or a worked example that stands in more than half of the requests tells the
    attacker nothing about any one of them.
    """
    found: dict[str, dict[str, None]] = {}
    for entry in view.entries():
        if entry.direction == "up" and (only is None or entry.request in only):
            found.setdefault(entry.request, {}).update(dict.fromkeys(texts(entry.message)))
    seen: dict[str, int] = {}
    for pieces_of in found.values():
        for piece in pieces_of:
            seen[piece] = seen.get(piece, 0) + 1
    common = {piece for piece, count in seen.items() if count > 2 and 2 * count > len(found)}
    return {
        request: "\n".join(piece for piece in pieces_of if piece not in common)
        for request, pieces_of in found.items()
    }


def replies(view: View) -> dict[str, str]:
    """The LM's last reply to each request that it answered in words."""
    return {
        entry.request: "\n".join(texts(entry.message))
        for entry in view.entries()
        if entry.direction == "down" and not isinstance(entry.message, _NUMBERS)
    }
