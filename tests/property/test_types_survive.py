"""JSON with private values anywhere in it is JSON to the LM, and comes back with its types."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.defences.pseudonyms import Pseudonym
from cosilo.types import Chat, Generation, ToolCall, Turn, assemble, user
from scripted_detectors import Talk, Words, by_characters

TEXTS = ("Jürgen", 'Al "the fox" Roe', "12 Baker Street\nLondon", "back\\slash")
NUMBERS = (12345678, -87654321, 49301234.5, 7700000001)
FOUND = Words(**dict.fromkeys(TEXTS, "PERSON"), **{str(n).strip("-"): "ID" for n in NUMBERS})
# Escaped values are found by what they say, which this detector is told here.
NAMED = user("; ".join((*TEXTS, *(str(n).strip("-") for n in NUMBERS))))
KEYS = st.sampled_from(("a", "n", "id", "ключ", 'q"k', "x y"))
# A number that is private stands as text under a key of its own: elsewhere it would be told by it.
SCALARS = st.one_of(
    st.sampled_from((None, True, False, 0, 1, -2.5, 10**20, "", "word", "7", "[1]", "{}")),
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from(TEXTS).map(lambda t: f"about {t}."),
    st.sampled_from(NUMBERS).map(lambda n: f"about {n}."),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sampled_from(NUMBERS).map(lambda n: {"as text": str(n)}),
        st.sampled_from(TEXTS).map(lambda t: {t: 1}),
    ),
    max_leaves=12,
).filter(lambda d: isinstance(d, dict | list))
WRITTEN = st.sampled_from((
    {"separators": (",", ":")}, {}, {"indent": 1}, {"ensure_ascii": False},
    {"ensure_ascii": False, "separators": (",", ":")},
))  # fmt: skip
AROUND = st.sampled_from(("%s", "```json\n%s\n```", "Here it is: %s\nIs it right?", "%s\n%s"))


def same_form(one: Any, other: Any) -> bool:
    """Whether `other` is `one` with texts in places of texts and of numbers."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and len(one) == len(other)
            and all(same_form(a, b) for a, b in zip(one.values(), other.values(), strict=True))
        )
    if isinstance(one, list):
        return (
            isinstance(other, list)
            and len(one) == len(other)
            and all(same_form(a, b) for a, b in zip(one, other, strict=True))
        )
    return one == other or (isinstance(other, str) and isinstance(one, str | int | float))


def exact(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


def talk_with(reply: Any, size: int) -> Talk:
    key = Path(tempfile.mkdtemp(), "key")
    defence = Pseudonym(detectors=("patterns",), key_file=key)
    defence.hiding.reader.detectors = (FOUND,)  # type: ignore[union-attr]
    return Talk(defence, reply, by_characters(size))


def clear(text: str) -> list[str]:
    said = (*TEXTS, *(json.dumps(t)[1:-1] for t in TEXTS), *(str(n).strip("-") for n in NUMBERS))
    return [value for value in said if value in text]


@given(DOCUMENTS, WRITTEN, AROUND, st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_in_what_is_said(document: Any, how: Any, around: str, size: int) -> None:
    text = around.replace("%s", json.dumps(document, **how))
    talk = talk_with(lambda chat: Generation(chat[-1].content), size)
    chat = (Turn("assistant", tool_calls=(ToolCall("c", "f", "{}"),)),)
    for asked in ((*NAMED, *user(text)), (*NAMED, *chat, Turn("tool", text, tool_call_id="c"))):
        reply = talk.send(asked).text
        assert assemble(talk.stream(asked)).text == reply
        seen = talk.model.seen[-1][-1].content
        assert not clear(seen)
        start = min(i for i in map(text.find, "{[") if i >= 0)
        assert same_form(document, json.JSONDecoder().raw_decode(seen[start:])[0])
        assert exact(document, json.JSONDecoder().raw_decode(reply[start:])[0])


@given(DOCUMENTS, WRITTEN, st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_in_arguments(document: Any, how: Any, size: int) -> None:
    call = ToolCall("c", "f", json.dumps({"of": document, "in": json.dumps(document)}, **how))
    chat: Chat = (*NAMED, Turn("assistant", tool_calls=(call,)), *user("Again"))
    talk = talk_with(lambda c: Generation("", tool_calls=c[1].tool_calls), size)
    reply = talk.send(chat).tool_calls[0].arguments
    assert assemble(talk.stream(chat)).tool_calls[0].arguments == reply
    seen = json.loads(talk.model.seen[-1][1].tool_calls[0].arguments)
    assert not clear(json.dumps(seen, ensure_ascii=False))
    assert same_form(document, seen["of"])
    assert same_form(document, json.loads(seen["in"]))
    back = json.loads(reply)
    assert exact(document, back["of"])
    assert exact(document, json.loads(back["in"]))
