"""Proxy tuning on tiny models: what crosses, what comes out, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.messages import Message, Step, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences.base import defences
from cosilo.errors import CapabilityError, ConfigError, CosiloError, DataError
from cosilo.models.base import Access, Shows, TextModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, strategies
from cosilo.strategies.inference.proxy import untuned
from cosilo.testing import LABELS, StrategyContract
from cosilo.types import Answer, Demonstration, Sampling, user
from toy_thread import ToyThreads

pytest.importorskip("torch")

import tiny_lm
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.models.white_box.tuning import Tuning
from white_box import tiny

CHAT = user("about 3")
ALL = 1 << 12
TRAINED = Tuning(rank=4, epochs=6, learning_rate=3e-2, validation=0.0)


def small(tuning: Tuning = TRAINED, **options: Any) -> TorchModel:
    tokens = tiny_lm.tokenizer()
    module = tiny_lm.module(len(tokens), seed=1, **{"scale": 6.0} | options)
    return TorchModel.holding(module, ChatTokens(tokens), name="small", tuning=tuning)


def opened(
    model: TextModel | None = None,
    large: TextModel | None = None,
    *,
    targets: bool = True,
    shows: Shows = Access.LOGITS.shows,
    sampling: Sampling = Sampling(max_tokens=5),
    ledger: MemoryLedger | None = None,
    **options: Any,
) -> tuple[Strategy, Session]:
    private = tuple(
        Demonstration(f"g{i}", user(f"about {i}"), "the refund" if targets else "")
        for i in range(8)
    )
    strategy = strategies.create("proxy", **{"top": ALL} | options)
    lm = LMOwner(large or tiny(0), exposes=shows)
    owner = DataOwner(model or small(), private=private)
    return strategy, open_session(owner, lm, strategy, sampling=sampling, ledger=ledger)


async def answered(strategy: Strategy, session: Session) -> Answer:
    return await strategy.answer(session.bind("a"), CHAT)


async def test_with_alpha_0_it_is_the_large_model() -> None:
    large = tiny(0)
    strategy, session = await _prepared(opened(large=large, alpha=0.0))
    alone = await large.generate(CHAT, session.sampling)
    assert (await answered(strategy, session)).text == alone.text


async def test_the_same_model_on_both_sides_becomes_the_tuned_one() -> None:
    """z + (z⁺ − z⁻) with z = z⁻: what is written is what the tuned model writes."""
    strategy, session = await _prepared(opened(small(), small()))
    alone = await session.owner.model.generate(CHAT, session.sampling)
    found = await answered(strategy, session)
    assert found.text == alone.text
    assert alone.text.startswith("the refund")
    assert found.by == "both"


@pytest.mark.parametrize("alpha", [0.5, 1.0])
async def test_each_token_is_drawn_from_the_sum_of_logits(alpha: float) -> None:
    large = tiny(0)
    sampling = Sampling(max_tokens=6, temperature=1.0, seed=7, top_logprobs=3)
    strategy, session = await _prepared(opened(large=large, alpha=alpha, sampling=sampling))
    tuned = session.owner.model
    assert isinstance(tuned, TorchModel)
    found = (await answered(strategy, session)).generation
    models = (large, tuned, untuned(tuned))
    tokens = tuned.tokenize(CHAT, found.text)
    z, plus, minus = [(await m.logits([tokens]))[0].astype(np.float64) for m in models]  # type: ignore[attr-defined]
    mixed = z + alpha * (plus - minus)
    mixed -= np.logaddexp.reduce(mixed, axis=1, keepdims=True)
    said = [t for t in found.tokens if t.token]
    assert [t.token.encode() for t in said] == list(tokens.pieces[: len(said)])
    for t, token in enumerate(said):
        assert abs(token.logprob - mixed[t, tokens.ids[tokens.start + t]]) < 0.06
        assert len(token.top) == 3


async def test_neither_the_examples_nor_the_adapter_cross() -> None:
    ledger = MemoryLedger()
    strategy, session = await _prepared(opened(ledger=ledger))
    sent = [e.message for e in ledger.entries() if e.direction == "up"]
    assert len(sent) == 1  # do both have one vocabulary?
    assert "about" not in str(sent)
    await answered(strategy, session)
    assert all(isinstance(m, Step) for m in _sent(ledger))
    said = b" ".join(map(encode, _sent(ledger)))
    assert said.count(b"about") == said.count(b"about 3") == 1


async def test_what_was_trained_is_what_prepare_takes() -> None:
    strategy, session = await _prepared(opened())
    tuned = session.owner.model
    assert session.owner.learned == {f"g{i}" for i in range(8)}
    again, same = await strategy.prepare(session)
    assert again == strategy
    assert same.owner.model is tuned


async def test_the_untuned_model_is_what_it_was() -> None:
    model = small()
    before = await model.logits([model.tokenize(CHAT, "the refund")])
    _, session = await _prepared(opened(model))
    tuned = session.owner.model
    assert isinstance(tuned, TorchModel)
    base = untuned(tuned)
    assert untuned(tuned) is base
    after = await base.logits([model.tokenize(CHAT, "the refund")])
    assert np.allclose(before[0], after[0], atol=1e-5)
    moved = await tuned.logits([model.tokenize(CHAT, "the refund")])
    assert np.abs(before[0] - moved[0]).max() > 0.1
    shared = base.module.get_output_embeddings().weight
    assert shared is tuned.module.get_base_model().get_output_embeddings().weight


async def test_nothing_to_learn_from_is_refused_before_anything_is_sent() -> None:
    ledger = MemoryLedger()
    strategy, session = opened(targets=False, ledger=ledger)
    with pytest.raises(DataError, match="nothing to tune"):
        await strategy.prepare(session)
    assert not _sent(ledger)


async def test_training_that_leaves_no_adapter_is_refused() -> None:
    strategy, session = opened(small(Tuning(method="full", epochs=1)))
    with pytest.raises(CapabilityError, match="lora"):
        await strategy.prepare(session)


def test_a_small_model_without_weights_is_refused() -> None:
    with pytest.raises(CapabilityError, match="weights"):
        opened(ToyThreads())


def test_a_large_model_that_shows_no_logits_is_refused() -> None:
    with pytest.raises(CapabilityError, match="exposes only text"):
        opened(shows=Access.TEXT.shows)


def test_a_large_model_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(CapabilityError, match="keeps what it has read"):
        opened(large=ScriptedModel(lambda chat: "hi", name="large"))


async def test_another_vocabulary_is_refused_by_name_before_training() -> None:
    other = tiny(0, words=("nothing",))
    strategy, session = opened(large=other)
    with pytest.raises(CapabilityError, match=r"'small' has another.*bytes"):
        await strategy.prepare(session)
    assert session.totals.messages == 1


async def test_a_prompt_longer_than_the_context_is_refused() -> None:
    strategy, session = await _prepared(opened())
    with pytest.raises(CosiloError, match="context"):
        await strategy.answer(session.bind("a"), user("about " * 600))


async def test_behind_pseudonyms_nothing_crosses() -> None:
    """Probabilities of another text would be mixed with those of the real one."""
    ledger = MemoryLedger()
    strategy, session = await _prepared(opened(ledger=ledger))
    defence = defences.create("pseudonym", detectors=("patterns",))
    guarded = open_session(
        session.owner,
        LMOwner(tiny(0), exposes=Access.LOGITS.shows),
        strategy,
        defences=[defence],
        ledger=(guarded_ledger := MemoryLedger()),
    )
    with pytest.raises(CosiloError):
        await strategy.answer(guarded.bind("a"), user("I am Jane Doe, jane@doe.org"))
    assert not _sent(guarded_ledger)


@pytest.mark.parametrize(
    "options", [{"alpha": -1.0}, {"top": 0}, {"ahead": -1}, {"ahead": 2, "by": "bytes"}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        strategies.create("proxy", **options)


async def _prepared(pair: tuple[Strategy, Session]) -> tuple[Strategy, Session]:
    return await pair[0].prepare(pair[1])


def _sent(ledger: MemoryLedger) -> list[Message]:
    return [e.message for e in ledger.entries() if e.direction == "up" and e.message is not None]


class TestProxy(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("proxy", top=ALL)

    def small(self) -> TextModel:
        return small(replace(TRAINED, epochs=1, batch=8, learning_rate=1e-4))

    def large(self) -> Any:
        return tiny(0, scale=6.0)  # sure of what it says, so that no answer hangs on a rounding

    def open(self, **options: Any) -> Session:
        return open_session(
            self.owner(),
            LMOwner(self.large(), exposes=Access.LOGITS.shows),
            self.strategy(),
            sampling=Sampling(choices=LABELS),
            **options,
        )
