"""A request to forget names things and nothing else; an answer says what became of each of them."""

from __future__ import annotations

import msgspec
import pytest

from cosilo.boundary.messages import Forget, Forgotten, encode
from cosilo.boundary.messages.base import decode
from cosilo.boundary.messages.forget import (
    MOST_NAMES,
    MOST_REQUESTS,
    ForgottenItem,
    InFederation,
    in_parts,
)
from cosilo.errors import UnexpectedReplyError
from cosilo.privacy.mechanisms import Release, SampledGaussian

FORGET = Forget(forget=32 * "f", requests=(32 * "1",), adapters=(32 * "a",))


def refused(**fields: object) -> None:
    data = msgspec.msgpack.encode({"message": "Forget", "forget": 32 * "f", **fields})
    with pytest.raises(UnexpectedReplyError):
        decode(data)


def test_names_are_ids_and_hashes_alone() -> None:
    refused()  # nothing at all
    refused(requests=["Anna Meyer, born 1970"])
    refused(adapters=["a" * 31 + "\n"])
    refused(bodies=["b" * 32])
    refused(requests=[32 * "1"], everything=True)
    refused(requests=[32 * "1", 32 * "1"])
    refused(requests=[f"{i:032x}" for i in range(MOST_REQUESTS + 1)])


def test_the_largest_of_them_fit() -> None:
    rounds = tuple(range(MOST_REQUESTS))
    whole = Forget(
        forget=32 * "f",
        requests=tuple(f"{i:032x}" for i in range(MOST_REQUESTS)),
        adapters=tuple(f"{i:032x}" for i in range(MOST_NAMES)),
        bodies=tuple(f"{i:040x}" for i in range(MOST_NAMES)),
        federations=tuple(
            InFederation(federation=f"{i:064x}", rounds=rounds[:100]) for i in range(MOST_NAMES)
        ),
    )
    assert decode(encode(whole)) == whole
    outcomes = tuple(
        ForgottenItem(what=what, how="deleted", names=(name,), count=1, before=64 * "a", after=64 * "b",
                left=("digests", "sent on", "others were given it"))
        for what, name in whole.named() if what != "request"
    )  # fmt: skip
    outcomes += (ForgottenItem(what="request", how="deleted", names=whole.requests, count=4096),)
    answer = Forgotten(
        forget=whole.forget, asked=whole.asked, at=1.0, outcomes=outcomes, chain=(bytes(4000),) * 4
    )
    assert len(encode(answer)) < Forgotten.largest
    whole.check_reply(answer)


@pytest.mark.parametrize(
    "change",
    [
        {"forget": 32 * "e"},
        {"part": 1},
        {"asked": 64 * "0"},
        {"outcomes": (ForgottenItem(what="request", how="deleted", names=(32 * "1",)),)},
        {
            "outcomes": (
                ForgottenItem(what="request", how="deleted", names=(32 * "1", 32 * "2")),
                ForgottenItem(what="adapter", how="deleted", names=(32 * "a",)),
            )
        },
    ],
    ids=["id", "part", "asked", "left out", "added"],
)
def test_an_answer_to_something_else_is_none(change: dict[str, object]) -> None:
    both = tuple(ForgottenItem(what=what, how="deleted", names=(n,)) for what, n in FORGET.named())
    good = Forgotten(forget=FORGET.forget, asked=FORGET.asked, at=1.0, outcomes=both)
    FORGET.check_reply(good)
    with pytest.raises(ValueError, match=r"answer|name"):
        FORGET.check_reply(msgspec.structs.replace(good, **change))


def test_what_is_asked_for_has_one_hash() -> None:
    booked = msgspec.structs.replace(
        FORGET,
        epsilon=0.5,
        release=Release(mechanism=SampledGaussian(noise=1.0, rate=0.1, steps=8)),
    )
    assert booked.asked == FORGET.asked
    assert msgspec.structs.replace(FORGET, part=1).asked != FORGET.asked
    assert FORGET.question() is None, "what is done cannot be answered from a record"


def test_many_names_go_in_several_messages() -> None:
    ids = [f"{i:032x}" for i in range(MOST_REQUESTS + 5)]
    federations = [
        InFederation(federation="ab", rounds=(3, 1)),
        InFederation(federation="cd", rounds=(1,)),
        InFederation(federation="ab", rounds=(2,)),
        InFederation(federation="cd"),
    ]
    one, two = in_parts(
        32 * "f", requests=[*ids, ids[0]], federations=federations, adapters=[32 * "a"]
    )
    assert (one.part, two.part) == (0, 1)
    assert [*one.requests, *two.requests] == ids
    assert one.federations == (
        InFederation(federation="ab", rounds=(1, 2, 3)),
        InFederation(federation="cd"),
    )
    assert (one.adapters, two.adapters, two.federations) == ((32 * "a",), (), ())
    assert in_parts(32 * "f", requests=reversed(ids), federations=federations[::-1])[1] == two  # type: ignore[arg-type]
    assert in_parts(32 * "f") == []
