"""Further fields of a request: whatever a client sends and a point says, nothing crosses unread."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cosilo.boundary.messages import Ask, decode, encode
from cosilo.gateway.refusals import RequestError
from cosilo.gateway.serving.fields import RULES, check_policies, sort
from cosilo.gateway.web.dialects.files import Files
from cosilo.models.chat.fields import CLOSED, is_closed
from cosilo.types import Sampling, user

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from([*RULES, *CLOSED, "guided_json", "provider", "temprature"])
POLICY = st.sampled_from(["pass", "drop", "refuse"])


@given(
    st.dictionaries(NAMES, JSON, max_size=5),
    st.dictionaries(NAMES, POLICY, max_size=5),
    st.booleans(),
)
def test_what_passes_is_closed_or_read(
    given_: dict[str, Any], stated: dict[str, str], honoured: bool
) -> None:
    try:
        check_policies(stated)
        found = sort(
            {name: json.dumps(value).encode() for name, value in given_.items()},
            stated,
            lambda _: honoured,
        )
    except (RequestError, ValueError):
        return
    assert {name for name, _ in found.fields} | set(found.dropped) <= set(given_)
    ask = Ask(chat=user("q"), sampling=Sampling(fields=found.fields))
    assert decode(encode(ask)) == ask
    read = [p.text for p in ask.passages()]
    for name, text in found.fields:
        assert honoured
        assert is_closed(name, text) or text in read
    hidden = ask.with_passages(lambda _: '"X"')
    for name, text in hidden.sampling.fields:
        assert text == '"X"' or is_closed(name, text)


@given(st.text(max_size=80), st.text(max_size=20), st.text(max_size=20))
def test_whatever_is_called_a_file_is_text_a_mark_or_refused(
    data: str, media: str, name: str
) -> None:
    files = Files()
    for sent in (data, f"data:{media};base64,{data}"):
        with suppress(RequestError):
            said = files.take(sent, "f", media=media, name=name)
            assert all(file.mark != said or file.data for file in files.found)
