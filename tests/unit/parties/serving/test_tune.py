"""An LM's owner tunes on lessons that can be, and on no others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")

import lent
import taught
from cosilo.boundary.messages import Ask, Completion, Tune, Tuned, encode
from cosilo.boundary.messages.base import decode
from cosilo.errors import (
    CapabilityError,
    RejectedError,
    UnexpectedReplyError,
    UnknownAdapterError,
)
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.serving.tune import _shares
from cosilo.types import user

TUNE = Tune(
    chats=(user("about 1"), user("about 2")), choices=("billing", "delivery"),
    shares=((1000, 0), (250, 750)), steps=2, batch=2, learning_rate=1e-2, rank=2,
)  # fmt: skip
REPLIES = msgspec.structs.replace(TUNE, choices=(), replies=("a", "b"), shares=((0,), (500,)))


async def test_it_is_tuned_for_whoever_asked() -> None:
    model = taught.tunable()
    owner, other = LMOwner(model, client="one"), LMOwner(model, client="other")
    tuned = await owner.handle(TUNE)
    assert isinstance(tuned, Tuned)
    assert tuned.prompt_tokens > 0
    again = await owner.handle(msgspec.structs.replace(TUNE, again=True))
    assert again == msgspec.structs.replace(tuned, prompt_tokens=0), "trained once, billed once"
    ask = Ask(chat=user("about 1"), sampling=lent.SAMPLING, adapter=tuned.name)
    assert isinstance(await owner.handle(ask), Completion)
    with pytest.raises(UnknownAdapterError):
        await other.handle(ask)
    with pytest.raises(CapabilityError, match="'tunable'"):
        await LMOwner(lent.plain_model()).handle(TUNE)


async def test_replies_are_tuned_on_as_well() -> None:
    assert isinstance(await LMOwner(taught.shared()).handle(REPLIES), Tuned)


def test_only_proportions_count() -> None:
    assert _shares(TUNE).tolist() == [[1, 0], [0.25, 0.75]]
    assert _shares(REPLIES).tolist() == [[0], [2]]


def test_what_is_read_is_reserved() -> None:
    reads, writes = TUNE.tokens_bound()
    prompts = [len(lent.parts()[1].prompt(chat)) for chat in TUNE.chats]
    assert (reads >= 2 * sum(prompts) + 4 * 8, writes) == (True, 0)
    assert TUNE.runs() == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"choices": ()}, {"choices": ("a", "a")}, {"choices": ("a",), "shares": ((1,), (1,))},
        {"shares": ((1, 0),)}, {"shares": ((1, 0), (1,))}, {"shares": ((1, 0), (0, 0))},
        {"replies": ("a", "b")}, {"choices": (), "replies": ("a",), "shares": ((1,), (1,))},
        {"choices": (), "replies": ("a", "b"), "shares": ((0,), (0,))},
    ],
)  # fmt: skip
async def test_lessons_that_do_not_fit_together_are_refused(wrong: dict[str, Any]) -> None:
    message = decode(encode(msgspec.structs.replace(TUNE, **wrong)))
    assert message.tokens_bound() >= (0, 0)  # type: ignore[attr-defined]  # a host asks it first
    with pytest.raises(RejectedError) as caught:
        await LMOwner(taught.shared()).handle(message)
    assert str(caught.value) == message.fault()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shares": ((-1, 2), (1, 0))}, {"shares": ((2000, 0), (1, 0))}, {"chats": ()},
        {"shares": ()}, {"steps": 0}, {"rank": 0}, {"batch": 0}, {"confidence": 1.0},
        {"learning_rate": float("nan")}, {"learning_rate": float("inf")}, {"steps": 1 << 30},
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused_as_they_are_read(wrong: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedReplyError):
        decode(encode(msgspec.structs.replace(TUNE, **wrong)))
    assert decode(encode(TUNE)) == TUNE
