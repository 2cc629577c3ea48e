"""The LM's owner shows what it said it would show, and nothing more."""

from __future__ import annotations

import pytest

from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.errors import CapabilityError
from cosilo.models.base import Access
from cosilo.models.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Sampling, assemble, user


@pytest.mark.parametrize(("exposes", "shown"), [(Access.TEXT, 0), (Access.LOGPROBS, 2)])
async def test_log_probabilities_are_shown_at_their_level_only(exposes: Access, shown: int) -> None:
    owner = LMOwner(ScriptedModel({"x": "two words"}), exposes=exposes)
    reply = await owner.handle(Ask(chat=user("x")))
    assert isinstance(reply, Completion)
    assert reply.generation.text == "two words"
    assert len(reply.generation.tokens) == shown
    streamed = assemble([d async for d in owner.handle_stream(Ask(chat=user("x")))])
    assert streamed.text == "two words"
    assert len(streamed.tokens) == shown


async def test_asking_for_more_than_is_exposed_is_refused_before_the_model_is_asked() -> None:
    model = ScriptedModel()
    owner = LMOwner(model)
    ask = Ask(chat=user("x"), sampling=Sampling(top_logprobs=5))
    with pytest.raises(CapabilityError, match="exposes text"):
        await owner.handle(ask)
    with pytest.raises(CapabilityError, match="exposes text"):
        [d async for d in owner.handle_stream(ask)]
    assert not model.seen


async def test_a_message_it_does_not_serve_is_refused_by_name() -> None:
    class Odd(Message, frozen=True, kw_only=True, tag="OddForTest"): ...

    with pytest.raises(CapabilityError, match="does not serve Odd"):
        await LMOwner(ScriptedModel()).handle(Odd())
