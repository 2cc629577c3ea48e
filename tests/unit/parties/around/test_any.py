"""What surrounds an owner changes nothing of what it says, whoever it is and whatever it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cosilo.attacks.tampering import Tampering
from cosilo.boundary.messages import Ask, Completion, Message, Request
from cosilo.boundary.meter import Budget, Price, Totals
from cosilo.boundary.transports.base import Handles
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import RejectedError, UnreachableError
from cosilo.models.base import EVERYTHING, Shows
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.around.paid import Paid, Purse
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.around.timed import Timed
from cosilo.parties.remote import RemoteOwner
from cosilo.types import Delta, Generation, TokenLogprob, assemble, user

ASK = Ask(chat=user("q"))
SAID = Generation(
    "one two",
    tokens=(TokenLogprob("one two", -0.5),),
    prompt_tokens=3,
    completion_tokens=2,
    seconds=1.5,
)


class Weather(Message, frozen=True, kw_only=True, tag="WeatherForTest"):
    text: str


class Where(Request[Weather], frozen=True, kw_only=True, tag="WhereForTest"):
    """An exchange that nothing in Cosilo knows."""

    reply: ClassVar[type[Message]] = Weather
    shows: ClassVar[Shows] = Shows.TEXT
    place: str

    def tokens_bound(self) -> tuple[int, int]:
        return 9, 9

    def reply_bound(self, tokens: int) -> int:
        return 99


class Owner:
    """Answers chats, in pieces too, and says what the weather is."""

    def __init__(self) -> None:
        self.fail: Exception | None = None
        self.closed = False

    async def handle(self, message: Message) -> Message:
        if self.fail is not None:
            raise self.fail
        return (
            Weather(text=message.place)
            if isinstance(message, Where)
            else Completion(generation=SAID)
        )

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        try:
            yield Delta("one ")
            if self.fail is not None:
                raise self.fail
            yield Delta(
                "two", SAID.tokens, finish_reason="stop",
                prompt_tokens=3, completion_tokens=2, seconds=1.5,
            )  # fmt: skip
        finally:
            self.closed = True


class Notebook:
    """A book in memory."""

    def paid(self) -> Totals:
        return Totals()

    def pay(self, most: Totals) -> int:
        return 0

    def settle(self, number: int, cost: Totals, seconds: float) -> None: ...


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplayStore]:
    found = ReplayStore(tmp_path / "replay.sqlite")
    yield found
    found.close()


AROUND: dict[str, Callable[[Handles, ReplayStore], Handles]] = {
    "exposed": lambda inner, _: Exposed(inner, EVERYTHING),
    "timed": lambda inner, _: Timed(inner),
    "recorded": lambda inner, store: Recorded(inner, store, of=ScriptedModel()),
    "paid": lambda inner, _: Paid(inner, Purse(Notebook(), Budget()), Price()),
    "tampered, never": lambda inner, _: Tampering(inner, 0.0),
    "all of them": lambda inner, store: Exposed(
        Timed(
            Recorded(Paid(inner, Purse(Notebook(), Budget()), Price()), store, of=ScriptedModel())
        ),
        EVERYTHING,
    ),
}


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture(params=["here", "far"])
def inner(owner: Owner, request: pytest.FixtureRequest) -> Handles:
    """The owner itself, or what bytes that were carried to it and back make of it."""
    if request.param == "here":
        return owner
    way: Any = Way(owner)
    return RemoteOwner(way, "far", "party:far")


class Way(InProcess):
    """As long as a transport to another machine, and as short as one within the process."""

    async def carry(self, payload: bytes, *, name: str) -> bytes:  # type: ignore[override]
        return await super().carry(payload)

    def carry_stream(  # type: ignore[override]
        self, payload: bytes, *, name: str
    ) -> AsyncIterator[bytes]:
        return super().carry_stream(payload)


@pytest.fixture(params=AROUND)
def party(inner: Handles, store: ReplayStore, request: pytest.FixtureRequest) -> Handles:
    return AROUND[request.param](inner, store)


async def test_what_is_said_passes(party: Handles) -> None:
    for _ in range(2):
        assert await party.handle(ASK) == Completion(generation=SAID)
        assert await party.handle(Where(place="Bern")) == Weather(text="Bern")


async def test_so_do_its_pieces(party: Handles) -> None:
    for _ in range(2):
        assert assemble([d async for d in party.handle_stream(ASK)]) == SAID


@pytest.mark.parametrize(
    "error",
    [
        UnreachableError("down", worked=2, status=503, retry_after=1.5),
        RejectedError("no", code="x"),
    ],
)
async def test_so_does_what_it_fails_with(
    party: Handles, owner: Owner, error: UnreachableError | RejectedError
) -> None:
    owner.fail = error
    with pytest.raises(type(error)) as caught:
        await party.handle(ASK)
    assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))
    pieces = party.handle_stream(ASK)
    assert (await anext(pieces)).text == "one "
    with pytest.raises(type(error)) as caught:
        await anext(pieces)
    assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))


async def test_leaving_a_stream_closes_the_owners(party: Handles, owner: Owner) -> None:
    pieces = party.handle_stream(ASK)
    assert (await anext(pieces)).text == "one "
    await pieces.aclose()  # type: ignore[attr-defined]
    assert owner.closed
