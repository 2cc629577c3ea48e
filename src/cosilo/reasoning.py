"""What a model that reasons before it answers says in the end, without the reasoning."""

from __future__ import annotations

import re

_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
"""What reasoning begins and ends with, by the families of models that write it into their replies."""

_CHANNEL, _MESSAGE, _FINAL = "<|channel|>", "<|message|>", "<|channel|>final"
_ENDS = ("<|end|>", "<|return|>", "<|start|>")


def spoken(text: str) -> str:
    """`text` without what its model was thinking; empty where it was cut off while it thought.

    >>> spoken("<think>It could be A or B.</think>B")
    'B'

    An end without a beginning counts (the beginning may stand in the prompt), and so does a
    beginning without an end: the model was cut off. Text without any such mark is returned as it is.
    """
    if _CHANNEL in text:
        return _final(text)
    for opening, closing in _MARKS:
        if opening in text or closing in text:
            return _without(text, opening, closing).strip()
    return text


def _without(text: str, opening: str, closing: str) -> str:
    kept: list[str] = []
    thinking, at = False, 0
    for mark in re.finditer(f"{re.escape(opening)}|{re.escape(closing)}", text):
        if not thinking:
            kept.append(text[at : mark.start()])
        if mark.group() == opening:
            thinking = True
        elif thinking:
            thinking = False
        else:  # it began in the prompt
            kept.clear()
        at = mark.end()
    return "".join(kept) if thinking else "".join((*kept, text[at:]))


def _final(text: str) -> str:
    """The last final message of a reply in OpenAI's harmony format."""
    start = text.rfind(_FINAL)
    if start < 0:
        return ""
    said = text[start + len(_FINAL) :].partition(_MESSAGE)[2]
    ends = [at for mark in _ENDS if (at := said.find(mark)) >= 0]
    return said[: min(ends, default=len(said))].strip()
