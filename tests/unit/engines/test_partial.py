from __future__ import annotations

import pytest

from cosilo.engines.partial import PromptSplit, SpanLeak, cheapest, clear_tokens
from cosilo.errors import ConfigError

NOTHING, HALF, ALL = (SpanLeak(share, share + 0.04, 100) for share in (0.0, 0.5, 0.96))
CLEAR = PromptSplit("all in clear", 0, ALL)
CUT = PromptSplit("first layers", 300, HALF)
SUFFIX = PromptSplit("from the span on", 700, NOTHING)
WHOLE = PromptSplit("all in secret", 5000, NOTHING)


def letters(text: str) -> list[int]:
    """Letters and spaces, but for pairs `ab` and those of a space and a letter, which are one token."""
    ids, at = [], 0
    while at < len(text):
        pair = text[at : at + 2]
        both = pair == "ab" or (len(pair) == 2 and pair[0] == " " and pair[1] != " ")
        ids.append(hash(pair) if both else ord(text[at]))
        at += 2 if both else 1
    return ids


def cut(text: str, *values: str) -> int:
    return clear_tokens(text, letters(text), values, letters)


def test_the_cheapest_of_those_that_keep_the_limit_is_taken() -> None:
    splits = [WHOLE, SUFFIX, CUT, CLEAR]
    assert cheapest(splits, most_leak=0.05) is SUFFIX
    assert cheapest(splits, most_leak=0.6) is CUT
    assert cheapest(splits, most_leak=1.0) is CLEAR


def test_what_the_interval_leaves_open_counts_as_leaked() -> None:
    with pytest.raises(
        ConfigError, match="'from the span on', leaks up to 4 % as far as 100 tokens"
    ):
        cheapest([SUFFIX, CUT], most_leak=0.03)


@pytest.mark.parametrize("leak", [None, SpanLeak(0.0, 0.0, 0), SpanLeak(0.0, float("nan"), 9)])
def test_what_was_not_measured_keeps_no_limit(leak: SpanLeak | None) -> None:
    assert cheapest([PromptSplit("unknown", 1, leak), SUFFIX], most_leak=0.05) is SUFFIX


def test_another_answer_is_no_answer_unless_it_may_be() -> None:
    pseudonym = PromptSplit("placeholders", 0, NOTHING, same=0.7)
    assert cheapest([pseudonym, SUFFIX], most_leak=0.05) is SUFFIX
    assert cheapest([pseudonym, SUFFIX], most_leak=0.05, least_same=0.5) is pseudonym
    with pytest.raises(ConfigError, match="the answer of a computation in clear in 90 %"):
        cheapest([pseudonym], most_leak=0.05, least_same=0.9)


def test_a_limit_is_a_share() -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        cheapest([SUFFIX], most_leak=5)


def test_the_first_value_and_all_after_it_is_cut_off() -> None:
    assert cut("xyzNcd", "cd", "N") == 3
    assert cut("xyzncd", "N") == 3  # in another case
    assert cut("xyz", "") == 2  # nothing was found; the last token is asked about
    assert cut("Nxyz", "N") == 0


def test_a_token_that_a_value_has_a_part_in_is_cut_off() -> None:
    assert cut("xy Ncd", "N") == 2  # the space goes with the N
    assert (
        cut("xyabcd", "bcd") == 2
    )  # and so does the a, which is a token of its own before the cut


def test_a_value_that_is_not_where_it_was_found_leaves_nothing_in_clear() -> None:
    assert cut("xyzNcd", "N", "elsewhere") == 0
