"""What an owner notes of requests to forget, so that each ends in one answer whatever happens between.

    planned (what there was) ──▶ done, thing by thing ──▶ answered (signed; given again as it is)

A plan is on the disk before anything is taken away: an owner that was killed in between knows what
there was, and does all of it once more, which does no harm. Without it, what was deleted before the
kill would be "nothing of that name" after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cosilo.boundary.messages.forget import Forgotten, ForgottenItem, Left


class Planned(NamedTuple):
    """What there is of something that is named.

    Attributes:
        outcome: what will be told of it, once it is done.
        places: what this owner has it under, where that is not what it was named by.
        rounds: of a federation, those that are named.
    """

    outcome: ForgottenItem
    places: tuple[str, ...] = ()
    rounds: tuple[int, ...] = ()


@dataclass(frozen=True)
class KeptForget:
    """A request to forget, as far as it has come.

    Attributes:
        asked: a hash of what it asks for.
        planned: what there was of what it names.
        answer: the encoded `Forgotten`; None before all is done.
    """

    asked: str
    planned: tuple[Planned, ...]
    answer: bytes | None = None


class ForgetBook(Protocol):
    """An owner's notes on requests to forget, and what it has on record of single requests."""

    @property
    def lock(self) -> asyncio.Lock:
        """Held while something is forgotten: one request to forget at a time."""

    def find(self, client: str, forget: str, part: int) -> KeptForget | None: ...
    def plan(self, client: str, forget: str, part: int, kept: KeptForget) -> None:
        """Note what there is, before any of it is taken away.

        Raises:
            StoreError: it cannot be written.
        """

    def answered(self, client: str, forget: str, part: int, answer: bytes) -> None:
        """Note what is answered, before it is.

        Raises:
            StoreError: it cannot be written.
        """

    def known(self, client: str, names: Sequence[str]) -> set[str]:
        """Which of these ids are of requests of the client's.

        Raises:
            RejectedError: one of them is still worked on.
        """

    def count(self, client: str) -> int:
        """How many requests of the client's there are."""

    def forget(self, client: str, names: Sequence[str] | None) -> tuple[Left, ...]:
        """Keep no content of these requests nor of their replies any longer; of none at all where
        `names` is None. What is left of them.

        Raises:
            StoreError: it cannot be written.
        """

    @property
    def left_of_rounds(self) -> tuple[Left, ...]:
        """What is left of rounds of a federation that were taken back."""

    def updates(self, client: str) -> list[str]:
        """The ids of requests by which the client gave updates to a federation."""

    def rounds(self, client: str) -> list[str]:
        """Those of `updates`, and of requests by which it was told what came of rounds."""

    def signed(self, answer: Forgotten) -> Forgotten:
        """`answer`, signed where this owner can sign."""


@dataclass
class MemoryForgets:
    """That of an owner in the data owner's own process: it keeps no record of requests, and there is
    nobody to sign for."""

    kept: dict[tuple[str, str, int], KeptForget] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    left_of_rounds: tuple[Left, ...] = ()

    def find(self, client: str, forget: str, part: int) -> KeptForget | None:
        return self.kept.get((client, forget, part))

    def plan(self, client: str, forget: str, part: int, kept: KeptForget) -> None:
        self.kept[client, forget, part] = kept

    def answered(self, client: str, forget: str, part: int, answer: bytes) -> None:
        before = self.kept[client, forget, part]
        self.kept[client, forget, part] = KeptForget(before.asked, before.planned, answer)

    def known(self, client: str, names: Sequence[str]) -> set[str]:
        return set()

    def count(self, client: str) -> int:
        return 0

    def forget(self, client: str, names: Sequence[str] | None) -> tuple[Left, ...]:
        return ()

    def updates(self, client: str) -> list[str]:
        return []

    def rounds(self, client: str) -> list[str]:
        return []

    def signed(self, answer: Forgotten) -> Forgotten:
        return answer
