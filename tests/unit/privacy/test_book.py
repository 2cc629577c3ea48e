"""The book: keyed by what records say, added up where data overlap, booked once, never overspent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosilo.errors import PrivacyBudgetError, PrivacyError, StoreError
from cosilo.privacy.accountant import noise_for
from cosilo.privacy.book import PrivacyBook, groups_of
from cosilo.privacy.composition import composed
from cosilo.privacy.mechanisms import Gaussian, Laplace, Release

DELTA = 1e-5
TWO = Release(mechanism=Gaussian(sigma=noise_for(2.0, DELTA, rounds=1)))
"""Alone, it spends ε = 2."""


@pytest.fixture
def book(tmp_path: Path) -> Iterator[PrivacyBook]:
    made = PrivacyBook(tmp_path / "state" / "book.sqlite")
    yield made
    made.close()


def spend(
    book: PrivacyBook, data: int, release: Release = TWO, *, epsilon: float | None = None
) -> bytes:
    return book.reserve(data, release, spender="run/point", epsilon=epsilon, delta=DELTA)


def epsilon(book: PrivacyBook, data: int) -> float:
    return max((f.epsilon for f in book.figures(data, DELTA)), default=0.0)


def test_a_copied_reordered_or_renamed_file_is_the_same_data(book: PrivacyBook) -> None:
    data = book.data(["a b", "C", "d"])
    assert book.data(["d", "a  B ", "c", "c"]) == data
    assert book.data(["a b", "c"]) != data
    spend(book, data)
    assert epsilon(book, book.data(["D", "C", "A B"])) == pytest.approx(2.0)


def test_data_add_up_where_they_overlap_and_only_there(book: PrivacyBook) -> None:
    first, second, apart = book.data("abc"), book.data("cde"), book.data("xyz")
    part = book.data("ab")
    for data in (first, second, apart):
        spend(book, data)
    both = composed([TWO, TWO], DELTA)[0].epsilon
    assert epsilon(book, first) == epsilon(book, second) == pytest.approx(both)
    assert epsilon(book, apart) == pytest.approx(2.0)
    assert epsilon(book, part) == pytest.approx(2.0), "none of its records is in the second"
    spend(book, book.data("ce"))
    assert epsilon(book, first) == pytest.approx(composed([TWO] * 3, DELTA)[0].epsilon)
    assert epsilon(book, part) == pytest.approx(2.0)


def test_two_runs_compose_and_a_third_is_refused(book: PrivacyBook) -> None:
    data, limit = book.data("abc"), 3.5
    spend(book, data, epsilon=limit)
    spend(book, data, epsilon=limit)
    assert 2 < epsilon(book, data) < limit
    with pytest.raises(PrivacyBudgetError, match=r"would reach 3\.722.*budget, 3\.5; nothing was"):
        spend(book, data, epsilon=limit)
    with pytest.raises(PrivacyBudgetError):
        spend(book, book.data("cxyz"), epsilon=limit)  # one record is enough
    assert len(book.lines()) == 2
    spend(book, book.data("xyz"), epsilon=limit)
    spend(book, data)  # without a budget nothing is refused, and all is booked
    assert epsilon(book, data) > limit


def test_the_whole_budget_may_be_spent_to_the_last_digit(book: PrivacyBook) -> None:
    data = book.data("abc")
    round_of_four = Release(mechanism=Gaussian(sigma=noise_for(2.0, DELTA, rounds=4)))
    for _ in range(4):
        spend(book, data, round_of_four, epsilon=2.0)
    with pytest.raises(PrivacyBudgetError):
        spend(book, data, Release(mechanism=Gaussian(sigma=1e3)), epsilon=2.0)


def test_no_noise_fits_no_budget(book: PrivacyBook) -> None:
    with pytest.raises(PrivacyBudgetError, match="would reach inf"):
        spend(book, book.data("a"), Release(mechanism=Gaussian(sigma=0.0)), epsilon=100.0)


def test_what_is_no_mechanism_is_not_booked(book: PrivacyBook) -> None:
    with pytest.raises(PrivacyError, match="no mechanism has these numbers"):
        spend(book, book.data("a"), Release(mechanism=Gaussian(sigma=float("nan"))))
    assert book.lines() == []


def test_a_draw_that_is_made_again_is_booked_once(book: PrivacyBook) -> None:
    data = book.data("abc")
    drawn = Release(mechanism=TWO.mechanism, series="s", draw="d")
    id = spend(book, data, drawn, epsilon=2.0)
    assert spend(book, data, drawn, epsilon=2.0) == id
    assert len(book.lines()) == 1
    with pytest.raises(PrivacyBudgetError):
        spend(book, data, Release(mechanism=TWO.mechanism, series="s", draw="e"), epsilon=2.0)
    with pytest.raises(PrivacyBudgetError):
        spend(book, data, epsilon=2.0)  # fresh noise is another release each time
    assert spend(book, book.data("abcd"), drawn) != id, "of other data it is another"


def test_what_has_not_left_is_taken_back_unless_others_carry_it(book: PrivacyBook) -> None:
    data = book.data("abc")
    book.cancel(spend(book, data))
    assert book.lines() == []
    drawn = Release(mechanism=TWO.mechanism, series="s", draw="d")
    first = spend(book, data, drawn)
    book.cancel(spend(book, data, drawn))
    assert len(book.lines()) == 1
    book.cancel(first)
    assert book.lines() == []


def test_what_cannot_be_borne_is_refused_before_anything_is_sent(book: PrivacyBook) -> None:
    data = book.data("abc")
    four = [Release(mechanism=Gaussian(sigma=noise_for(2.0, DELTA, rounds=4)), series="s")] * 4
    book.require(data, four, epsilon=2.0, delta=DELTA)
    with pytest.raises(PrivacyBudgetError):
        book.require(data, four, epsilon=1.9, delta=DELTA)
    assert book.lines() == []
    spend(book, data, Release(mechanism=four[0].mechanism, series="s", draw="1"))
    book.require(data, four, epsilon=0.1, delta=DELTA)  # it may be made again for nothing
    with pytest.raises(PrivacyBudgetError):
        book.require(data, [TWO], epsilon=0.1, delta=DELTA)


def test_the_clock_does_not_matter(book: PrivacyBook, monkeypatch: pytest.MonkeyPatch) -> None:
    data = book.data("abc")
    for now in (1e9, -5.0, 4e9):
        monkeypatch.setattr("cosilo.privacy.book.time.time", lambda now=now: now)
        spend(book, data)
    assert [line.at for line in book.lines()] == [1e9, -5.0, 4e9]
    assert epsilon(book, data) == pytest.approx(composed([TWO] * 3, DELTA)[0].epsilon)


def test_the_file_is_its_owners_alone_and_holds_no_text(tmp_path: Path, book: PrivacyBook) -> None:
    spend(book, book.data(["the patient zebra7413"]))
    files = list((tmp_path / "state").iterdir())
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert not [f for f in files if b"zebra" in f.read_bytes()]


def test_two_books_know_a_record_by_different_hashes(tmp_path: Path) -> None:
    found = []
    for name in "ab":
        made = PrivacyBook(tmp_path / name)
        made.data(["x"])
        made.close()
        with sqlite3.connect(tmp_path / name) as db:
            found += db.execute("SELECT record FROM records").fetchall()
        db.close()
    assert found[0] != found[1]


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, book: PrivacyBook) -> None:
    (tmp_path / "text").write_text("not a database at all, " * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        PrivacyBook(tmp_path / "text")
    with pytest.raises(StoreError, match="there is no book"):
        PrivacyBook(tmp_path / "none", write=False)
    data = book.data("a")
    spend(book, data)
    book._db.execute("UPDATE releases SET release = x'c1'")
    with pytest.raises(StoreError, match="damaged line"):
        book.figures(data)
    book._db.execute("UPDATE about SET value = 99 WHERE name = 'format'")
    with pytest.raises(StoreError, match="another version"):
        PrivacyBook(book.path)


def test_parts_tell_what_made_it(book: PrivacyBook) -> None:
    data = book.data("abc")
    for _ in range(3):
        spend(book, data)
    spend(book, data, Release(mechanism=Laplace(scale=3.0)))
    first, second = groups_of(book.lines())
    assert str(first) == (
        "run/point: 3 × Gaussian, σ = 1.994, sensitivity 1 (3 records of data 1, add_or_remove)"
    )
    assert (second.count, second.records) == (1, 3)
    assert first.alone(DELTA) == pytest.approx(composed([TWO] * 3, DELTA)[0].epsilon)


def test_data_that_a_book_does_not_know_have_no_figure(book: PrivacyBook) -> None:
    with pytest.raises(StoreError, match="has no data 7"):
        spend(book, 7, epsilon=1.0)
    with pytest.raises(StoreError, match="has no data 7"):
        book.figures(7)
