"""A federation that takes an owner's updates back ends, to the bit, as one that never had that owner:
by every rule, whenever it is asked, whatever was kept, and however often its process is killed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.parties.coordinating.test_taking_back import Trial, never

OWNERS = ("a", "b", "c", "d", "e", "f")
RULES: list[dict[str, Any]] = [
    {"rule": "average"},
    {"rule": "average", "momentum": 0.7, "server_rate": 0.8},
    {"rule": "average", "codec": "fp16"},
    {"rule": "flora"},
    {"rule": "hetlora"},
    {"rule": "median"},
    {"rule": "trimmed_mean", "rule_options": {"hostile": 1}},
    {"rule": "krum", "rule_options": {"hostile": 1}},
    {"rule": "multi_krum", "rule_options": {"hostile": 1, "kept": 3}},
    {"rule": "norm_bounded", "rule_options": {"largest": 2.0}},
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule.values())))
@settings(max_examples=8, deadline=None)
@given(
    closed=st.integers(0, 3),
    keep=st.integers(0, 3),
    turns=st.lists(st.sampled_from(OWNERS), max_size=8),
    killed=st.booleans(),
)
def test_it_ends_as_one_that_never_had_the_owner(
    rule: dict[str, Any], closed: int, keep: int, turns: list[str], killed: bool
) -> None:
    how = {"rounds": 3, "quorum": 5, "keep_updates": keep, **rule}
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder) / "f.sqlite" if killed else None, owners=OWNERS, **how)
        trial.run(until=closed, turns=turns if closed < 3 else ())
        last = trial.closed
        told = trial.leave("d")
        assert told.how in ("deleted", "redone", "rolled back")
        exact = never([owner for owner in OWNERS if owner != "d"], **how)
        if told.how in ("deleted", "redone"):
            assert trial.closed == (last if told.how == "redone" else 0)
        assert trial.adapters() == exact[: trial.closed], "what stands is exact at once"
        if killed:
            trial.again()
        trial.run()
        assert trial.adapters() == exact
        trial.rounds.close()
