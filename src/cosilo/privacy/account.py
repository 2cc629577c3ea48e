"""An owner's records in the book of ε: what a plan or a gateway says of it, and how it is used.

[privacy] ──▶ PrivacyConfig ── records ──▶ PrivacyAccount ──▶ the session and its boundaries
                                                │
                   require, spending ◀──────────┴──▶ `privacy.book`, opened for each use
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cosilo.errors import ConfigError, PrivacyError, StoreError
from cosilo.privacy.book import USUAL_DELTA, Booked, PrivacyBook
from cosilo.privacy.composition import Figure
from cosilo.privacy.mechanisms import Release
from cosilo.types import Demonstration


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """A plan's or a gateway's `[privacy]` table.

    Attributes:
        epsilon: what each record may spend in all, whoever spends it; None for no limit.
        delta: at which ε is stated.
        book: the book's file; false for none, and in the user's state folder when unset.
        here: the book lies on this machine; where it does not, nothing can be spent.
    """

    epsilon: float | None = None
    delta: float = USUAL_DELTA
    book: Path | bool = True
    here: bool = True

    def __post_init__(self) -> None:
        if self.epsilon is not None and not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon = {self.epsilon!r} is not positive and finite")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta = {self.delta!r} is not between 0 and 1")
        if self.epsilon is not None and self.book is False:
            raise ValueError(
                "an ε budget needs a book, which adds up what all runs spend: leave out "
                "book = false, or name its file"
            )

    def beside(self, base: Path) -> PrivacyConfig:
        """The same, a relative path of its book taken from `base`."""
        return self if isinstance(self.book, bool) else replace(self, book=base / self.book)

    def account(self, records: Iterable[Demonstration], *, spender: str) -> PrivacyAccount | None:
        """The account of `records` in the book; None where no book is kept."""
        return None if self.book is False else PrivacyAccount(self, records, spender=spender)

    def file(self) -> Path:
        """Where the book lies. Only who spends asks, so others need no place for one.

        Raises:
            ConfigError: there is no place.
            PrivacyError: it is on another machine.
        """
        if not self.here:
            raise PrivacyError(
                "the book of ε is a file of the machine that began the run, and this is another, so "
                "nothing can be booked and nothing was sent: run the point there (--jobs)"
            )
        return usual_book() if isinstance(self.book, bool) else self.book


def usual_book() -> Path:
    """Where the book lies unless a plan names another place: cosilo/privacy.sqlite under
    $XDG_STATE_HOME, or ~/.local/state.

    Raises:
        ConfigError: there is no home folder.
    """
    # By the XDG specification, a path that is not absolute does not count.
    chosen = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        state = chosen if chosen.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        raise ConfigError(
            "there is no home folder for the book of ε; name [privacy] book"
        ) from None
    return state / "cosilo" / "privacy.sqlite"


class PrivacyAccount:
    """An owner's records in a book, and what they may spend.

    The book is opened for each use, so that where nothing is spent there is no file; all its work is
    done in threads.

    Args:
        config: which book, and what may be spent.
        records: all that the owner holds: whatever a release was made of is among them.
        spender: who spends, for the book's readers.
    """

    def __init__(
        self, config: PrivacyConfig, records: Iterable[Demonstration], *, spender: str
    ) -> None:
        self.config = config
        self.spender = spender
        self.spent = False
        """Whether something was booked here."""
        self._records = tuple(records)
        self._numbers: dict[
            bytes, int
        ] = {}  # of the records in each book; one may be put in its place

    async def require(self, releases: Sequence[Release]) -> None:
        """Refuse, before anything is sent, what the budget cannot bear; see `PrivacyBook.require`.

        Raises:
            PrivacyBudgetError: a record would have spent more than it may.
            ConfigError: that cannot be said, as dp-accounting is missing.
            PrivacyError: the book cannot be used.
        """
        epsilon = self.config.epsilon
        if epsilon is None or not releases:
            return

        def work() -> None:
            with _certain(), self._open() as (book, data):
                book.require(data, releases, epsilon=epsilon, delta=self.config.delta)

        await asyncio.to_thread(work)

    @asynccontextmanager
    async def spending(self, release: Release | None, epsilon: float = 0.0) -> AsyncIterator[None]:
        """Around a message's departure: its release is booked before, and taken back where that fails.
        A cancelled departure stays in the book, as it may have happened.

        Args:
            epsilon: what the message says that it spent, which cannot be added up without a release of
                records: what the words of one text spent says nothing of a record.

        Raises:
            PrivacyBudgetError: a record would have spent more than it may; the block is not entered.
            PrivacyError: the book cannot be used; or there is a budget, and the message does not say
                which mechanism spent ε.
        """
        if release is None or release.unit == "text":
            if epsilon and self.config.epsilon is not None:
                raise PrivacyError(
                    "a message says that it spent ε, and not by which mechanism on which records, "
                    "so what all spend together cannot be held under the [privacy] budget; nothing "
                    "was sent"
                )
            yield
            return
        id = await asyncio.to_thread(self._reserved, release)
        self.spent = True
        try:
            yield
        except Exception:
            with suppress(StoreError):  # then it stays, and counts
                await asyncio.to_thread(self._cancelled, id)
            raise

    def figures(self) -> tuple[Figure, ...]:
        """What a record has spent, at most, for each unit, at the account's δ."""
        with self._open() as (book, data):
            return book.figures(data, self.config.delta)

    def lines(self) -> list[Booked]:
        """All that is booked over data with some of these records in them."""
        with self._open() as (book, data):
            return book.lines(data)

    def _reserved(self, release: Release) -> bytes:
        with _certain(), self._open() as (book, data):
            return book.reserve(
                data,
                release,
                spender=self.spender,
                epsilon=self.config.epsilon,
                delta=self.config.delta,
            )

    def _cancelled(self, id: bytes) -> None:
        with self._open() as (book, _):
            book.cancel(id)

    @contextmanager
    def _open(self) -> Iterator[tuple[PrivacyBook, int]]:
        with closing(PrivacyBook(self.config.file())) as book:
            if book.key not in self._numbers:
                self._numbers[book.key] = book.data(map(_text, self._records))
            yield book, self._numbers[book.key]


@contextmanager
def _certain() -> Iterator[None]:
    """What the book cannot say for sure, it does not allow."""
    try:
        yield
    except StoreError as error:
        raise PrivacyError(f"{error}; nothing was sent") from None


def _text(record: Demonstration) -> str:
    """What identifies a record: what its owner's user said in it, and no instruction around it."""
    return "\n".join(turn.content for turn in record.chat if turn.role == "user")
