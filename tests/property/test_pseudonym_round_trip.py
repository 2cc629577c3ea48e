"""Pseudonyms against arbitrary text: nothing detected leaves, everything comes back, cut anywhere."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.boundary.messages import Ask
from cosilo.defences.detection import Span, resolve, shifted, windows
from cosilo.defences.places import DEFAULT, Places, Rules
from cosilo.defences.restoring import SqlTarget, Stream, restore
from cosilo.defences.surrogates import Draw, disguise
from cosilo.defences.texts import texts_of, with_texts
from cosilo.defences.vault import Vault
from cosilo.types import Sampling, ToolCall, Turn

KINDS = ("PERSON", "EMAIL", "NUMBER", "DAY", "MONTH", "YEAR", "DATE", "COUNT", "VALUE")
LETTERS = st.characters(exclude_categories=("Cs",))
# Also texts that look like placeholders and like numbers: what could be mistaken for ours.
TRICKY = r"""PERSON_|person_abcdef|EMAIL_k7q2mx|PERSON\_|Ann|ann|Ann Lee|5|473|2023|2023-04-01
April 1, 2023|march 2023|three|Jan 1st|10,000.50|'|"|\| |_|-|a|ANN|0|ß|İ|\u00a0"""
PIECES = st.one_of(
    st.text(LETTERS, max_size=12), st.sampled_from([*re.split(r"[|\n]", TRICKY), "\n"])
)
TEXTS = st.lists(PIECES, max_size=10).map("".join)


@st.composite
def texts_with_spans(draw: st.DrawFn) -> tuple[list[str], list[list[Span]]]:
    texts = draw(st.lists(TEXTS, min_size=1, max_size=3))
    found = []
    for text in texts:
        cuts = st.integers(0, len(text))
        spans = draw(st.lists(st.tuples(cuts, cuts, st.sampled_from(KINDS)), max_size=4))
        found.append([Span(min(a, b), max(a, b), kind, 0.5) for a, b, kind in spans])
    return texts, found


def hidden(texts: list[str], found: list[list[Span]]) -> tuple[Vault, list[str], list[list[Span]]]:
    vault = Vault(b"k" * 32, "c")
    spans = vault.cover(texts, found)
    vault.issue(texts, spans, "")
    return vault, [vault.hide(t, s) for t, s in zip(texts, spans, strict=True)], spans


ANYWHERE = Rules(frozenset((*DEFAULT, "urls", "elsewhere", "secrets")))


@given(texts_with_spans())
@settings(max_examples=100, deadline=None)
def test_what_was_hidden_comes_back(given_: tuple[list[str], list[list[Span]]]) -> None:
    texts, found = given_
    vault, masked, _ = hidden(texts, found)
    assert [vault.restore(m) for m in masked] == texts


@given(texts_with_spans())
@settings(max_examples=100, deadline=None)
def test_every_detected_letter_is_covered_and_spans_do_not_overlap(
    given_: tuple[list[str], list[list[Span]]],
) -> None:
    texts, found = given_
    _, _, spans = hidden(texts, found)
    for text, reported, covered in zip(texts, found, spans, strict=True):
        inside = {i for s in covered for i in range(s.start, s.end)}
        assert sum(s.end - s.start for s in covered) == len(inside)
        for span in reported:
            assert all(i in inside or not text[i].isalnum() for i in range(span.start, span.end))


@given(texts_with_spans())
@settings(max_examples=100, deadline=None)
def test_a_detected_value_stands_nowhere_else(
    given_: tuple[list[str], list[list[Span]]],
) -> None:
    texts, found = given_
    _, _, covered = hidden(texts, found)
    values = {
        text[s.start : s.end]
        for text, spans in zip(texts, found, strict=True)
        for s in resolve(spans, text)
    }
    for text, spans in zip(texts, covered, strict=True):
        left = list(text)
        for span in spans:
            for i in range(span.start, span.end):  # a word that is hidden in part stays one word
                left[i] = "ⱹ" if re.match(r"\w", text[i]) else "\0"
        rest = "".join(left)
        for value in values:
            # Single letters and the like are hidden where they were found, not everywhere; a value
            # that begins in the middle of a word has no place of its own.
            if len(value) < 3 or re.match(r"\w", value[0]) is None:
                continue
            assert not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", rest), value


@given(texts_with_spans(), TEXTS, st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_a_stream_cut_anywhere_is_the_whole(
    given_: tuple[list[str], list[list[Span]]], extra: str, size: int
) -> None:
    vault, masked, _ = hidden(*given_)
    reply = extra.join(masked) + extra
    for variant in (reply, reply.lower(), reply.upper(), reply.replace("_", r"\_")):
        for render in (
            lambda: None,
            SqlTarget,
            lambda: Places(vault.restorer),
            lambda: Places(vault.restorer, json=True),
            lambda: Places(vault.restorer, sql=True),
        ):
            whole = restore(vault.restorer, variant, render())
            made = render()
            stream = Stream(vault.restorer, *([made] if made else []))
            pieces = [stream.feed(variant[i : i + size]) for i in range(0, len(variant), size)] + [
                stream.finish()
            ]
            assert "".join(pieces) == whole


@given(texts_with_spans())
@settings(max_examples=60, deadline=None)
def test_arguments_stay_json(given_: tuple[list[str], list[list[Span]]]) -> None:
    texts, found = given_
    vault, masked, _ = hidden(texts, found)
    arguments = json.dumps({"a": masked, "b": 1}, ensure_ascii=False)
    assert (
        json.loads(
            restore(vault.restorer, arguments, Places(vault.restorer, json=True, rules=ANYWHERE))
        )["a"]
        == texts
    )


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


@given(JSON, st.booleans(), st.sampled_from([None, 2]))
@settings(max_examples=60, deadline=None)
def test_texts_go_back_where_they_came_from(value: object, plain: bool, indent: int | None) -> None:
    arguments = json.dumps(value, ensure_ascii=plain, indent=indent)
    turn = Turn("assistant", "hi", tool_calls=(ToolCall("1", "f", arguments),))
    ask = Ask(chat=(Turn("user", "x", name="ann"), turn), sampling=Sampling(stop=("end",)))
    texts = texts_of(ask, public_system=False)
    assert with_texts(ask, texts, public_system=False) == ask
    *said, names = texts  # a name stays one, so that it is found again
    changed = with_texts(ask, [*(f"<{t}>" for t in said), f"{names}_"], public_system=False)
    again = texts_of(changed, public_system=False)
    assert sorted(t.strip("<>") for t in again[:-1]) == sorted(t.strip("<>") for t in said)
    assert again[-1] == f"{names}_" == "f_"
    json.loads(changed.chat[1].tool_calls[0].arguments)


@given(TEXTS, st.integers(8, 40), st.integers(2, 6))
def test_windows_hold_every_short_piece_whole(text: str, size: int, share: int) -> None:
    overlap = size // share
    found = list(windows(text, size, overlap))
    assert all(text[offset : offset + len(piece)] == piece for offset, piece in found)
    covered = {i for offset, piece in found for i in range(offset, offset + len(piece))}
    assert covered == set(range(len(text)))
    assert all(len(piece) <= size for _, piece in found)
    for offset, piece in found:
        assert shifted([Span(0, len(piece), "X")], offset)[0].end == offset + len(piece)


@pytest.mark.parametrize("value", ["Jan 0010", "0010-01", "January 3, 0020", "0003-01-01", "1010"])
def test_a_date_whose_surrogate_would_have_no_four_digits_has_none(value: str) -> None:
    for kind in ("DAY", "MONTH", "YEAR"):
        for seed in range(10):
            cover = disguise(kind, value, Draw(b"key", str(seed)))
            assert cover is None or int(re.findall(r"\d{4}", cover.shown)[0]) > 1000


@given(
    st.sampled_from(KINDS),
    st.one_of(
        st.integers(0, 10**9).map(str),
        st.integers(1000, 10**9).map("{:,}".format),
        st.dates().map(str),
        st.dates().map(lambda d: f"{d:%B} {d.day}, {d.year:04}"),
        st.dates().map(lambda d: f"{d:%b} {d.year:04}"),
    ),
    st.integers(0, 50),
)
@settings(max_examples=100, deadline=None)
def test_a_surrogate_has_the_form_of_its_value_and_stands_for_it(
    kind: str, value: str, seed: int
) -> None:
    cover = disguise(kind, value, Draw(b"key", str(seed)))
    if cover is None:
        return
    assert cover.aliases[cover.shown] == value
    assert (
        re.sub(r"\d+", "0", re.sub(r"[A-Za-z]+", "a", cover.shown)).count(",")
        <= value.count(",") + 1
    )
    assert [c for c in cover.shown if c in "-/"] == [c for c in value if c in "-/"]
