"""What an owner does not show is neither asked for nor passed on, whoever answers behind it."""

from __future__ import annotations

import pytest

from cosilo.boundary.messages import Ask, Completion, Read, Score, Scored
from cosilo.errors import CapabilityError
from cosilo.models.base import Access, Shows
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Sampling, assemble, user
from meaning import Meaning


@pytest.mark.parametrize(
    ("exposes", "tokens"), [(Access.TEXT.shows, 0), (Access.LOGPROBS.shows, 2)]
)
async def test_log_probabilities_are_shown_at_their_level_only(exposes: Shows, tokens: int) -> None:
    everything = LMOwner(ScriptedModel({"x": "two words"}), exposes=Access.WEIGHTS.shows)
    party = Exposed(everything, exposes)
    reply = await party.handle(Ask(chat=user("x")))
    assert isinstance(reply, Completion)
    assert (reply.generation.text, len(reply.generation.tokens)) == ("two words", tokens)
    said = assemble([d async for d in party.handle_stream(Ask(chat=user("x")))])
    assert (said.text, len(said.tokens)) == ("two words", tokens)


async def test_more_than_is_exposed_is_refused_by_name_before_anybody_is_asked() -> None:
    model = Meaning({})
    party = Exposed(LMOwner(model, exposes=Access.WEIGHTS.shows), Access.LOGPROBS.shows, "the bank")
    for message in (Score(items=(Scored(user("q"), "a"),)), Read(texts=("a",))):
        with pytest.raises(CapabilityError, match="the bank exposes logprobs and does not serve"):
            await party.handle(message)
    assert not model.read
    scripted = ScriptedModel()
    plain = Exposed(LMOwner(scripted, exposes=Access.WEIGHTS.shows))
    ask = Ask(chat=user("x"), sampling=Sampling(top_logprobs=5))
    with pytest.raises(
        CapabilityError, match="exposes text and does not serve Ask messages that ask for logprobs"
    ):
        await plain.handle(ask)
    with pytest.raises(
        CapabilityError, match="exposes text and does not serve Ask messages that ask for logprobs"
    ):
        _ = [d async for d in plain.handle_stream(ask)]
    assert not scripted.seen
