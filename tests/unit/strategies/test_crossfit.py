"""Labels are judged by models that have not seen them, and wrong ones are disowned."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bag import Bag
from cosilo.errors import CapabilityError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.strategies.crossfit import disowned, out_of_fold
from cosilo.types import Demonstration, user

WORDS = {"a": ["red", "green", "blue", "pink"], "b": ["one", "two", "three", "four"]}


def examples(count: int, wrong: int, seed: int = 0) -> tuple[list[Demonstration], list[bool]]:
    rng = random.Random(seed)
    found, mistaken = [], [i < wrong for i in range(count)]
    for i in range(count):
        label = "ab"[i % 2]
        said = "ba"["ab".index(label)] if mistaken[i] else label
        found.append(Demonstration(str(i), user(" ".join(rng.choices(WORDS[label], k=5))), said))
    return found, mistaken


def test_wrong_labels_are_disowned_and_right_ones_are_not() -> None:
    made, mistaken = examples(120, 20)
    labels, found = out_of_fold(Bag(), made)
    assert labels == ("a", "b")
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert disowned([e.target for e in made], labels, found) == mistaken


def test_no_label_is_judged_by_a_model_that_has_seen_it() -> None:
    """Every text is of a word of its own, so that only who has seen it could know its label."""
    made = [Demonstration(str(i), user(f"word{i}"), "ab"[i % 2]) for i in range(40)]
    _, found = out_of_fold(Bag(), made)
    assert abs(found[:, 0] - 0.5).max() < 0.1


def test_what_stands_beside_is_learned_from_by_every_copy() -> None:
    made, _ = examples(8, 0)
    beside = [Demonstration("c", user("else"), "c")]
    labels, found = out_of_fold(Bag(), made, beside=beside)
    assert labels == ("a", "b", "c")
    assert found.shape == (8, 3)
    assert (found[:, 2] > 0).all()


def test_a_model_without_probabilities_is_refused() -> None:
    with pytest.raises(CapabilityError, match="class probabilities"):
        out_of_fold(ScriptedModel(), examples(8, 0)[0])
