"""An owner lends by parts what its terms allow, takes adapters back, and answers with them."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

pytest.importorskip("torch")

import lent
from cosilo.boundary.messages import Ask, Completion, Lend, Lent, PluggedIn, PlugIn, Score, Scored
from cosilo.boundary.messages import lend as messages
from cosilo.boundary.wire.tensors import pack
from cosilo.errors import CapabilityError, RejectedError, UnexpectedReplyError, UnknownAdapterError
from cosilo.models.base import EVERYTHING, Shows
from cosilo.models.fit.lending import Lender
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.adapters import A, Adapter, first_adapter
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.serving import lend as serving
from cosilo.types import Delta, Sampling, assemble, user

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

SAMPLING = Sampling(max_tokens=6)


@pytest.fixture(scope="module")
def model() -> Lender:
    return lent.shared()


@pytest.fixture
def owner(model: Lender) -> LMOwner:
    return LMOwner(model, lent.LENDS, client="me")


def asked(model: Lender, **changes: Any) -> Lend:
    return replace(Lend(most=1 << 30, vocabulary=model.vocabulary), **changes)


def tuned(model: Lender, rank: int = 2) -> Adapter:
    begun = first_adapter(model.tunable, rank, seed=0)
    rng = np.random.default_rng(1)
    tensors = {n: rng.normal(0, 0.3, t.shape).astype(np.float32) for n, t in begun.tensors.items()}
    return Adapter(rank, 2.0, tensors)


def sent(model: Lender, adapter: Adapter) -> PlugIn:
    packed = pack(adapter.tensors, "fp16")
    return PlugIn(base=model.base, rank=adapter.rank, alpha=adapter.alpha, packed=packed)


async def test_it_comes_in_parts_that_are_the_whole(
    owner: LMOwner, model: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await owner.handle(asked(model))
    assert isinstance(whole, Lent)
    assert whole.about is not None
    assert (whole.parts, whole.size) == (1, len(whole.packed))
    for module in (messages, serving):
        monkeypatch.setattr(module, "PART", 50_000)
    parts = []
    for number in range(messages.parts_of(whole.size)):
        request = asked(model, part=number)
        part = await owner.handle(request)
        assert isinstance(part, Lent)
        request.check_reply(part)
        part.check()
        parts.append(part)
    assert len(parts) > 2
    assert b"".join(part.packed for part in parts) == whole.packed
    assert {(part.size, part.digest) for part in parts} == {(whole.size, whole.digest)}
    with pytest.raises(RejectedError, match="parts"):
        await owner.handle(asked(model, part=len(parts)))
    with pytest.raises(ValueError, match="another part"):
        asked(model, part=0).check_reply(parts[1])
    with pytest.raises(ValueError, match="size"):
        asked(model).check_reply(replace(parts[0], packed=b"less"))
    with pytest.raises(ValueError, match="more than is taken"):
        asked(model, most=9).check_reply(parts[0])


async def test_another_tokeniser_or_a_smaller_budget_is_told_before_anything_comes(
    owner: LMOwner, model: Lender
) -> None:
    with pytest.raises(CapabilityError, match="another tokeniser"):
        await owner.handle(asked(model, vocabulary=16 * "0"))
    size = len((await owner.handle(asked(model))).packed)  # type: ignore[attr-defined]
    with pytest.raises(CapabilityError, match="takes no more than"):
        await owner.handle(asked(model, most=size - 1))


async def test_an_owner_who_shows_or_has_none_lends_none(model: Lender) -> None:
    for exposes in (Shows.TEXT, Shows.TEXT | Shows.LOGITS):
        with pytest.raises(CapabilityError, match="emulator"):
            await LMOwner(model, exposes).handle(asked(model))
    other = LMOwner(ScriptedModel(), EVERYTHING)
    for message in (asked(model), sent(model, tuned(model))):
        with pytest.raises(CapabilityError, match="lends no emulator"):
            await other.handle(message)
    with pytest.raises(UnknownAdapterError):
        await other.handle(Ask(chat=user("q"), adapter=32 * "a"))


async def test_the_model_answers_with_what_was_plugged_in_for_whoever_did(
    owner: LMOwner, model: Lender
) -> None:
    taken = await owner.handle(sent(model, tuned(model)))
    assert isinstance(taken, PluggedIn)
    ask = Ask(chat=user("about 3"), sampling=SAMPLING, adapter=taken.name)
    answered, plain = await owner.handle(ask), await owner.handle(replace(ask, adapter=""))
    assert isinstance(answered, Completion)
    assert isinstance(plain, Completion)
    assert answered.generation.text != plain.generation.text
    pieces: list[Delta] = [delta async for delta in owner.handle_stream(ask)]
    assert assemble(pieces).text == answered.generation.text
    other = LMOwner(model, lent.LENDS, client="you")
    with pytest.raises(UnknownAdapterError):
        await other.handle(ask)
    with pytest.raises(UnknownAdapterError):
        assert [delta async for delta in other.handle_stream(ask)]


async def test_replies_are_scored_by_it_too(model: Lender) -> None:
    owner = LMOwner(model, EVERYTHING, client="me")
    taken = await owner.handle(sent(model, tuned(model)))
    score = Score(items=(Scored(user("about 3"), "billing"),))
    found = [
        await owner.handle(replace(score, adapter=name))
        for name in ("", taken.name)  # type: ignore[attr-defined]
    ]
    assert found[0].packed != found[1].packed  # type: ignore[attr-defined]
    assert score.question() != replace(score, adapter=taken.name).question()  # type: ignore[attr-defined]


def test_a_recorded_answer_is_one_of_that_adapter() -> None:
    ask = Ask(chat=user("q"))
    assert ask.question() == {"chat": ask.chat, "sampling": ask.sampling}, "as it has always been"
    other = replace(ask, adapter=32 * "a")
    assert other.question() != ask.question()
    assert other.question() != replace(ask, adapter=32 * "b").question()
    plug = PlugIn(base=32 * "b", rank=1, alpha=1.0, packed=b"x")
    assert plug.question() is not None
    assert replace(plug, again=True).question() is None


@pytest.mark.parametrize("packed", [b"", b"nothing of the kind", bytes(500)])
async def test_bytes_that_are_no_adapter_are_refused(
    owner: LMOwner, model: Lender, packed: bytes
) -> None:
    with pytest.raises(RejectedError):
        await owner.handle(replace(sent(model, tuned(model)), packed=packed))


async def test_an_adapter_of_more_numbers_than_it_says_is_refused(
    owner: LMOwner, model: Lender
) -> None:
    with pytest.raises(RejectedError, match="no adapter of rank 2"):
        await owner.handle(replace(sent(model, tuned(model, rank=3)), rank=2))
    many = {f"layer{i}{A}": np.ones((1, 1), np.float32) for i in range(99)}
    with pytest.raises(RejectedError):
        await owner.handle(replace(sent(model, tuned(model)), packed=pack(many, "fp16")))


def test_what_is_on_the_wire_is_an_adapter_of_a_rank(model: Lender) -> None:
    from cosilo.boundary.messages import decode, encode

    for wrong in (
        replace(sent(model, tuned(model)), rank=0),
        replace(sent(model, tuned(model)), alpha=float("inf")),
        Ask(chat=user("q"), adapter="jane.roe@example.org"),
        asked(model, vocabulary="a private text"),
        Lent(part=1, parts=1, size=1, digest=64 * "a", packed=b"x"),
        Lent(part=0, parts=1, size=1, digest=64 * "a", packed=b"x"),
    ):
        with pytest.raises(UnexpectedReplyError):
            decode(encode(wrong))


def test_where_what_is_shown_is_limited_none_is_lent(model: Lender) -> None:
    assert asked(model).drawn() is None


def test_two_clients_do_not_meet(model: Lender) -> None:
    async def both() -> list[str]:
        found = []
        for client in ("one", "two"):
            owner = LMOwner(model, lent.LENDS, client=client)
            taken = await owner.handle(sent(model, tuned(model)))
            found.append(taken.name)  # type: ignore[attr-defined]
        return found

    one, two = asyncio.run(both())
    assert one != two
