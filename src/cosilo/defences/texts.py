"""Which texts of a message may be private, and how to put other text in their place.

JSON (tool-call arguments, tool definitions, a reply's schema) is walked, never rewritten: only the
strings and numbers that change are replaced, so it stays valid and keeps its form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from cosilo.boundary.messages import Message
from cosilo.boundary.messages.passages import Passage
from cosilo.defences.json_text import NUMBER, quoted
from cosilo.defences.restoring import Written

M = TypeVar("M", bound=Message)
Change = Callable[[str], str]

_TOKEN = re.compile(r'[{}\[\]]|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[a-z]+')
_SEALED = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_COLON = re.compile(r"[ \t\r\n]*:")
# What a JSON schema is made of: changing it would change what the reply must look like.
_STRUCTURE = frozenset(
    ("type", "name", "required", "$ref", "$schema", "$id", "format", "pattern", "strict")
)
# A name that programs use; what cannot be one was put there for somebody to read, so it is data.
_IDENTIFIER = re.compile(r"(?:[^\W\d]|\$)[\w.:/$-]*")
# The keys of these are patterns, or what references point to.
_REFERRED = frozenset(("$defs", "definitions", "patternProperties"))
# What is below these is not schema but data.
_DATA = frozenset(("default", "example", "examples", "const", "enum"))


def texts_of(message: Message, *, public_system: bool) -> list[str]:
    """Every text in `message` that may be private, in a fixed order."""
    return private_in(message.passages(), public_system=public_system)


def with_texts(message: M, texts: Sequence[str], *, public_system: bool) -> M:
    """`message` with `texts` in the places that `texts_of` found.

    Raises:
        PrivacyError: it does not say how its texts are replaced.
    """
    new = iter(placed(message.passages(), texts, public_system=public_system))
    return message.with_passages(lambda _: next(new))


def private_in(passages: Sequence[Passage], *, public_system: bool) -> list[str]:
    """Every text in `passages` that may be private."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    _changed(passages, note, public_system)
    return found


def from_lm(passages: Sequence[Passage], *, public_system: bool) -> list[bool]:
    """Which of the texts that `private_in` finds the LM said itself, in an earlier turn."""
    found: list[bool] = []
    by_lm = False

    def at(passage: Passage) -> None:
        nonlocal by_lm
        by_lm = passage.by == "assistant"

    def note(text: str) -> str:
        found.append(by_lm)
        return text

    _changed(passages, note, public_system, at)
    return found


def placed(passages: Sequence[Passage], texts: Sequence[str], *, public_system: bool) -> list[str]:
    """What each of `passages` says with `texts` in the places that `private_in` found."""
    rest = iter(texts)
    return _changed(passages, lambda _: next(rest), public_system)


def public_text(passages: Sequence[Passage]) -> str:
    """What the task says and any reply must know: system turns, tools, schema, labels."""
    said: dict[str, list[str]] = {"tools": [""], "form": [""], "said": [], "label": []}
    for passage in passages:
        if passage.what in ("tools", "form"):
            said[passage.what] = [passage.text]
        elif passage.what == "label" or (passage.what == "said" and passage.by == "system"):
            said[passage.what].append(passage.text)
    return "\n".join((*said["said"], *said["tools"], *said["form"], *said["label"]))


def _changed(
    passages: Sequence[Passage],
    change: Change,
    public_system: bool,
    at: Callable[[Passage], None] = lambda _: None,
) -> list[str]:
    tools = next((p.text for p in passages if p.what == "tools"), "")

    def in_arguments(leaf: Leaf) -> bool:
        return not leaf.is_key or leaf.text not in _strings(tools)

    def changed(passage: Passage) -> str:
        at(passage)
        if public_system and passage.by == "system":
            return passage.text
        match passage.what:
            case "label":
                return passage.text
            case "word" if _IDENTIFIER.fullmatch(passage.text):
                return passage.text
            case "word":  # which tool is to be called is said in JSON
                return _json(passage.text, change, _in_schema)
            case "tools" | "form":
                if public_system:
                    return passage.text
                return _json(passage.text, change, _in_schema)
            case "arguments":
                return _json(passage.text, change, in_arguments)
            case "sealed":
                return _json(passage.text, change, _is_said)
        return change(passage.text)

    return [changed(passage) for passage in passages]


@lru_cache(maxsize=8)
def _strings(text: str) -> frozenset[str]:
    """What stands between quotes in a JSON text, as it is written."""
    return frozenset(_STRING.findall(text))


def _is_said(leaf: Leaf) -> bool:
    """Whether `leaf` is text that may be changed, not a signature: the LM's owner accepts a
    signature only unchanged.
    """
    return not (leaf.key.endswith("signature") and _SEALED.fullmatch(leaf.text))


@dataclass(frozen=True)
class Leaf:
    """A string or number of a JSON text, decoded; `key` is the last key before it, `above` are those
    that lead to what it stands in."""

    text: str
    is_text: bool
    is_key: bool
    key: str
    above: tuple[str, ...]


def numbers_in(passages: Sequence[Passage], holds: Callable[[str], bool]) -> Written:
    """Which values that `holds` names stand as numbers in the JSON of calls, and which as text."""
    found = Written()

    def note(leaf: Leaf) -> bool:
        if not leaf.is_key and holds(leaf.text):
            (found.texts if leaf.is_text else found.numbers).add((leaf.key, leaf.text))
        return False

    for passage in passages:
        if passage.what == "arguments":
            _json(passage.text, str, note)
    return found


def _in_schema(leaf: Leaf) -> bool:
    if not leaf.is_text:
        return False  # a bound, a length, a default: a placeholder in its place is no number
    if not _DATA.isdisjoint(leaf.above):
        return True
    if leaf.is_key:
        return leaf.above[-1] not in _REFERRED and not _IDENTIFIER.fullmatch(leaf.text)
    if leaf.key in ("name", "required", "type", "format"):
        return not _IDENTIFIER.fullmatch(leaf.text)
    return leaf.key not in _STRUCTURE


def _json(text: str, change: Change, wanted: Callable[[Leaf], bool]) -> str:
    """`text` with its wanted leaves changed; as a whole when it is no JSON. A number that changes
    becomes a string, unless it becomes another number: none can hold a placeholder.
    """
    if not text:
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return change(text)
    parts: list[str] = []
    at, key = 0, ""
    above: list[str] = []
    for token in _TOKEN.finditer(text):
        written = token.group()
        if written in "{[":
            above.append(key)
            continue
        if written in "}]":
            key = above.pop()
            continue
        is_text = written[0] == '"'
        value = str(json.loads(written)) if is_text else written
        is_key = is_text and _COLON.match(text, token.end()) is not None
        if is_key:
            key = value
        if not written[0].isalpha() and wanted(Leaf(value, is_text, is_key, key, tuple(above))):
            changed = change(value)
            if changed != value:
                # A surrogate that is a number stands as one.
                bare = not is_text and NUMBER.fullmatch(changed)
                parts += text[at : token.start()], changed if bare else quoted(changed)
                at = token.end()
    return "".join((*parts, text[at:]))
