"""One value, many ways of writing it."""

from __future__ import annotations

import pytest

from cosilo.matching import FuzzyPool, Pool, as_written, edits, normalised


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("José Müller", "a call from JOSE MULLER today"),
        ("José Müller", "jose-müller@example.org"),
        ("DE89 3704 0044", "to DE8937040044."),
        ("1,200.50", "it is 1.200,5 €"),
        ("1200", "pay 1,200.00 now"),
        ("555-123-4567", "call (555) 123 4567"),
        ("Straße 5", "at strasse 5"),
        ("１２３", "code 123"),  # full-width digits
    ],
)
def test_normalising_folds_what_says_the_same(value: str, text: str) -> None:
    assert Pool([value], normalised).found(normalised(text)) == {0}
    assert Pool([value], as_written).found(as_written(text)) == set()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Ann", "planning an annual meeting"),
        ("12", "in 2012 and 1203"),
        ("12.5", "125 items"),
        ("10.0.0.1", "10.0.0.12"),
        ("", "anything"),
    ],
)
def test_parts_of_words_and_numbers_are_not_finds(value: str, text: str) -> None:
    assert Pool([value], normalised).found(normalised(text)) == set()
    assert Pool([value], as_written).found(as_written(text)) == set()


def test_values_with_signs_at_their_ends_are_found_to_the_letter() -> None:
    text = as_written("write to +49 (30) 1234, or <a@b.org>!")
    assert Pool(["+49 (30) 1234", "a@b.org", "<a@b.org>", "@b.org>!"], as_written).found(text) == {
        0, 1, 2, 3,
    }  # fmt: skip


def test_fuzzy_finds_a_few_edits_and_says_how_near() -> None:
    pool = FuzzyPool(["Margarethe Schneider", "Bo Li", "4029357733"])
    found = pool.found(normalised("Margarete Schneyder, account 4029357738, Bo Lu"))
    assert found.keys() == {0, 2}
    assert found[0] == pytest.approx(1 - 2 / 19)
    assert found[2] == pytest.approx(0.9)


def test_short_values_must_match_exactly() -> None:
    assert edits("maria") == 0
    assert FuzzyPool(["Maria"]).found(normalised("Mario came")) == {}
    assert FuzzyPool(["Maria"]).found(normalised("MARIA came")) == {0: 1.0}


def test_most_of_a_value_is_a_find_and_a_lesser_part_is_not() -> None:
    pool = FuzzyPool(["Dr. Anna Bergström", "12 High Street, Malmö", "Anna Li"])
    found = pool.found(normalised("ANNA BERGSTRÖM lives in High Street, Malmö"))
    assert found.keys() == {0, 1}
    assert found[0] == pytest.approx(13 / 15)
    assert found[1] == pytest.approx(15 / 17)
    assert pool.found(normalised("Bergstr. in Malmö, asked Anna")) == {}


def test_a_secret_that_is_a_whole_text_is_searched_in_bounded_memory() -> None:
    words = [f"word{i}" for i in range(400)]
    pool = FuzzyPool([" ".join(words)])
    assert pool.found(normalised(" ".join(words[:300])))
    assert not pool.found(normalised(" ".join(words[:200])))
    assert len(pool._parts.folded) < 400
