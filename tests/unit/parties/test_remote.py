"""An owner elsewhere: what crosses is on record, and what was under way keeps its id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cosilo.boundary.messages import Ask, Completion, Piece, Refused, encode
from cosilo.boundary.transports.http import Https
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import BudgetExceededError, UnexpectedReplyError, UnreachableError
from cosilo.parties.remote import RemoteOwner, noted, party, way_to
from cosilo.types import Delta, Generation, user

ASK = Ask(chat=user("hello"))
REPLY = encode(Completion(generation=Generation("hi")))


class Way(Https):
    """A way that says what it is told to, and remembers the ids."""

    def __init__(self, *replies: bytes | Exception) -> None:
        super().__init__("http://127.0.0.1:1")
        self.replies = list(replies)
        self.names: list[str] = []

    async def carry(self, payload: bytes, *, name: str = "") -> bytes:
        self.names.append(name)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def carry_stream(self, payload: bytes, *, name: str = "") -> AsyncIterator[bytes]:
        self.names.append(name)
        for reply in self.replies:
            if isinstance(reply, Exception):
                raise reply
            yield reply


def owner(way: Way, path: Path | None = None) -> RemoteOwner:
    made = RemoteOwner(way, "lm", "party/lm")
    return made if path is None else noted(made, path, "large")


def entries(made: RemoteOwner) -> list[tuple[str, str]]:
    assert made.network is not None
    return [(entry.direction, entry.request) for entry in made.network.ledger.entries()]


async def test_what_crosses_is_on_record_under_its_id(tmp_path: Path) -> None:
    way = Way(REPLY)
    made = owner(way, tmp_path / "network.sqlite")
    assert await made.handle(ASK) == Completion(generation=Generation("hi"))
    assert entries(made) == [("up", way.names[0]), ("down", way.names[0])]
    await made.close()


async def test_what_was_under_way_when_a_process_ended_keeps_its_id(tmp_path: Path) -> None:
    path = tmp_path / "network.sqlite"
    before = Way(UnreachableError("gone"), UnreachableError("gone"))
    made = owner(before, path)
    for _ in range(2):
        with pytest.raises(UnreachableError):
            await made.handle(ASK)
    await made.close()
    after = Way(REPLY, REPLY, REPLY)
    made = owner(after, path)
    for _ in range(3):
        await made.handle(ASK)
    assert set(after.names[:2]) == set(before.names)
    assert after.names[2] not in before.names
    await made.close()
    last = Way(REPLY)
    made = owner(last, path)  # all of them are answered now
    await made.handle(ASK)
    assert last.names[0] not in before.names + after.names
    await made.close()


async def test_what_is_no_answer_under_an_old_id_is_asked_for_anew(tmp_path: Path) -> None:
    path = tmp_path / "network.sqlite"
    made = owner(Way(UnreachableError("gone")), path)
    with pytest.raises(UnreachableError):
        await made.handle(ASK)
    await made.close()
    way = Way(encode(Refused(kind="BudgetExceededError", text="no more")), REPLY)
    made = owner(way, path)
    assert isinstance(await made.handle(ASK), Completion)
    assert len(set(way.names)) == 2
    await made.close()


async def test_a_refusal_is_raised_and_a_wrong_reply_refused() -> None:
    way = Way(encode(Refused(kind="BudgetExceededError", text="no more")), encode(ASK))
    with pytest.raises(BudgetExceededError, match="no more") as refused:
        await owner(way).handle(ASK)
    assert refused.value.quoted
    with pytest.raises(UnexpectedReplyError, match="answered with Ask, not Completion"):
        await owner(way).handle(ASK)


async def test_a_stream_is_recorded_whole_also_where_it_breaks(tmp_path: Path) -> None:
    pieces = [encode(Piece(delta=Delta(text=t))) for t in ("a", "b")]
    way = Way(*pieces, UnreachableError("gone"))
    made = owner(way, tmp_path / "network.sqlite")
    said: list[str] = []

    async def listen() -> None:
        async for delta in made.handle_stream(ASK):
            said.append(delta.text)

    with pytest.raises(UnreachableError):
        await listen()
    assert said == ["a", "b"]
    assert [direction for direction, _ in entries(made)] == ["up", "down"]
    await made.close()


def test_what_is_not_on_record_goes_the_direct_way(tmp_path: Path) -> None:
    way = Way()
    assert way_to(owner(way)) is way
    recorded = owner(way, tmp_path / "network.sqlite")
    assert isinstance(way_to(recorded), InProcess)


def test_recorded_answers_are_kept_under_the_host_and_its_model() -> None:
    assert party("http://127.0.0.1:1").identity == "party/http://127.0.0.1:1/"
    assert party("http://127.0.0.1:1", model="m").identity == "party/http://127.0.0.1:1/m"
