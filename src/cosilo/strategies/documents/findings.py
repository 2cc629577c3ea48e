"""What was found in documents: what of it may leave, and how the large model is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from cosilo.strategies.documents.share import ShareMeter
from cosilo.types import Chat, Turn


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


def with_findings(
    chat: Chat, findings: Sequence[str], about: str = "The documents themselves are not shown."
) -> Chat:
    """`chat`, the last turn of the user ending with `about` and `findings`."""
    what = (
        f"Found in the documents:\n{listed(findings)}" if findings else "Nothing was found in them."
    )
    if not about and not findings:
        what = "Nothing was found in the documents."
    said = f"{about} {what}".strip()
    last = max((i for i, turn in enumerate(chat) if turn.role == "user"), default=None)
    if last is None:
        return (*chat, Turn("user", said))
    told = replace(chat[last], content=f"{chat[last].content}\n\n{said}")
    return (*chat[:last], told, *chat[last + 1 :])
