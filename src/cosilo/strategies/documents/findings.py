"""What was found in documents: what of it may leave, and how the large model is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from cosilo.strategies.documents.share import ShareMeter
from cosilo.types import Chat, Turn

VERSION = 2


@dataclass(frozen=True)
class Finding:
    """Attributes:
    document: the number of the document that it was found in, from 0.
    """

    document: int
    text: str


async def admitted(
    meter: ShareMeter, documents: Sequence[str], found: Sequence[Finding]
) -> list[Finding]:
    """Of `found`, what may leave, and counts as sent from now on; where a whole finding may not, its
    beginning.

    Raises:
        StoreError: what has left cannot be kept.
    """

    def admit() -> list[Finding]:
        kept = []
        for each in found:
            for text in _shorter(each.text):
                if meter.admit(documents, each.document, text):
                    kept.append(Finding(each.document, text))
                    break
        return kept

    return await asyncio.to_thread(admit)


def _shorter(text: str) -> Iterator[str]:
    """`text`, and its beginnings of half as many words each time, down to five."""
    yield text
    words = text.split()
    while len(words) >= 10:
        words = words[: len(words) // 2]
        yield " ".join(words)


def typed(chat: Chat) -> str:
    """What the user and tools say in `chat`, and its instructions."""
    return "\n\n".join(turn.content for turn in chat if turn.role != "assistant" and turn.content)


def listed(findings: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in findings)


def in_place(chat: Chat, documents: int, findings: Sequence[Finding]) -> Chat:
    """`chat`, as `parted` leaves it, with what was found where the documents stood: so what is to be
    done still stands where its user wrote it, which a weak model needs."""
    for number in range(documents):
        found = [each.text for each in findings if each.document == number]
        said = f"(document {number + 1} is not shown, and nothing was found in it)"
        if found:
            said = (
                f"Found in document {number + 1}, which is not shown as a whole:\n{listed(found)}"
            )
        mark = f"[document {number + 1}]"
        at = next(i for i, turn in enumerate(chat) if mark in turn.content)
        told = replace(chat[at], content=chat[at].content.replace(mark, said, 1))
        chat = (*chat[:at], told, *chat[at + 1 :])
    return chat


def in_front(chat: Chat, findings: Sequence[Finding]) -> Chat:
    """`chat` with `findings` in front of the last turn of the user."""
    said = "Nothing was found in the documents."
    if findings:
        said = f"Found in the documents:\n{listed([each.text for each in findings])}"
    last = max((i for i, turn in enumerate(chat) if turn.role == "user"), default=None)
    if last is None:
        return (*chat, Turn("user", said))
    told = replace(chat[last], content=f"{said}\n\n{chat[last].content}")
    return (*chat[:last], told, *chat[last + 1 :])
