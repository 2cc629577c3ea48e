"""What a message spent of the owner's records is booked before it leaves, or it does not leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask, Completion, Message, decode, encode
from cosilo.boundary.meter import Budget, Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import (
    BudgetExceededError,
    PrivacyBudgetError,
    StoreError,
    UnexpectedReplyError,
    UnreachableError,
)
from cosilo.privacy.account import PrivacyAccount, PrivacyConfig
from cosilo.privacy.mechanisms import Gaussian, Laplace, Release, SampledGaussian, Stated
from cosilo.types import Delta, Demonstration, Generation, user

ASK = Ask(chat=user("a question"))
SPENT = replace(ASK, epsilon=0.5, release=Release(mechanism=Gaussian(sigma=3.0), draw="d"))


class Party:
    """Notes how many lines are in the book when a message arrives."""

    def __init__(self, account: PrivacyAccount, error: Exception | None = None) -> None:
        self.account, self.error = account, error
        self.booked: list[int] = []

    async def handle(self, message: Message) -> Message:
        self.booked.append(len(self.account.lines()))
        if self.error:
            raise self.error
        return Completion(generation=Generation("yes"))

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        await self.handle(ask)
        yield Delta("yes", finish_reason="stop")


def account(path: Path, epsilon: float | None = None) -> PrivacyAccount:
    record = Demonstration("1", user("a record"), "x")
    config = PrivacyConfig(book=path / "book", epsilon=epsilon)
    return PrivacyAccount(config, [record], spender="test")


def road(party: Party, **more: object) -> Boundary:
    declared = frozenset({Ask})
    return Boundary(InProcess(party), declared=declared, account=party.account, **more)  # type: ignore[arg-type]


async def test_it_is_in_the_book_when_it_arrives(tmp_path: Path) -> None:
    party = Party(account(tmp_path))
    await road(party).bind("one").send(SPENT)
    await road(party).send(ASK)  # what spends nothing is not booked
    async for _ in road(party).stream(replace(SPENT, release=Release(mechanism=Laplace(scale=1)))):
        pass
    assert party.booked == [1, 1, 2]
    assert party.account.lines()[0].release == SPENT.release


async def test_what_the_budget_cannot_bear_does_not_leave(tmp_path: Path) -> None:
    party, ledger = Party(account(tmp_path, epsilon=0.1)), MemoryLedger()
    boundary = road(party, ledger=ledger)
    for _ in range(2):
        with pytest.raises(PrivacyBudgetError):
            await boundary.send(SPENT)
    with pytest.raises(PrivacyBudgetError):
        async for _ in boundary.stream(SPENT):
            pass
    assert party.booked == []
    assert list(ledger.entries()) == []
    assert boundary.totals.messages == boundary.meter.reserved.messages == 0
    assert party.account.lines() == []


async def test_what_did_not_leave_for_another_reason_is_taken_back(tmp_path: Path) -> None:
    class Full(MemoryLedger):
        async def append(self, *_: object) -> int:  # type: ignore[override]
            raise StoreError("full")

    party = Party(account(tmp_path))
    with pytest.raises(BudgetExceededError):
        await road(party, meter=Meter(Budget(messages=0))).send(SPENT)
    with pytest.raises(StoreError, match="full"):
        await road(party, ledger=Full()).send(SPENT)
    assert party.booked == party.account.lines() == []


async def test_what_left_stays_spent_though_no_reply_comes(tmp_path: Path) -> None:
    party = Party(account(tmp_path), UnreachableError("gone"))
    with pytest.raises(UnreachableError):
        await road(party).send(SPENT)
    assert len(party.account.lines()) == 1


def test_a_message_without_a_release_has_the_bytes_it_always_had() -> None:
    plain = b"\x82\xa7message\xa3Ask\xa4chat\x91\x82\xa4role\xa4user\xa7content\xaaa question"
    assert encode(ASK) == plain


@pytest.mark.parametrize(
    "mechanism",
    [
        Gaussian(sigma=2.0, sensitivity=1.4),
        Laplace(scale=2.0),
        SampledGaussian(noise=1.0, rate=0.1, steps=3),
        Stated(epsilon=1.0, delta=1e-6, what="the exponential mechanism"),
    ],
)
def test_every_mechanism_crosses(mechanism: Gaussian | Laplace | SampledGaussian | Stated) -> None:
    release = Release(mechanism=mechanism, neighbours="replace", unit="group", series="s", draw="d")
    message = replace(ASK, release=release)
    assert decode(encode(message)) == message


def test_a_release_that_is_none_is_no_message() -> None:
    for wrong in (Gaussian(sigma=-1.0), Stated(epsilon=float("nan")), Laplace(scale=0.0)):
        with pytest.raises(UnexpectedReplyError):
            decode(encode(replace(ASK, release=Release(mechanism=wrong))))
