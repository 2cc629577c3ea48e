"""Which texts of a message may be private, and how to put other text in their place.

JSON (tool-call arguments, tool definitions, a reply's schema) is walked, never rewritten: only the
strings and numbers that change are replaced, so it stays valid and keeps its form. The names that
programs know one another by (of tools, properties, definitions; patterns and references) are one text
together, the last: a value in one is replaced wherever that name stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

from cosilo.boundary.messages import Message
from cosilo.boundary.messages.passages import JSON, Passage
from cosilo.defences.json_text import NUMBER, quoted
from cosilo.defences.restoring import Written
from cosilo.defences.words import of
from cosilo.errors import PrivacyError

M = TypeVar("M", bound=Message)
Change = Callable[[str], str]

_TOKEN = re.compile(r'[{}\[\]]|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[a-z]+')
_SEALED = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_COLON = re.compile(r"[ \t\r\n]*:")
# What a JSON schema is made of: changing it would change what the reply must look like.
_STRUCTURE = of(
    "type name required $ref $schema $id $anchor $dynamicRef $dynamicAnchor format pattern strict"
)
# What stands in every schema tells nothing.
_VOCABULARY = of("""
type name names title description function functions parameters properties required items strict
object string number integer boolean array null enum const default anyOf oneOf allOf not if then else
format pattern minimum maximum minLength maxLength minItems maxItems uniqueItems
additionalProperties patternProperties propertyNames prefixItems contains dependentRequired
dependentSchemas examples $ref $defs $id $schema $anchor $comment definitions schema json_schema
json_object text auto none date time date-time email uri url uuid id query value values key keys data
content message messages user role path file http://json-schema.org/draft-07/schema#
https://json-schema.org/draft/2020-12/schema
""")
NAMES_APART = "\n\0\n"
"""What stands between two names in the text of all names."""
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
    """Every text in `passages` that may be private, and last, where `has_names`, all names together."""
    found: list[str] = []
    names: dict[str, None] = {}

    def note(text: str) -> str:
        found.append(text)
        return text

    def named(name: str) -> str:
        names[name] = None
        return name

    _changed(passages, note, named, public_system)
    if has_names(passages):
        found.append(NAMES_APART.join(names))
    return found


def has_names(passages: Sequence[Passage]) -> bool:
    """Whether the last of the texts that `private_in` finds is of names that programs use."""
    return any(passage.what == "word" or passage.what in JSON for passage in passages)


def from_lm(passages: Sequence[Passage], *, public_system: bool) -> list[bool]:
    """Which of the texts that `private_in` finds the LM said itself, in an earlier turn."""
    of = [passage.by == "assistant" for passage in _passages_of(passages, public_system)]
    return [*of, False] if has_names(passages) else of


def in_no_turn(passages: Sequence[Passage], *, public_system: bool) -> list[bool]:
    """Which of the texts that `private_in` finds stand in no turn: of tools, of a reply's form."""
    of = [passage.by is None for passage in _passages_of(passages, public_system)]
    return [*of, True] if has_names(passages) else of


def _passages_of(passages: Sequence[Passage], public_system: bool) -> list[Passage]:
    """The passage of each text that `private_in` finds, names aside."""
    found: list[Passage] = []
    last: list[Passage] = []

    def note(text: str) -> str:
        found.append(last[-1])
        return text

    _changed(passages, note, str, public_system, last.append)
    return found


def placed(passages: Sequence[Passage], texts: Sequence[str], *, public_system: bool) -> list[str]:
    """What each of `passages` says with `texts` in the places that `private_in` found.

    Raises:
        PrivacyError: the text of names holds more or fewer of them than before.
    """
    rest = iter(texts)
    new = iter(texts[-1].split(NAMES_APART) if has_names(passages) and texts[-1] else ())
    names: dict[str, str] = {}

    def named(name: str) -> str:
        if name not in names:
            names[name] = next(new, "")
        return names[name]

    said = _changed(passages, lambda _: next(rest), named, public_system)
    if next(new, None) is not None or "" in names.values():
        raise PrivacyError("a message could not be restored exactly, so nothing was sent")
    return said


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
    rename: Change,
    public_system: bool,
    at: Callable[[Passage], None] = lambda _: None,
) -> list[str]:
    tools = next((p.text for p in passages if p.what == "tools"), "")
    changes: Mapping[_Sort, Change] = {"said": change, "name": rename, "": str}

    def in_arguments(leaf: Leaf) -> _Sort:
        return "name" if leaf.is_key and leaf.text in _strings(tools) else "said"

    def changed(passage: Passage) -> str:
        at(passage)
        if public_system and passage.by == "system":
            return passage.text
        match passage.what:
            case "label":
                return passage.text
            case "word" if _is_identifier(passage.text):
                return changes[_named(passage.text)](passage.text)
            case "word":  # which tool is to be called is said in JSON
                return _json(passage.text, changes, _in_schema)
            case "tools" | "form":
                if public_system:
                    return passage.text
                return _json(passage.text, changes, _in_schema)
            case "arguments":
                return _json(passage.text, changes, in_arguments)
            case "sealed":
                return _json(passage.text, changes, _is_said)
        return change(passage.text)

    return [changed(passage) for passage in passages]


_Sort = Literal["said", "name", ""]
"""What is done with a leaf: it is changed like any text, as a name, or not at all."""


@lru_cache(maxsize=8)
def _strings(text: str) -> frozenset[str]:
    """What stands between quotes in a JSON text, as it is written."""
    return frozenset(_STRING.findall(text))


def _is_said(leaf: Leaf) -> _Sort:
    """Whether `leaf` is text that may be changed, not a signature: the LM's owner accepts a
    signature only unchanged.
    """
    return "" if leaf.key.endswith("signature") and _SEALED.fullmatch(leaf.text) else "said"


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

    def note(leaf: Leaf) -> _Sort:
        if not leaf.is_key and holds(leaf.text):
            (found.texts if leaf.is_text else found.numbers).add((leaf.key, leaf.text))
        return ""

    for passage in passages:
        if passage.what == "arguments":
            _json(passage.text, {"said": str, "": str}, note)
    return found


def _in_schema(leaf: Leaf) -> _Sort:
    if not leaf.is_text:
        return ""  # a bound, a length, a default: a placeholder in its place is no number
    if not _DATA.isdisjoint(leaf.above):
        return "said"
    if leaf.is_key:
        known = leaf.above[-1] in _REFERRED or _is_identifier(leaf.text)
    elif leaf.key in ("name", "required", "type", "format"):
        known = _is_identifier(leaf.text)
    else:
        known = leaf.key in _STRUCTURE
    return _named(leaf.text) if known else "said"


def _is_identifier(text: str) -> bool:
    return _IDENTIFIER.fullmatch(text) is not None


def _named(text: str) -> _Sort:
    """What a name of programs is: nothing to look at where it stands in every schema."""
    if text in _VOCABULARY or not text:
        return ""
    return "said" if "\0" in text else "name"


def _json(text: str, changes: Mapping[_Sort, Change], sort: Callable[[Leaf], _Sort]) -> str:
    """`text` with its leaves changed, each as its sort is; as a whole when it is no JSON. A number that
    changes becomes a string, unless it becomes another number: none can hold a placeholder.
    """
    if not text:
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return changes["said"](text)
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
        value = written
        if is_text:  # without an escape a string says what stands in it
            value = str(json.loads(written)) if "\\" in written else written[1:-1]
        is_key = is_text and _COLON.match(text, token.end()) is not None
        if is_key:
            key = value
        if not written[0].isalpha():
            changed = changes[sort(Leaf(value, is_text, is_key, key, tuple(above)))](value)
            if changed != value:
                # A surrogate that is a number stands as one.
                bare = not is_text and NUMBER.fullmatch(changed)
                parts += text[at : token.start()], changed if bare else quoted(changed)
                at = token.end()
    return "".join((*parts, text[at:]))
