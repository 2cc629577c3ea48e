"""What each mechanism on words promises, and what it does not."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.stats import chisquare

from cosilo.privacy.word_noise import (
    UNKNOWN,
    CusText,
    RanText,
    SanText,
    Vectors,
    WordKernel,
    distances,
    kernel,
)

SIZE, WIDTH = 60, 8
KINDS = ("santext", "custext", "rantext")


def vectors(seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).normal(size=(SIZE, WIDTH)).astype(np.float32)


def slow(found: Vectors, a: int, b: int) -> float:
    return math.dist(found[a].tolist(), found[b].tolist())


@pytest.mark.parametrize("kept", [0, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_the_chances_of_each_word_sum_to_one(kind: str, kept: int) -> None:
    for epsilon in (0.1, 1.0, 6.0, 40.0):
        made = kernel(kind, vectors(), epsilon, group=9, kept=kept, chance=0.5)
        rows = made.rows([*range(SIZE), UNKNOWN])
        assert rows.shape == (SIZE + 1, SIZE)
        assert (rows >= 0).all()
        assert rows.sum(axis=1) == pytest.approx(np.ones(SIZE + 1))


def test_santext_holds_its_bound_for_every_two_words_and_the_unknown_one() -> None:
    found = vectors()
    for epsilon in (0.5, 3.0, 10.0):
        made = SanText(found, epsilon)
        rows = np.log(made.rows([*range(SIZE), UNKNOWN]))
        for a in range(SIZE):
            for b in range(SIZE):
                ratio = (rows[a] - rows[b]).max()
                assert ratio <= epsilon * slow(found, a, b) + 1e-3
        largest = max(slow(found, a, b) for a in range(SIZE) for b in range(SIZE))
        assert np.abs(rows[:SIZE] - rows[SIZE]).max() <= epsilon * largest / 2 + 1e-3
        every = max((a - b).max() for a in rows for b in rows)
        assert made.bound == pytest.approx(every, rel=1e-9), "what is stated is what is spent"
        assert made.bound <= epsilon * largest + 1e-3


def test_custext_holds_its_bound_in_a_group_and_none_across_groups() -> None:
    for epsilon in (1.0, 6.0):
        made = CusText(vectors(), epsilon, group=9)
        rows = made.rows(range(SIZE))
        groups = made.groups
        assert sorted(np.concatenate(groups).tolist()) == list(range(SIZE))
        assert all(9 <= len(members) < 18 for members in groups)
        for members in groups:
            inside = rows[np.ix_(members, members)]
            ratios = np.log(inside[:, None] / inside[None]).max()
            assert epsilon / 2 < ratios <= epsilon + 1e-9
        first, second = groups[0], groups[1]
        assert not rows[first][:, second].any(), "nothing comes out that the other group could say"
        with np.errstate(divide="ignore"):
            across = np.log(rows[first[0]][first]) - np.log(rows[second[0]][first])
        assert np.isinf(across).all(), "one draw tells the two for certain: there is no ε"


def test_a_group_begins_with_the_commonest_word_left_and_its_nearest() -> None:
    found = vectors()
    made = CusText(found, 1.0, group=9)
    near = sorted(range(SIZE), key=lambda word: slow(found, 0, word))[:9]
    assert made.groups[0].tolist() == sorted(near)


def test_what_rantext_can_say_depends_on_what_it_is_given() -> None:
    made = RanText(vectors(), 6.0)
    assert made.bound is None
    rows = made.within(range(SIZE), radius=2.5)
    supports = rows > 0
    assert all(supports[word, word] for word in range(SIZE))
    assert len({tuple(support) for support in supports}) > 1
    a, b = next(
        (a, b) for a in range(SIZE) for b in range(SIZE) if (supports[a] & ~supports[b]).any()
    )
    with np.errstate(divide="ignore"):
        ratio = (np.log(rows[a][supports[a]]) - np.log(rows[b][supports[a]])).max()
    assert ratio == math.inf, "an output that one word gives and another never does: there is no ε"
    near = slow(vectors(), a, int(np.flatnonzero(supports[a] & ~supports[b])[0]))
    assert near < 2.5


def test_rantexts_distance_jumps_where_its_epsilon_passes_two_and_then_stays() -> None:
    def divisor(epsilon: float) -> float:
        return float((np.ptp(vectors(), axis=0) / RanText(vectors(), epsilon).scales).mean())

    assert divisor(1.99) == pytest.approx(1.99)
    assert divisor(2.1) > 9
    assert divisor(18.0) - divisor(3.0) < 0.1


def test_the_radius_is_the_length_of_a_laplace_vector() -> None:
    made = RanText(vectors(), 1.0)
    source = random.Random(4)
    squares = np.array([made.radius(source) ** 2 for _ in range(4000)])
    expected = 2 * float(np.square(made.scales).sum())  # a Laplace number's variance is 2 b²
    assert squares.mean() == pytest.approx(expected, abs=4 * squares.std() / math.sqrt(4000))


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_rows(kind: str) -> None:
    made = kernel(kind, vectors(), 2.0, group=9, kept=5, chance=0.5)
    source = random.Random(1)
    for word in (3, 30, UNKNOWN):
        drawn = made.draw([word] * 4000, source)
        counts = np.bincount(drawn, minlength=SIZE)
        row = _exact(made, kind, word)
        assert not counts[row == 0].any()
        often = row * 4000 >= 5
        observed = [*counts[often], counts[~often].sum()]
        expected = [*(4000 * row[often]), 4000 * row[~often].sum()]
        if expected[-1] == 0:
            observed, expected = observed[:-1], expected[:-1]
        slack = sum(observed) / sum(expected)
        assert chisquare(observed, np.array(expected) * slack).pvalue > 1e-3


def _exact(made: WordKernel, kind: str, word: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The chances of `word`; of RANTEXT, over many more radii than an attacker is given."""
    if kind != "rantext" or word == UNKNOWN:
        return made.rows([word])[0]
    source, inner = random.Random(2), RanText(vectors(), 2.0)
    rows = [inner.within([word], inner.radius(source))[0] for _ in range(4000)]
    row = np.mean(rows, axis=0)
    if word < 5:
        row = row / 2
        row[word] += 0.5
    return row


def test_a_kept_word_stays_as_often_as_it_is_said_to() -> None:
    made = kernel("santext", vectors(), 1.0, kept=10, chance=0.75)
    plain = SanText(vectors(), 1.0)
    rows, inner = made.rows([4, 20]), plain.rows([4, 20])
    assert rows[0, 4] == pytest.approx(0.75 + 0.25 * inner[0, 4])
    assert rows[1] == pytest.approx(inner[1])
    assert made.bound == plain.bound


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kind": "santxt"}, "none of santext, custext, rantext"),
        ({"epsilon": 0.0}, "epsilon = 0.0"),
        ({"epsilon": math.nan}, "epsilon = nan"),
        ({"epsilon": 41.0}, "up to 40"),
        ({"kind": "custext", "group": 1}, "group = 1"),
        ({"kind": "custext", "group": 61}, "group = 61"),
        ({"kept": 61}, "kept = 61"),
        ({"kept": 1, "chance": 1.5}, "chance = 1.5"),
    ],
)
def test_numbers_that_no_mechanism_has_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        kernel(**{"kind": "santext", "vectors": vectors(), "epsilon": 1.0, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 3e38])
def test_a_vector_that_is_no_number_is_refused(wrong: float) -> None:
    vectors = np.ones((4, 3), np.float32)
    np.testing.assert_allclose(distances(vectors, 3 * vectors), 12**0.5)
    vectors[2, 1] = wrong
    with pytest.raises(ValueError, match="no number"):
        distances(vectors, vectors)
