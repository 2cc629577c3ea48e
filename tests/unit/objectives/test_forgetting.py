"""Measures of forgetting on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.objectives import forgetting as measure
from cosilo.tasks.text import rouge_l_recall


def test_probability_is_the_geometric_mean_of_the_tokens() -> None:
    tokens = np.array([0.5, 0.25, 0.125])
    found = measure.probability(np.array([-np.log(tokens).sum()]), np.array([3.0]))
    assert found == pytest.approx([0.25])


def test_the_right_reply_among_wrong_ones() -> None:
    found = measure.chosen_probability(np.array([0.6]), np.array([[0.1, 0.3, 0.2]]))
    assert found == pytest.approx([0.5])


def test_truth_ratios_tell_what_is_known_from_what_was_pushed_away() -> None:
    right = np.array([0.9, 0.2, 0.001])
    wrong = np.array([[0.1, 0.1], [0.1, 0.4], [0.2, 0.2]])
    found = measure.truth_ratios(right, wrong)
    assert found == pytest.approx([1 / 9, 1.0, 200.0])
    assert measure.truthfulness(found) == pytest.approx(8 / 9 / 3)


def test_two_samples_of_one_distribution_and_of_two() -> None:
    rng = np.random.default_rng(0)
    one, same, other = rng.normal(size=300), rng.normal(size=300), rng.normal(0.5, size=300)
    assert measure.same_p(one, same) > 0.05
    assert measure.same_p(one, other) < 1e-4
    assert measure.same_p(one, one) == 1.0


def test_extraction_strength_is_what_follows_by_itself() -> None:
    yes, no = True, False
    rows = [[yes] * 4, [no, yes, yes, yes], [yes, yes, yes, no], [yes, no, yes, yes]]
    found = measure.extraction_strength([np.array(row) for row in rows])
    assert found == pytest.approx([1.0, 0.75, 0.0, 0.5])


def test_the_privacy_leak_has_a_sign() -> None:
    rng = np.random.default_rng(1)
    outside = rng.normal(size=400)
    never, known, pushed = (rng.normal(mean, size=400) for mean in (0.0, 2.0, -2.0))
    assert measure.privacy_leak(known, outside, never, outside) > 0.5
    assert measure.privacy_leak(pushed, outside, never, outside) < -0.5
    assert measure.privacy_leak(never, outside, never, outside) == 0.0


def test_member_scores_look_at_the_least_likely_tokens() -> None:
    assert measure.member_score(np.array([-1.0, -5.0, 0.0, -3.0, -0.1])) == pytest.approx(-4.0)
    assert measure.member_score(np.array([-2.0])) == -2.0


def test_utility_is_near_nothing_where_one_part_is() -> None:
    assert measure.utility([0.5, 0.5]) == pytest.approx(0.5)
    assert measure.utility([1.0, 0.25]) == pytest.approx(0.4)
    assert measure.utility([1.0, 0.0]) == 0.0


def test_the_chance_of_a_leak_in_several_draws_is_what_drawing_gives() -> None:
    p = np.array([0.2, 1e-9, 1.0])
    with np.errstate(divide="ignore"):
        found = measure.leaked_within(-np.log(p), 16)
    assert found == pytest.approx([1 - 0.8**16, 16e-9, 1.0], rel=1e-6)


def test_recall_counts_the_words_of_the_reference() -> None:
    assert rouge_l_recall("The father is a baker.", "the FATHER was a baker, and more") == 0.8
    assert rouge_l_recall("one two", "") == 0.0
    assert rouge_l_recall("", "") == 1.0
