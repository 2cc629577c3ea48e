"""Reading the record as an attacker does: texts that went up, replies that came down."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

from cosilo.attacks.base import View
from cosilo.attacks.threads import ThreadReader
from cosilo.boundary.messages import Message, Verified
from cosilo.boundary.messages.passages import JSON

VERIFIED = Verified.__name__


def texts(message: Message) -> list[str]:
    """Every piece of text in `message`, as it crossed; labels apart: every label goes with every item
    and tells nothing of this one."""
    found: list[str] = []
    for passage in message.passages():
        if passage.what in JSON:
            found += _json(passage.text)
        elif passage.what != "label" and passage.text:
            found.append(passage.text)
    return found


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


def upstream(view: View) -> Iterator[tuple[str, list[str]]]:
    """(request, texts) of every message that went to the LM's owner, in order; then what the steps of
    each thread said together.

    Raises:
        StoreError: the record holds digests only, or token ids.
    """
    threads = ThreadReader()
    for entry in view.entries():
        if entry.direction == "up":
            threads.note(entry.request, entry.message)
            yield entry.request, texts(entry.message)
        elif entry.kind == VERIFIED:
            threads.note(entry.request, entry.message)
    yield from threads.whole().items()


def spoken(view: View, only: Collection[str] | None = None) -> dict[str, str]:
    """What each request said that most others did not: request → its texts, joined.

    Args:
        only: the requests to read; all of them when None. The memory it takes goes by these.

    A system prompt or a worked example that stands in more than half of the requests tells the
    attacker nothing about any one of them.
    """
    found: dict[str, dict[str, None]] = {}
    threads = ThreadReader()
    for entry in view.entries():
        if only is not None and entry.request not in only:
            continue
        if entry.kind == VERIFIED:
            threads.note(entry.request, entry.message)
        if entry.direction == "up":
            threads.note(entry.request, entry.message)
            found.setdefault(entry.request, {}).update(dict.fromkeys(texts(entry.message)))
    for request, said in threads.whole().items():
        found[request].update(dict.fromkeys(said))
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
        if entry.direction == "down" and _in_words(entry.message)
    }


def _in_words(message: Message) -> bool:
    return message.replaceable or bool(message.passages())
