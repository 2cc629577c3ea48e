"""Which replies say the same, and what most of them say."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from cosilo.labels import named
from cosilo.reasoning import spoken
from cosilo.types import Generation

Vote = tuple[str, ...]
"""What a reply says, in a form that is the same for two that say the same."""


def most_agreed(replies: Sequence[Generation], choices: Sequence[str] = ()) -> tuple[int, int]:
    """The place of the reply to answer with, and how many of `replies` agree with it.

    Args:
        choices: the closed set of answers, where there is one.
    """
    forms = distinct(replies, choices)
    if not forms:
        return 0, 0
    most = max(forms.values(), key=len)  # of those with as many the one that is said first
    return most[0], len(most)


def vote(reply: Generation, choices: Sequence[str]) -> Vote | None:
    """What `reply` says, in a form that is the same for two that say the same; None for no answer."""
    text = spoken(reply.text)
    if choices:
        label = named(text, choices)
        return None if label is None else (label,)
    said = " ".join(unicodedata.normalize("NFKC", text).split()).casefold()
    calls = [part for call in reply.tool_calls for part in (call.name, call.arguments)]
    return (said, *calls) if said or calls else None


def distinct(replies: Sequence[Generation], choices: Sequence[str] = ()) -> dict[Vote, list[int]]:
    """Each different answer, in the form that those who say the same share → the places of its samples.

    In the order in which they are said first; samples that are no answer are left out.
    """
    found: dict[Vote, list[int]] = {}
    for place, reply in enumerate(replies):
        form = vote(reply, choices)
        if form is not None:
            found.setdefault(form, []).append(place)
    return found
