"""Code that decides outcomes does not change without a word on whether the outcomes do."""

from __future__ import annotations

import json

import pytest

from code_hashes import STORED, code_hash, counted, differences, found, python

REFRESH = "write the hashes anew: .venv/bin/python tests/code_hashes.py"


def test_a_change_of_code_says_whether_outcomes_change() -> None:
    stored = json.loads(STORED.read_text("utf-8"))
    if stored["python"] != python():
        pytest.skip(f"the hashes are of Python {stored['python']}'s syntax trees")
    same, other = differences(stored["modules"], found())
    assert not same, (
        f"the code of {', '.join(same)} changed. If the same plan on the same data could have another "
        f"outcome now, raise VERSION there (one that states none is at 1). Then {REFRESH}"
    )
    assert not other, f"{', '.join(other)}: new, gone, or of another version; {REFRESH}"


def test_shared_code_counts() -> None:
    names = set(counted())
    for name in (
        "tasks/splits.py",
        "tasks/config.py",
        "models/encoder/encoder.py",
        "session.py",
        "strategies/inference/ends.py",
        "strategies/calibration.py",
        "defences/detection.py",
        "objectives/intervals.py",
        "attacks/membership.py",
    ):
        assert name in names, name


CODE = '"""What it is."""\nVERSION = 1\n\n\ndef f(x):\n    """What it does."""\n    return x + 1\n'


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("What it does.", "What it really does.", True),
        ("What it is.", "Another line.", True),
        ("    return", "    # a reason\n    return", True),
        ("return x + 1", "return (x + 1)", True),
        ("x + 1", "x + 2", False),
        ("def f", "def g", False),
        ("    return", "    x = x or 0\n    return", False),
    ],
)
def test_what_changes_a_hash(old: str, new: str, same: bool) -> None:
    assert old in CODE
    assert (code_hash(CODE) == code_hash(CODE.replace(old, new))) is same


def test_what_is_said_of_a_difference() -> None:
    stored: dict[str, list[object]] = {
        "a": [1, "x"],
        "b": [1, "x"],
        "c": [1, "x"],
        "gone": [1, "x"],
    }
    now: dict[str, list[object]] = {"a": [1, "x"], "b": [1, "y"], "c": [2, "y"], "new": [1, "x"]}
    assert differences(stored, now) == (["b"], ["c", "gone", "new"])
