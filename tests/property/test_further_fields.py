"""Further fields of a request: whatever a client sends and a point says, nothing crosses unread."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cosilo.boundary.messages import Ask, decode, encode
from cosilo.gateway.refusals import RequestError
from cosilo.gateway.serving.fields import RULES, sort
from cosilo.gateway.web.dialects.files import Files
from cosilo.models.chat.fields import CLOSED, is_closed
from cosilo.types import Sampling, user

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = sorted({*RULES, *CLOSED, "guided_json", "provider"})
PASSABLE = [name for name in NAMES if name not in RULES or not RULES[name].never]
WORDS = st.sampled_from(["high", 1, 0.5, True, "auto", {"type": "enabled"}, {"1": 2}])
FIELDS = st.dictionaries(st.sampled_from(PASSABLE), JSON | WORDS, min_size=1, max_size=5)


@given(FIELDS)
def test_what_a_point_lets_pass_is_closed_or_read(given_: dict[str, Any]) -> None:
    raw = {name: json.dumps(value).encode() for name, value in given_.items()}
    found = sort(raw, dict.fromkeys(given_, "pass"), lambda _: True)
    assert not found.dropped
    ask = Ask(chat=user("q"), sampling=Sampling(fields=found.fields))
    assert decode(encode(ask)) == ask
    read = [p.text for p in ask.passages()]
    hidden = ask.with_passages(lambda _: '"X"')
    for (name, text), (_, changed) in zip(found.fields, hidden.sampling.fields, strict=True):
        assert is_closed(name, text) or text in read
        assert changed == (text if is_closed(name, text) else '"X"')


@given(st.dictionaries(st.sampled_from(NAMES), JSON | WORDS, max_size=5), st.booleans())
def test_by_itself_only_what_is_closed_passes(given_: dict[str, Any], honoured: bool) -> None:
    raw = {name: json.dumps(value).encode() for name, value in given_.items()}
    with suppress(RequestError):
        found = sort(raw, {}, lambda _: honoured)
        assert all(is_closed(name, text) for name, text in found.fields)
        assert honoured or not found.fields


@given(st.text(max_size=80), st.text(max_size=20), st.text(max_size=20))
def test_whatever_is_called_a_file_is_text_a_mark_or_refused(
    data: str, media: str, name: str
) -> None:
    files = Files()
    for sent in (data, f"data:{media};base64,{data}"):
        with suppress(RequestError):
            said = files.take(sent, "f", media=media, name=name)
            assert all(file.mark != said or file.data for file in files.found)
