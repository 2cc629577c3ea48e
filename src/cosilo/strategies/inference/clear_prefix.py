"""How many of a prompt's first tokens cross in clear: none from the first private one on.

    chat ─▶ what is private in it ─▶ the chat before the first of that ─▶ its tokens, as the prompt's
         ─▶ read again ─▶ rounded down to a grid ─▶ so many in clear, the rest in secret

In doubt all is secret: where nothing private is found, where a turn holds more than its text, and where
what would cross still looks like a private value. What the detectors miss is the leak.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import takewhile

from msgspec.structs import replace

from cosilo.engines.partial import clear_tokens
from cosilo.errors import RejectedError
from cosilo.models.base import ThreadModel
from cosilo.parties.data_owner import PrivateValue
from cosilo.strategies.base import Session
from cosilo.strategies.inference.leaving import Private, PrivateReader, identifiers
from cosilo.types import Chat, Turn

_BETWEEN = "\0"  # turns, where they are searched as one text
_OTHER = "\N{SNOWMAN}"  # than what a template writes behind a turn


async def clear_prefix(
    session: Session,
    words: ThreadModel,
    chat: Chat,
    *,
    never: Sequence[str] = (),
    instructions: Sequence[str] = (),
    grid: int,
) -> int:
    """How many of the tokens of `chat` may cross in clear.

    They begin the tokens of the chat as it is before its first private value, whatever follows, so that
    only their number depends on that.

    Args:
        never: words and phrases that are private wherever they stand, in one line or in several.
        instructions: whose lines are the task's own where they stand in a system turn: a detector takes
            labels for names, so of them only what is an identifier by its form is private, and what
            is found elsewhere, too.
        grid: the number is a multiple of it.

    Raises:
        PrivacyError: the owner's detectors cannot say what is private.
    """
    own_lines = {line.strip() for text in instructions for line in text.splitlines()}
    rest = tuple(_without(turn, own_lines) if turn.role == "system" else turn for turn in chat)
    read = await PrivateReader().read(session, rest)
    found = [*read.findings, *read.signs]
    found += [value for turn in chat for value in identifiers(turn.content)]
    said = _BETWEEN.join(turn.content for turn in chat)
    plain = all(turn == Turn(role=turn.role, content=turn.content) for turn in chat)
    plain = plain and said.count(_BETWEEN) == len(chat) - 1
    values = [finding.value for finding in found]
    own = [here for text in never if (here := _first(text, said))]
    if not (values or own) or not plain or not all(_stands(value, said) for value in values):
        return 0

    def cut(beginning: str) -> Sequence[int]:
        turns = zip(chat, beginning.split(_BETWEEN), strict=False)
        return words.prompt(tuple(replace(turn, content=content) for turn, content in turns))

    def tokens(beginning: str) -> list[int]:
        # A value may begin with what the template writes behind a turn: that is none of these.
        both = zip(cut(beginning), cut(beginning + _OTHER), strict=False)
        return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], both)]

    ids = list(words.prompt(chat))[:-1]  # two in secret, at least: the last of them is asked about
    try:
        many = clear_tokens(said, ids, [*values, *own], tokens)
    except RejectedError:  # the template takes no chat that ends there
        return 0
    private = Private([*found, *(PrivateValue(text, "OWN") for text in never)], (), verbatim=None)
    # Read before it is rounded down, as that may leave the first half of a value.
    if private.fault(spelt(words, ids[:many])):
        return 0
    return many - many % grid


def _first(phrase: str, text: str) -> str:
    """How a phrase is written where it stands first, with any space between its words; empty where it
    does not."""
    found = re.search(r"\s+".join(map(re.escape, phrase.split())), text, re.IGNORECASE)
    return found.group() if found else ""


def _without(turn: Turn, lines: Collection[str]) -> Turn:
    kept = [line for line in turn.content.splitlines() if line.strip() not in lines]
    return replace(turn, content="\n".join(kept))


def _stands(value: str, text: str) -> bool:
    """Whether it is found there as `clear_tokens` looks for it."""
    return re.search(re.escape(value.strip()), text, re.IGNORECASE) is not None


def spelt(words: ThreadModel, ids: Sequence[int]) -> str:
    """What the tokens stand for; special ones for nothing."""
    return b"".join(map(words.piece, ids)).decode("utf-8", "replace")
