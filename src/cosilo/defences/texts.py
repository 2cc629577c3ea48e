"""Which parts of an Ask are text that may be private, and how to put other text in their place.

JSON (tool-call arguments, tool definitions, a reply's schema) is walked, never rewritten: only the
strings and numbers that change are replaced, so it stays valid and keeps its form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from cosilo.boundary.messages import Ask
from cosilo.defences.json_text import quoted
from cosilo.types import Sampling, Turn

Change = Callable[[str], str]

_TOKEN = re.compile(r'[{}\[\]]|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[a-z]+')
_SEALED = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_COLON = re.compile(r"[ \t\r\n]*:")
# What a JSON schema is made of: changing it would change what the reply must look like.
_STRUCTURE = frozenset(
    ("type", "name", "required", "$ref", "$schema", "$id", "format", "pattern", "strict")
)
# What is below these is not schema but data.
_DATA = frozenset(("default", "example", "examples", "const", "enum"))


def texts_of(ask: Ask, *, public_system: bool) -> list[str]:
    """Every text in `ask` that may be private, in a fixed order."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    _changed(ask, note, public_system)
    return found


def with_texts(ask: Ask, texts: Sequence[str], *, public_system: bool) -> Ask:
    """`ask` with `texts` in the places that `texts_of` found."""
    rest = iter(texts)
    return _changed(ask, lambda _: next(rest), public_system)


def public_text(ask: Ask) -> str:
    """What the task says and any reply must know: system turns, tools, schema, labels."""
    sampling = ask.sampling
    systems = [t.content for t in ask.chat if t.role == "system"]
    return "\n".join((*systems, sampling.tools, sampling.response_format, *sampling.choices))


def _changed(ask: Ask, change: Change, public_system: bool) -> Ask:
    chat = tuple(_turn(t, change, ask.sampling, public_system) for t in ask.chat)
    sampling = ask.sampling
    if not public_system:
        sampling = msgspec.structs.replace(
            sampling,
            tools=_json(sampling.tools, change, _in_schema),
            response_format=_json(sampling.response_format, change, _in_schema),
        )
    stop = tuple(change(s) for s in sampling.stop)
    return msgspec.structs.replace(
        ask, chat=chat, sampling=msgspec.structs.replace(sampling, stop=stop)
    )


def _turn(turn: Turn, change: Change, sampling: Sampling, public_system: bool) -> Turn:
    if turn.role == "system" and public_system:
        return turn

    def in_arguments(leaf: Leaf) -> bool:
        return not leaf.is_key or leaf.text not in _strings(sampling.tools)

    calls = tuple(
        msgspec.structs.replace(
            c,
            id=_some(c.id, change),
            arguments=_json(c.arguments, change, in_arguments),
            extra=_json(c.extra, change, _is_said),
        )
        for c in turn.tool_calls
    )
    return msgspec.structs.replace(
        turn,
        content=change(turn.content),
        # A tool's name is the application's; the name of somebody who speaks is not.
        name=turn.name if turn.role == "tool" else _some(turn.name, change),
        tool_call_id=_some(turn.tool_call_id, change),
        tool_calls=calls,
        other_texts=tuple((name, change(said)) for name, said in turn.other_texts),
        extra=_json(turn.extra, change, _is_said),
    )


@lru_cache(maxsize=8)
def _strings(text: str) -> frozenset[str]:
    """What stands between quotes in a JSON text, as it is written."""
    return frozenset(_STRING.findall(text))


def _is_said(leaf: Leaf) -> bool:
    """Whether `leaf` is text that may be changed, not a signature: the LM's owner accepts a
    signature only unchanged.
    """
    return not (leaf.key.endswith("signature") and _SEALED.fullmatch(leaf.text))


def _some(text: str, change: Change) -> str:
    return change(text) if text else text


@dataclass(frozen=True)
class Leaf:
    """A string or number of a JSON text, decoded; `key` is the last key before it, `above` are those
    that lead to what it stands in."""

    text: str
    is_text: bool
    is_key: bool
    key: str
    above: tuple[str, ...]


def written_numbers(ask: Ask) -> frozenset[str]:
    """What stands as a number in the JSON of `ask`, arguments and contents, and nowhere as text."""
    numbers: set[str] = set()
    strings: set[str] = set()
    jsons = [call.arguments for turn in ask.chat for call in turn.tool_calls]
    jsons += [t.content for t in ask.chat if t.content.lstrip()[:1] in ("{", "[")]
    for text in jsons:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            continue
        for token in _TOKEN.finditer(text):
            written = token.group()
            if written[0] == '"':
                strings.add(written[1:-1])
            elif written[0] in "-0123456789":
                numbers.add(written)
    return frozenset(numbers - strings)


def _in_schema(leaf: Leaf) -> bool:
    if not leaf.is_text:
        return False  # a bound, a length, a default: a placeholder in its place is no number
    if not _DATA.isdisjoint(leaf.above):
        return True
    return not leaf.is_key and leaf.key not in _STRUCTURE


def _json(text: str, change: Change, wanted: Callable[[Leaf], bool]) -> str:
    """`text` with its wanted leaves changed; as a whole when it is no JSON. A number that changes
    becomes a string: no number can hold a placeholder.
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
                parts += text[at : token.start()], quoted(changed)
                at = token.end()
    return "".join((*parts, text[at:]))
