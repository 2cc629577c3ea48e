"""An owner's account in the book: opened only where something is spent, and certain or closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosilo.errors import ConfigError, PrivacyBudgetError, PrivacyError
from cosilo.privacy.account import PrivacyAccount, PrivacyConfig, usual_book
from cosilo.privacy.accountant import noise_for
from cosilo.privacy.mechanisms import Gaussian, Release
from cosilo.tables import read
from cosilo.types import Demonstration, user

DELTA = 1e-5
TWO = Release(mechanism=Gaussian(sigma=noise_for(2.0, DELTA, rounds=1)))
"""Alone, it spends ε = 2."""


def record(text: str) -> Demonstration:
    return Demonstration(text, user(text, system="Sort it."), "x")


def account(path: Path, *texts: str, epsilon: float | None = None) -> PrivacyAccount:
    config = PrivacyConfig(book=path, epsilon=epsilon, delta=DELTA)
    return PrivacyAccount(config, map(record, texts), spender="run/point")


async def test_an_account_books_around_a_departure(tmp_path: Path) -> None:
    path = tmp_path / "book"
    mine = account(path, "a", "b", epsilon=3.0)
    await mine.require([])
    assert not path.exists(), "where nothing is spent there is no book"
    async with mine.spending(TWO):
        assert len(mine.lines()) == 1
    with pytest.raises(OSError, match="gone"):
        async with mine.spending(TWO):
            raise OSError("gone")
    (figure,) = mine.figures()
    assert (figure.epsilon, figure.releases) == (pytest.approx(2.0), 1)
    other = account(path, "b", epsilon=2.5)  # another instruction around it is the same record
    with pytest.raises(PrivacyBudgetError):
        await other.require([TWO])
    with pytest.raises(PrivacyBudgetError):
        async with other.spending(TWO):
            raise AssertionError("entered")


async def test_what_cannot_be_added_up_is_not_sent_under_a_budget(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="the owner has none"):
        async with account(tmp_path / "a").spending(TWO):
            raise AssertionError("entered")
    with pytest.raises(PrivacyError, match="not by which mechanism"):
        async with account(tmp_path / "b", "x", epsilon=1.0).spending(None, 0.5):
            raise AssertionError("entered")
    async with account(tmp_path / "c", "x").spending(None, 0.5):
        pass
    assert not (tmp_path / "c").exists()


async def test_on_another_machine_than_the_books_nothing_is_spent() -> None:
    away = PrivacyConfig(here=False).account([record("x")], spender="s")
    assert away is not None
    with pytest.raises(PrivacyError, match="--jobs"):
        async with away.spending(TWO):
            raise AssertionError("entered")


async def test_a_book_that_cannot_be_written_lets_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mine = account(tmp_path / "file" / "book", "x", epsilon=1.0)
    with pytest.raises(PrivacyError, match=r"cannot be used: .*; nothing was sent"):
        async with mine.spending(TWO):
            raise AssertionError("entered")
    with pytest.raises(PrivacyError, match=r"cannot be used: .*; nothing was sent"):
        await mine.require([TWO])


async def test_a_book_that_is_put_in_the_place_of_another_is_kept_from_its_beginning(
    tmp_path: Path,
) -> None:
    mine = account(tmp_path / "book", "b", epsilon=2.5)
    async with mine.spending(TWO):
        pass
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"book{end}").unlink(missing_ok=True)
    other = account(tmp_path / "book", "a")  # which has number 1 there
    async with other.spending(TWO):
        pass
    async with mine.spending(TWO):
        pass
    with pytest.raises(PrivacyBudgetError):
        async with mine.spending(TWO):
            raise AssertionError("entered")
    assert [figure.releases for figure in other.figures()] == [1]


def test_a_budget_without_a_book_is_refused() -> None:
    with pytest.raises(ConfigError, match="an ε budget needs a book"):
        read(PrivacyConfig, {"epsilon": 2.0, "book": False}, where="[privacy]")
    for wrong in ({"epsilon": 0.0}, {"delta": 1.0}, {"epsilon": float("inf")}):
        with pytest.raises(ConfigError, match="is not"):
            read(PrivacyConfig, wrong, where="[privacy]")


def test_where_the_book_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert usual_book() == tmp_path / "cosilo" / "privacy.sqlite"
    monkeypatch.setenv("XDG_STATE_HOME", "state")  # not absolute, so it does not count
    monkeypatch.setenv("HOME", "/home/ann")
    assert usual_book() == Path("/home/ann/.local/state/cosilo/privacy.sqlite")
    given = read(PrivacyConfig, {"book": "b.sqlite"}, where="")
    assert given.beside(Path("/plans")).book == Path("/plans/b.sqlite")
    found = given.beside(Path("/plans")).account([record("x")], spender="s")
    assert found is not None
    assert found.config.file() == Path("/plans/b.sqlite")
    assert PrivacyConfig(book=False).account([], spender="s") is None


async def test_without_a_home_only_who_spends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr("cosilo.privacy.account.Path.home", nowhere)
    mine = PrivacyConfig().account([record("x")], spender="s")
    assert mine is not None
    async with mine.spending(None):
        pass
    with pytest.raises(ConfigError, match=r"name \[privacy\] book"):
        async with mine.spending(TWO):
            raise AssertionError("entered")
