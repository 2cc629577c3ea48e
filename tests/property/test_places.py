"""A reply in which anything may stand around placeholders comes out the same wherever it is cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.defences.places import Places
from cosilo.defences.restoring import Restorer, Stream, restore
from cosilo.defences.schemas import rooted

VALUES = {
    "PERSON_abcdef": 'A "q"\nB\'s, & C',
    "URL_abcdeg": "https://own.example/x",
    "ID_abcdeh": "123",
}
MARKS = st.sampled_from((
    *VALUES, *"{}[]\"',:/.?@<> \n\\x0", '{"', '{"a":', '": "', '["', '\\"', "\\u00fc", "\\u", "](",
    "https:", "//", "www.", "a.example/", "mailto:", "true", "nul", "-1.5", "src=", "<img ",
    'href="', "git@", "PERSON_", "```sql\n", "```csv\n", "```xml\n", "\n```\n", "'", "curl ",
    "<script>", "</script>", "<form action=//e.example>", "\\\n",
))  # fmt: skip
NUMBERS = rooted({"properties": {"a": {"type": "integer"}}})


@given(
    st.lists(MARKS, max_size=14).map("".join),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.sampled_from(("text", "json", "sql")),
)
@settings(max_examples=400, deadline=None)
def test_a_reply_is_the_same_wherever_it_is_cut(text: str, sizes: list[int], form: str) -> None:
    known = Restorer()
    for shown, value in VALUES.items():
        known.add({shown: value}, follow=False, plain=False)

    def render() -> Places:
        return Places(known, json=form == "json", sql=form == "sql", schema=NUMBERS)

    stream = Stream(known, render())
    pieces, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        pieces.append(stream.feed(text[at : at + size]))
        at, turn = at + size, turn + 1
    assert "".join((*pieces, stream.finish())) == restore(known, text, render())
