"""An attack on what a model said is the attack on the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bag import Bag
from cosilo.attacks.base import Target, View, attacks
from cosilo.benchmark.published import SaidByModel, published, said_by, untrained
from cosilo.benchmark.store import Store
from cosilo.errors import RejectedError, StoreError
from cosilo.models.base import Array, TextModel, Tokens
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.tasks.base import Example
from cosilo.types import Demonstration, user
from toy_lm import ToyLM

EXAMPLES = tuple(
    Example(f"e{i}", user(f"text {i} of {'good' if i % 2 else 'bad'} things"), "ab"[i % 2])
    for i in range(20)
)
TARGETS = [Target(f"{e.id}#member", "", "member", chat=e.chat, label=e.target) for e in EXAMPLES]


async def guessed(name: str, model: object) -> list[float]:
    view = View(lambda: iter(()), published=model, embedder=Bag())
    return [g.score for g in await attacks.create(name).guess(view, TARGETS)]


def trained(examples: Sequence[Example]) -> Bag:
    return Bag([Demonstration(e.id, e.chat, e.target) for e in examples])


@pytest.mark.parametrize(
    ("model", "names"),
    [(trained(EXAMPLES[:10]), ("loss", "confidence", "calibrated")), (ToyLM(), ("loss", "min_k"))],
)
async def test_every_attack_guesses_the_same(model: TextModel, names: tuple[str, ...]) -> None:
    said = await said_by(model, frozenset({"e1"}), EXAMPLES)
    assert said is not None
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=SaidByModel)
    assert kept.learned == {"e1"}
    for name in names:
        exact = await guessed(name, model)
        assert len(set(exact)) > 1
        np.testing.assert_allclose(await guessed(name, published(kept)), exact, atol=1e-6)


async def test_what_it_was_trained_from_is_heard_as_well() -> None:
    said = await said_by(ToyLM(), frozenset({"e1"}), EXAMPLES, before=ToyLM())
    assert said is not None
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=SaidByModel)
    begun = untrained(kept)
    assert begun is not None
    exact = await guessed("loss", ToyLM())
    np.testing.assert_allclose(await guessed("loss", begun), exact, atol=1e-6)
    alone = await said_by(ToyLM(), frozenset(), EXAMPLES)
    assert alone is not None
    assert untrained(alone) is None


async def test_a_model_that_shows_nothing_but_text_is_not_asked() -> None:
    assert await said_by(ScriptedModel(), frozenset(), EXAMPLES) is None


async def test_a_reply_too_long_for_the_model_gets_no_opinion() -> None:
    class Short(ToyLM):
        async def logits(self, sequences: Sequence[Tokens]) -> list[Array]:
            if any(len(s) > 60 for s in sequences):
                raise RejectedError("longer than the context")
            return await super().logits(sequences)

    long = Example("long", user("word " * 20), "a")
    said = await said_by(Short(), frozenset(), [*EXAMPLES, long])
    assert said is not None
    assert sum(not x for x in said.logprobs.values()) == 1
    target = Target("long#member", "", "member", chat=long.chat, label="a")
    view = View(lambda: iter(()), published=published(said))
    *others, own = await attacks.create("loss").guess(view, [*TARGETS, target])
    scores = sorted(g.score for g in others)
    assert scores[len(scores) // 2 - 1] <= own.score <= scores[len(scores) // 2]


@pytest.mark.parametrize("model", [trained(EXAMPLES), ToyLM()])
async def test_a_text_that_it_was_not_asked_about_is_said(model: TextModel) -> None:
    said = await said_by(model, frozenset(), EXAMPLES[1:])
    assert said is not None
    with pytest.raises(StoreError, match="was not asked about a text"):
        await guessed("loss", published(said))


async def test_it_is_kept_by_trial(tmp_path: Path) -> None:
    store = Store(tmp_path / "run", write=True)
    said = await said_by(trained(EXAMPLES), frozenset(), EXAMPLES[:2])
    assert said is not None
    store.put_said("one", said)
    assert store.said("one") == said
    assert store.said("two") is None
    store.close()
