"""What an owner shows: flags, of which the levels of access are presets."""

from __future__ import annotations

import itertools

import pytest

from cosilo.benchmark.identity import model_identity
from cosilo.errors import ConfigError
from cosilo.models.base import EVERYTHING, Access, Shows
from cosilo.session import ModelConfig
from cosilo.tables import convert, describe


def read(value: object) -> Shows:
    found = convert(value, Shows, where="exposes")
    assert isinstance(found, Shows)
    return found


def test_a_level_stands_for_itself_and_all_below() -> None:
    levels = [level.shows for level in Access]
    for below, above in itertools.pairwise(levels):
        assert below in above
        assert above not in below
    assert levels[0] == Shows.TEXT
    assert levels[-1] == EVERYTHING
    assert read("logits") == Shows.TEXT | Shows.LOGPROBS | Shows.LOGITS


def test_a_list_names_flags_and_no_more_than_these() -> None:
    assert read(["text", "states"]) == Shows.TEXT | Shows.STATES
    assert read(["logits"]) == Shows.LOGITS  # the flag, not the level of that name
    assert read(Shows.STATES) == Shows.STATES


@pytest.mark.parametrize("shows", [*(a.shows for a in Access), *Shows, Shows.TEXT | Shows.STATES])
def test_what_is_written_is_read_back(shows: Shows) -> None:
    assert read(shows.written()) == shows
    assert str(shows)


def test_what_it_says_of_itself() -> None:
    assert str(Access.ACTIVATIONS.shows) == "activations"
    assert str(Shows.TEXT | Shows.STATES) == "text, states"
    assert str(Shows.NOTHING) == "nothing"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("logit", "did you mean 'logits'"),
        ("states", "no value named 'states'"),  # a flag, and no level
        (["activations"], "no value named 'activations'"),  # a level, and no flag
        ([], "must be 'text' or 'logprobs' or"),
        ([3], "or a list of 'text', 'logprobs', 'logits', 'states', 'gradients'"),
        (3, "not 3"),
    ],
)
def test_what_is_neither_is_refused_with_what_would_do(value: object, why: str) -> None:
    with pytest.raises(ConfigError, match=f"exposes.*{why}"):
        read(value)
    assert "'activations'" in describe(Shows)


def test_a_level_counts_for_a_run_as_it_always_has() -> None:
    for level in Access:
        config = ModelConfig(kind="scripted", exposes=level.shows)
        assert model_identity(config)["exposes"] == int(level)
    listed = ModelConfig(kind="scripted", exposes=Shows.TEXT | Shows.STATES)
    assert model_identity(listed)["exposes"] == ["text", "states"]
