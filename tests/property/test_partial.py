"""What is in clear of a prompt is the same whatever its private part is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cosilo.engines.partial import clear_tokens

WORDS = ["a", "b", " ", "ab", "ba", " a", "abb", "N", "aN", " N"]


def longest(text: str) -> list[int]:
    """The longest word of the list each time."""
    ids, at = [], 0
    while at < len(text):
        word = max((w for w in WORDS if text.startswith(w, at)), key=len)
        ids.append(WORDS.index(word))
        at += len(word)
    return ids


TEXT = st.text("ab ", max_size=12)


@given(TEXT, st.text("abN ", max_size=6), TEXT)
def test_tokens_in_clear_are_those_of_the_text_before_the_first_value(
    before: str, inside: str, after: str
) -> None:
    value = f"N{inside}N"
    text = before + value + after
    ids = longest(text)
    many = clear_tokens(text, ids, [value], longest)
    assert many < len(ids)
    assert ids[:many] == longest(before)[:many]
    assert sum(len(WORDS[i]) for i in ids[:many]) <= len(before)
    if longest(before) == ids[: len(longest(before))]:
        assert many == len(longest(before))
