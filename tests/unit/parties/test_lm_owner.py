"""The LM's owner shows what it said it would show, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from cosilo.boundary.messages import Ask, Completion, Message, Read, Score, Scored, Scores, States
from cosilo.boundary.wire import states
from cosilo.boundary.wire.logits import unpack
from cosilo.errors import CapabilityError
from cosilo.models.base import Access, Array, Shows, Tokens
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.serving import score as scoring
from cosilo.types import Sampling, assemble, user
from meaning import Meaning, direction
from toy_lm import ToyLM


@pytest.mark.parametrize(("exposes", "shown"), [(Access.TEXT.shows, 0), (Access.LOGPROBS.shows, 2)])
async def test_log_probabilities_are_shown_at_their_level_only(exposes: Shows, shown: int) -> None:
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


def score(*replies: str, **options: object) -> Score:
    items = tuple(Scored(user(f"question {i}"), reply) for i, reply in enumerate(replies))
    return Score(items=items, **options)  # type: ignore[arg-type]


async def test_replies_are_scored_where_logits_are_exposed() -> None:
    model = ToyLM(size=300)
    scores = await LMOwner(model, exposes=Access.LOGITS.shows).handle(score("yes", "", top=300))
    assert isinstance(scores, Scores)
    assert scores.lengths == (4, 1)  # each ends with the end of the turn
    assert scores.vocabulary == "bytes"
    assert scores.pieces == ()
    assert scores.usage() == (sum(map(len, model.scored)), 0)
    found = unpack(scores.packed).parts(scores.lengths)
    for top, tokens in zip(found, tuple(model.scored), strict=True):
        (logits,) = await model.logits([tokens])
        exact = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        np.testing.assert_allclose(top.logprobs, exact, atol=0.07)


async def test_sorted_probabilities_come_without_ids_and_pieces_join_to_the_reply() -> None:
    scores = await LMOwner(ToyLM(), exposes=Access.LOGITS.shows).handle(
        score("naïve", top=5, ids=False, pieces=True)
    )
    assert isinstance(scores, Scores)
    assert unpack(scores.packed).ids is None
    assert b"".join(scores.pieces[0]).decode() == "naïve"
    assert len(scores.pieces[0]) == scores.lengths[0]
    assert scores.spelt == ()


async def test_the_tokens_it_names_are_spelt_where_asked_for() -> None:
    model = ToyLM()
    scores = await LMOwner(model, exposes=Access.LOGITS.shows).handle(
        score("hi", top=7, pieces=True)
    )
    assert isinstance(scores, Scores)
    named = np.unique(unpack(scores.packed).ids)  # type: ignore[arg-type]
    assert scores.spelt == tuple(model.piece(i) for i in named.tolist())


async def test_a_temperature_comes_before_the_top_is_taken() -> None:
    model = ToyLM()
    scores = await LMOwner(model, exposes=Access.LOGITS.shows).handle(
        score("hi", top=300, temperature=2.0)
    )
    assert isinstance(scores, Scores)
    (logits,) = await model.logits(model.scored[:1])
    exact = logits / 2 - np.logaddexp.reduce(logits / 2, axis=1)[:, None]
    np.testing.assert_allclose(unpack(scores.packed).logprobs, exact, atol=0.07)


@pytest.mark.parametrize("exposes", [Access.TEXT.shows, Access.LOGPROBS.shows])
async def test_scoring_below_its_level_is_refused_before_the_model_is_asked(
    exposes: Shows,
) -> None:
    model = ToyLM()
    with pytest.raises(CapabilityError, match="does not serve Score"):
        await LMOwner(model, exposes=exposes).handle(score("yes"))
    assert not model.scored


async def test_a_model_that_shows_no_logits_is_refused_whatever_its_owner_says() -> None:
    with pytest.raises(CapabilityError, match="needs logits, but 'scripted' shows only logprobs"):
        await LMOwner(ScriptedModel(), exposes=Access.LOGITS.shows).handle(score("yes"))


async def test_many_replies_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, most = ToyLM(), 0

    async def logits(sequences: Sequence[Tokens]) -> list[Array]:
        nonlocal most
        pending.add(id(sequences))
        most = max(most, len(pending))
        await asyncio.sleep(0)
        found = await ToyLM.logits(model, sequences)
        pending.discard(id(sequences))
        return found

    pending: set[int] = set()
    monkeypatch.setattr(model, "logits", logits)
    monkeypatch.setattr(scoring, "_VALUES", 10 * model.vocabulary_size)
    replies = ("four", "five", "a reply longer than all of it", "x")
    scores = await LMOwner(model, exposes=Access.LOGITS.shows).handle(score(*replies))
    assert isinstance(scores, Scores)
    assert scores.lengths == tuple(len(r) + 1 for r in replies)
    assert most == 2


async def test_texts_are_read_where_states_are_exposed() -> None:
    model = Meaning({"plum": "fruit", "fig": "fruit"})
    owner = LMOwner(model, exposes=Access.ACTIVATIONS.shows)
    reply = await owner.handle(Read(texts=("a plum", "the ripe fig")))
    assert isinstance(reply, States)
    assert reply.usage() == (5, 0)
    for row, text in zip(states.unpack(reply.packed, 2), ("a plum", "the ripe fig"), strict=True):
        exact = 0.3 * direction(text) + 3 * direction("fruit")  # of the last token, all layers on
        cosine = row @ exact / np.linalg.norm(row) / np.linalg.norm(exact)
        assert cosine == pytest.approx(1, abs=1e-6)
    early = await owner.handle(Read(texts=("a plum",), layer=1))
    assert isinstance(early, States)
    row = states.unpack(early.packed, 1)[0]
    exact = direction("a plum")
    assert row @ exact / np.linalg.norm(row) / np.linalg.norm(exact) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("exposes", [Access.TEXT.shows, Access.LOGITS.shows])
async def test_reading_below_its_level_is_refused_before_the_model_is_asked(
    exposes: Shows,
) -> None:
    model = Meaning({})
    with pytest.raises(CapabilityError, match="does not serve Read"):
        await LMOwner(model, exposes=exposes).handle(Read(texts=("a",)))
    assert not model.read
