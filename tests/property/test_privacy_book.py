"""The book against the slow, obvious version: every record with all the releases that touched it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.errors import PrivacyBudgetError
from cosilo.privacy.book import PrivacyBook
from cosilo.privacy.composition import composed
from cosilo.privacy.mechanisms import Gaussian, Release

DELTA = 1e-5
LIMIT = 3.0

data = st.frozensets(st.sampled_from("abcdefg"), min_size=1)
releases = st.builds(
    Release,
    mechanism=st.builds(Gaussian, sigma=st.sampled_from([2.0, 4.0, 9.0])),
    neighbours=st.sampled_from(["add_or_remove", "replace"]),
    unit=st.sampled_from(["record", "group"]),
    draw=st.sampled_from(["", "", "one", "two"]),
)


def most(touched: list[tuple[frozenset[str], Release]], mine: frozenset[str]) -> dict[str, float]:
    """The largest ε of a record of `mine`, for each unit."""
    found: dict[str, float] = {}
    for record in mine:
        for figure in composed([r for some, r in touched if record in some], DELTA):
            found[figure.unit] = max(found.get(figure.unit, 0.0), figure.epsilon)
    return found


@settings(max_examples=60)
@given(spends=st.lists(st.tuples(data, releases, st.booleans()), max_size=12), asked=data)
def test_a_record_has_spent_what_touched_it(
    spends: list[tuple[frozenset[str], Release, bool]], asked: frozenset[str]
) -> None:
    """Under a budget, or (where the last is false) without one."""
    touched: list[tuple[frozenset[str], Release]] = []
    with TemporaryDirectory() as folder, closing(PrivacyBook(Path(folder) / "book")) as book:
        for records, release, limited in spends:
            limit = LIMIT if limited else None
            again = bool(release.draw) and (records, release) in touched
            more = touched if again else [*touched, (records, release)]
            over = limited and not again and max(most(more, records).values()) > LIMIT
            number = book.data(sorted(records, reverse=limited))
            if over:
                with pytest.raises(PrivacyBudgetError):
                    book.reserve(number, release, spender="s", epsilon=limit, delta=DELTA)
            else:
                book.reserve(number, release, spender="s", epsilon=limit, delta=DELTA)
                touched = more
        found = {f.unit: f.epsilon for f in book.figures(book.data(asked), DELTA)}
    assert found == pytest.approx(most(touched, asked), rel=1e-9)
