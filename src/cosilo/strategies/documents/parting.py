"""Which part of a chat is a document, which stays at home, and which is the question about it.

Documents are, in the order in which they stand in the chat:

1. whatever stands between `<document>` and `</document>`, in any turn;
2. of a turn of the user or a tool that is longer than `longest` characters without these: all but the
   question. The question is the last paragraph where that is short and ends with a question mark, else
   the first where it is short and ends with a question mark or a colon, else the last where it is
   short. A turn before the last one of the user is a document whole where it has no such paragraph.

A system turn is instructions, and what the model answered before is no document, unless marked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from msgspec.structs import replace

from cosilo.errors import RejectedError
from cosilo.types import Chat, Turn

LONGEST = 1000
"""Characters of a turn that is taken for a question, where nothing in it is marked."""

_MARKED = re.compile(r"<document>(.*?)</document>", re.DOTALL | re.IGNORECASE)
_MARK = re.compile(r"</?document>", re.IGNORECASE)
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[^\W_])|\n\s*")
_QUESTION = 400
"""Characters of a paragraph that may be the question."""


@dataclass(frozen=True)
class PartedChat:
    """A chat and the documents that were taken out of it.

    Attributes:
        documents: their texts, which may be empty.
        chat: the chat with "[document 1]" and so on in their places.
        question: the last turn of the user without its documents.
    """

    documents: tuple[str, ...]
    chat: Chat
    question: str


def parted(chat: Chat, longest: int = LONGEST) -> PartedChat:
    """`chat` without its documents.

    Args:
        longest: characters of a turn without marks that is no document.

    Raises:
        RejectedError: a mark has no partner, or nothing tells where in a long turn the question is.
    """
    documents: list[str] = []
    turns: list[Turn] = []
    last = max((i for i, turn in enumerate(chat) if turn.role == "user"), default=-1)

    def take(text: str) -> str:
        documents.append(text.strip())
        return f"[document {len(documents)}]"

    for i, turn in enumerate(chat):
        text = _MARKED.sub(lambda found: take(found[1]), turn.content)
        if _MARK.search(text):
            raise _unclear("a <document> or </document> stands alone in a message")
        if text == turn.content and turn.role in ("user", "tool") and len(text) > longest:
            before, question, after = _around(text)
            if not question and i == last:
                raise _unclear(
                    "the last message is long, and no paragraph of it can be the question"
                )
            pieces = [take(before)] if before.strip() else []
            pieces += [question] if question else []
            pieces += [take(after)] if after.strip() else []
            text = "\n\n".join(pieces)
        turns.append(turn if text == turn.content else replace(turn, content=text))
    question = turns[last].content if last >= 0 else ""
    return PartedChat(tuple(documents), tuple(turns), question)


def _unclear(what: str) -> RejectedError:
    return RejectedError(
        f"{what}; put what is to stay at home between <document> and </document>",
        status=400,
        param="messages",
    )


def _around(text: str) -> tuple[str, str, str]:
    """(what stands before the question, the question, what stands behind it)."""
    gaps = [*_PARAGRAPH.finditer(text)]
    if not gaps:
        return text, "", ""
    first, rest = text[: gaps[0].start()], text[gaps[0].end() :]
    head, end = text[: gaps[-1].start()], text[gaps[-1].end() :].rstrip()
    ends = len(end) <= _QUESTION
    if ends and end.endswith("?"):
        return head, end, ""
    if len(first) <= _QUESTION and first.rstrip().endswith(("?", ":")):
        return "", first, rest
    return (head, end, "") if ends and end else (text, "", "")


def parts(text: str, words: int) -> list[str]:
    """`text` in parts of whole sentences and, as far as they fit, whole paragraphs, of at most `words`
    words each."""
    found: list[str] = []
    held: list[str] = []
    count = 0
    for piece in pieces(text, words):
        size = len(piece.split())
        if held and count + size > words:
            found.append("\n\n".join(held))
            held, count = [], 0
        held.append(piece)
        count += size
    return [*found, "\n\n".join(held)] if held else found


def pieces(text: str, words: int) -> list[str]:
    """`text` in pieces of whole sentences, of at most `words` words each; a sentence that is longer is
    cut between words. Paragraphs are not joined.
    """
    found: list[str] = []
    for paragraph in _PARAGRAPH.split(text):
        held: list[str] = []
        for sentence in _SENTENCE.split(paragraph):
            said = sentence.split()
            if held and len(held) + len(said) > words:
                found.append(" ".join(held))
                held = []
            held += said
            while len(held) > words:
                found.append(" ".join(held[:words]))
                held = held[words:]
        if held:
            found.append(" ".join(held))
    return found
