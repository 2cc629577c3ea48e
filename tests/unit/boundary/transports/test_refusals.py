"""A transport carries bytes: replies, pieces and refusals come out as what went in."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from cosilo import errors
from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import (
    Ask,
    Completion,
    Message,
    Piece,
    Read,
    Refused,
    Request,
    Score,
    Scored,
    Scores,
    States,
    decode,
    encode,
)
from cosilo.boundary.transports.inside import InProcess
from cosilo.boundary.transports.refusals import raised, refusal
from cosilo.errors import (
    CosiloError,
    PrivacyError,
    RejectedError,
    UnexpectedReplyError,
    UnreachableError,
)
from cosilo.types import Delta, Generation, user

ASK = Ask(chat=user("q"))
OURS = [
    found
    for found in vars(errors).values()
    if inspect.isclass(found) and issubclass(found, CosiloError)
]


class Party:
    """Answers with what it was given; raises it where it is an error."""

    def __init__(self, *replies: Delta | Message | Exception) -> None:
        self.replies = replies

    async def handle(self, message: Message) -> Message:
        (reply,) = self.replies
        if isinstance(reply, Exception):
            raise reply
        assert isinstance(reply, Message)
        return reply

    async def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        for reply in self.replies:
            if isinstance(reply, Exception):
                raise reply
            assert isinstance(reply, Delta)
            yield reply


class Says:
    """A transport whose other end says these bytes."""

    remote = True

    def __init__(self, *said: bytes) -> None:
        self.said = said

    async def carry(self, payload: bytes) -> bytes:
        return self.said[0]

    async def carry_stream(self, payload: bytes) -> AsyncIterator[bytes]:
        for data in self.said:
            yield data


async def test_a_reply_comes_back_as_its_encoding() -> None:
    reply = Completion(generation=Generation("a", prompt_tokens=3))
    assert await InProcess(Party(reply)).carry(encode(ASK)) == encode(reply)
    deltas = [Delta(text="a"), Delta(finish_reason="stop")]
    pieces = [p async for p in InProcess(Party(*deltas)).carry_stream(encode(ASK))]
    assert [decode(p) for p in pieces] == [Piece(delta=d) for d in deltas]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
async def test_each_error_comes_out_as_itself(kind: type[CosiloError]) -> None:
    boundary = Boundary(InProcess(Party(kind("it is so"))), declared=frozenset({Ask}))
    with pytest.raises(kind, match="it is so") as whole:
        await boundary.send(ASK)
    with pytest.raises(kind, match="it is so") as pieces:
        [d async for d in boundary.stream(ASK)]
    for caught in (whole, pieces):
        assert type(caught.value) is kind
        assert vars(caught.value) == vars(kind("it is so"))
        assert caught.value.worked == kind("it is so").worked


@pytest.mark.parametrize(
    "error",
    [
        RejectedError("no", everything=True, worked=2, status=404, code="model_not_found"),
        UnreachableError("late", worked=3, status=429, retry_after=2.5),
    ],
)
def test_what_an_error_tells_besides_its_text_crosses_too(error: CosiloError) -> None:
    assert vars(raised(refusal(error), quoted=False)) == vars(error)


def test_of_an_error_that_is_none_of_ours_only_the_class_crosses() -> None:
    refused = refusal(KeyError("Maria's account"))
    assert b"Maria" not in encode(refused)
    error = raised(refused, quoted=True)
    assert isinstance(error, PrivacyError)
    assert "KeyError" in str(error)
    assert error.worked is None  # nobody knows


def test_a_long_text_is_cut() -> None:
    assert len(encode(refusal(RejectedError("x" * 10**6)))) < 5000


@pytest.mark.parametrize(
    "refused",
    [
        Refused(kind="KeyError", text="x"),
        Refused(kind="ClassVar", text="x"),
        Refused(kind="__doc__", text="x"),
        Refused(kind="annotations", text="x"),
        Refused(kind="", text="x" * 10**5),
    ],
    ids=lambda refused: refused.kind,
)
def test_a_refusal_that_names_no_error_of_ours_stops_the_message(refused: Refused) -> None:
    error = raised(refused, quoted=True)
    assert type(error) is PrivacyError
    assert len(str(error)) < 200


def test_what_a_refusal_claims_beyond_its_kind_is_left_out() -> None:
    told = {"worked": -5, "exit_code": 0, "message": "y", "status": 400}
    error = raised(Refused(kind="RejectedError", text="x", told=told), quoted=False)
    assert isinstance(error, RejectedError)
    assert (str(error), error.exit_code, error.status, error.worked) == ("x", 1, 400, None)


@pytest.mark.parametrize(
    "said",
    [
        encode(ASK),
        encode(Piece(delta=Delta(text="a"))),
        encode(Score(items=(Scored(chat=user("q"), reply="a"),))),
        b"",
        b"\x81",
        b"not msgpack",
    ],
)
async def test_a_reply_of_another_kind_is_refused_and_booked_at_its_most(said: bytes) -> None:
    boundary = Boundary(Says(said), declared=frozenset({Ask}))
    with pytest.raises(UnexpectedReplyError):
        await boundary.send(ASK)
    assert boundary.totals.tokens_in == ASK.tokens_bound()[0]
    assert [e.direction for e in boundary.ledger.entries()] == ["up"]


async def test_a_stream_that_sends_a_whole_reply_is_refused() -> None:
    first = encode(Piece(delta=Delta(text="a")))
    boundary = Boundary(
        Says(first, encode(Completion(generation=Generation("b")))), declared=frozenset({Ask})
    )
    got = []

    async def read() -> None:
        async for delta in boundary.stream(ASK):
            got.append(delta.text)

    with pytest.raises(UnexpectedReplyError):
        await read()
    assert got == ["a"]


async def test_only_an_ask_is_answered_in_pieces() -> None:
    score = encode(Score(items=(Scored(chat=user("q"), reply="a"),)))
    (said,) = [d async for d in InProcess(Party()).carry_stream(score)]
    found = decode(said)
    assert isinstance(found, Refused)
    assert found.kind == "UnexpectedReplyError"


async def test_what_a_party_in_other_hands_says_is_marked_as_its_words() -> None:
    said = encode(Refused(kind="RejectedError", text="\x1b[2Jno\n\ud800".replace("\ud800", "\x00")))
    boundary = Boundary(Says(said), declared=frozenset({Ask}))
    for send in (boundary.send(ASK), anext(boundary.stream(ASK))):
        with pytest.raises(RejectedError) as caught:
            await send
        assert caught.value.quoted
        assert str(caught.value) == " [2Jno\n "
    here = Boundary(InProcess(Party(RejectedError("no"))), declared=frozenset({Ask}))
    with pytest.raises(RejectedError) as ours:
        await here.send(ASK)
    assert not ours.value.quoted


async def test_an_error_of_a_special_kind_comes_out_as_what_it_is_a_case_of() -> None:
    class LateError(UnreachableError):
        """Known to that side alone."""

    said = raised(refusal(LateError("later", retry_after=2)), quoted=False)
    assert type(said) is UnreachableError
    assert said.retry_after == 2


def test_an_error_whose_text_cannot_be_encoded_crosses_all_the_same() -> None:
    error = RejectedError("a\udcffb", code="\udcff" * 300, status=10**30)
    assert decode(encode(refusal(error))) == Refused(
        kind="RejectedError",
        text="a b",
        told={"everything": False, "worked": 0, "code": " " * 200, "param": ""},
    )


SCORE = Score(items=(Scored(user("q"), "yes"), Scored(user("r"), "no")))
SCORES = Scores(packed=b"", lengths=(2, 2), vocabulary="v")


@pytest.mark.parametrize(
    ("request_", "reply", "said"),
    [
        (SCORE, SCORES, ""),
        (SCORE, replace(SCORES, lengths=(2,)), "not the scores of each reply"),
        (SCORE, replace(SCORES, lengths=(2, 40)), "more places than the replies can have"),
        (SCORE, replace(SCORES, spelt=(b"x",)), "pieces that were not asked for"),
        (Read(texts=("a", "b")), States(packed=bytes(8)), ""),
        (
            Read(texts=("a", "b")),
            States(packed=bytes(6)),
            "hidden states of another number of texts",
        ),
    ],
)
async def test_a_reply_that_was_not_asked_for_is_refused(
    request_: Request[Message], reply: Message, said: str
) -> None:
    boundary = Boundary(Says(encode(reply)), declared=frozenset({Score, Read}))
    if not said:
        assert type(await boundary.send(request_)) is type(reply)
        return
    with pytest.raises(UnexpectedReplyError, match=said):
        await boundary.send(request_)
    assert [e.direction for e in boundary.ledger.entries()] == ["up"]
    assert boundary.totals.tokens_in == request_.tokens_bound()[0]


@pytest.mark.parametrize("end", ["twice", "never"])
async def test_a_stream_that_goes_on_and_on_is_refused(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Completion, "largest", 1000)
    last = Delta(finish_reason="stop" if end == "twice" else None)
    said = [encode(Piece(delta=Delta("a"))), *[encode(Piece(delta=last))] * 100]
    boundary = Boundary(Says(*said), declared=frozenset({Ask}))
    got: list[Delta] = []
    with pytest.raises(UnexpectedReplyError, match="on and on"):
        got += [d async for d in boundary.stream(ASK)]
    (_, down) = boundary.ledger.entries()
    assert isinstance(down.message, Completion)
    assert down.message.generation.text == "a"
